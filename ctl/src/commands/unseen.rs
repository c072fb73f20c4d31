//! Folders whose files a service serves and the proxy in its container can't see, with the command that shows them to it.

use std::fmt;
use std::path::PathBuf;

use ::config::admin::response::ServiceStatus;

use crate::context::Context;
use crate::engine::{Engine, EngineError};
use crate::error::Error;

/// A folder that the proxy can't see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unseen {
    /// What is so, in words.
    pub(super) words: String,
    /// The command that mends it.
    pub(super) mend: String,
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`", self.words, self.mend)
    }
}

/// Looks for such folders.
///
/// # Errors
/// Where the engine can't be reached.
pub(super) async fn look(engine: &Engine, services: &[ServiceStatus]) -> Result<Vec<Unseen>, EngineError> {
    if services.iter().all(|service| folders(service).next().is_none()) {
        return Ok(Vec::new());
    }
    Ok(engine.sight().await?.map_or_else(Vec::new, |seen| unseen(services, &seen)))
}

/// Asks the proxy first.
///
/// # Errors
/// Where the proxy or the engine can't be reached.
pub(super) async fn ask(engine: &Engine, context: &Context<'_>) -> Result<Vec<Unseen>, Error> {
    let status = context.admin().await?.status().await?;
    Ok(look(engine, &status.services).await?)
}

fn folders(service: &ServiceStatus) -> impl Iterator<Item = &PathBuf> {
    service.settings.options.iter().flat_map(|options| &options.static_files).map(|files| &files.folder)
}

fn unseen(services: &[ServiceStatus], seen: &[PathBuf]) -> Vec<Unseen> {
    let mut found: Vec<Unseen> = Vec::new();
    for service in services {
        for folder in folders(service).filter(|folder| !seen.iter().any(|seen| folder.starts_with(seen))) {
            let (name, folder) = (&service.name, folder.display());
            let words = format!("{name} serves files of {folder}, which the proxy's container does not see");
            let mend = format!("bgctl up --volume {folder}:{folder} --upgrade");
            if !found.iter().any(|known| known.words == words) {
                found.push(Unseen { words, mend });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_folder_that_is_not_mounted_is_told_once_with_the_line_that_mounts_it() {
        let empty = json!({ "state": "empty", "endpoints": [], "in_flight": 0, "image": null, "deployment": null, "since": null });
        let files = |folder: &str| json!({ "path": "/x", "folder": folder });
        let service: ServiceStatus = serde_json::from_value(json!({
            "name": "shop", "generation": 1, "origin": "admin", "live": null,
            "slots": { "blue": empty, "green": empty },
            "settings": { "options": { "static": [files("/srv/media"), files("/srv/static/app"), files("/srv/media")] } },
        }))
        .unwrap();
        let told = |seen: &[&str]| -> Vec<String> {
            let seen: Vec<PathBuf> = seen.iter().map(PathBuf::from).collect();
            unseen(std::slice::from_ref(&service), &seen).iter().map(ToString::to_string).collect()
        };
        let media = "shop serves files of /srv/media, which the proxy's container does not see: \
                     `bgctl up --volume /srv/media:/srv/media --upgrade`";
        assert_eq!(told(&["/srv/static", "/srv/med"]), [media]);
        assert!(told(&["/srv"]).is_empty());
        assert_eq!(told(&[]).len(), 2);
    }
}
