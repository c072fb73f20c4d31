//! What of the host the proxy's container sees: folders and volumes whose files it serves, and never writes to.

use std::path::{Path, PathBuf};

use bollard::models::ContainerInspectResponse;

use super::mount::{self, Volume};
use super::{Docker, labels};
use crate::engine::EngineError;

/// Places in the container that are the proxy's own.
const OWN: [&str; 4] = [config::paths::STATE_DIR, "/run/bluegreen", "/proc", "/sys"];

/// Returns what the proxy is to see: what `--volume` says, else what the present one was made with.
///
/// # Errors
/// [`EngineError::Usage`] where one is wrong.
pub(super) fn volumes(asked: &[String], proxy: Option<&ContainerInspectResponse>) -> Result<Vec<String>, EngineError> {
    if asked.is_empty() { Ok(present(proxy)) } else { asked.iter().map(|text| read_only(text)).collect() }
}

/// Returns what a proxy was made with.
pub(super) fn present(proxy: Option<&ContainerInspectResponse>) -> Vec<String> {
    let own_labels = proxy.and_then(|proxy| proxy.config.as_ref()?.labels.as_ref());
    let text = own_labels.and_then(|labels| labels.get(labels::VOLUMES));
    // A list that nobody can read is one that we did not write.
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Reads `SOURCE:PATH[:OPTIONS]`; whatever it says of writing, it is read alone.
fn read_only(text: &str) -> Result<String, EngineError> {
    let wrong = |why: String| EngineError::Usage(format!("--volume {why}"));
    let Volume::Bind(_) = mount::volume(text).map_err(wrong)? else {
        return Err(wrong(format!("`{text}`: write SOURCE:PATH, such as /srv/media:/srv/media or media:/srv/media")));
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, path) = (parts[0], parts[1].trim_end_matches('/'));
    let is_own = |own: &&&str| Path::new(path).starts_with(own) || Path::new(own).starts_with(path);
    if let Some(own) = OWN.iter().find(is_own) {
        return Err(wrong(format!("`{text}`: {own} is the proxy's own")));
    }
    let options = parts.get(2).copied().unwrap_or_default().split(',');
    if options.clone().any(|option| option == "rw") {
        return Err(wrong(format!("`{text}`: the proxy only reads; write `ro`, or nothing")));
    }
    let others: Vec<&str> = options.filter(|option| !matches!(*option, "" | "ro")).collect();
    let options = [&["ro"], &others[..]].concat().join(",");
    Ok(format!("{source}:{path}:{options}"))
}

impl Docker {
    /// Returns the places in the proxy's container that are folders or volumes of the host.
    ///
    /// # Errors
    /// Where the engine can't be reached.
    pub(in crate::engine) async fn sight(&self) -> Result<Vec<PathBuf>, EngineError> {
        let proxy = self.inspect(&self.names.proxy()).await?;
        let mounts = proxy.and_then(|proxy| proxy.mounts).unwrap_or_default();
        Ok(mounts.into_iter().filter_map(|mount| mount.destination).map(PathBuf::from).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard::models::ContainerConfig;

    use super::*;

    #[test]
    fn what_is_given_is_read_alone_and_never_the_proxys_own() {
        for (text, expected) in [
            ("media:/srv/media", "media:/srv/media:ro"),
            ("/srv/static/:/srv/static/:ro", "/srv/static/:/srv/static:ro"),
            ("/srv/a:/a:z", "/srv/a:/a:ro,z"),
        ] {
            assert_eq!(volumes(&[text.to_owned()], None).unwrap(), [expected]);
        }
        for wrong in [
            "/srv/media",
            "./media:/srv/media",
            "/srv/media:/srv/media:rw",
            "/srv/media:media",
            "/etc:/var/lib/bluegreen",
            "/etc:/run",
            "/etc:/run/bluegreen/x",
            "/etc:/",
            "a:/b:nonsense",
        ] {
            let refused = volumes(&[wrong.to_owned()], None);
            assert!(matches!(refused, Err(EngineError::Usage(_))), "{wrong}: {refused:?}");
        }
    }

    #[test]
    fn who_names_none_keeps_those_that_are_there() {
        let list = r#"["media:/srv/media:ro"]"#.to_owned();
        let labels = Some(HashMap::from([(labels::VOLUMES.to_owned(), list)]));
        let config = Some(ContainerConfig { labels, ..ContainerConfig::default() });
        let proxy = ContainerInspectResponse { config, ..ContainerInspectResponse::default() };
        assert_eq!(volumes(&[], Some(&proxy)).unwrap(), ["media:/srv/media:ro"]);
        assert_eq!(volumes(&["b:/c".to_owned()], Some(&proxy)).unwrap(), ["b:/c:ro"]);
        assert!(volumes(&[], None).unwrap().is_empty());
    }
}
