//! The application's image: found, or pulled.

use bollard::models::{HealthConfig, ImageInspect};
use bollard::query_parameters::{CreateImageOptions, RemoveImageOptions};
use futures_util::StreamExt as _;

use super::refusal::{found, refusal};
use super::{Docker, credentials};
use crate::engine::{EngineError, Image, Pull};

impl Docker {
    pub(super) async fn find_image(&self, reference: &str, pull: Pull) -> Result<Image, EngineError> {
        if reference.is_empty() || reference.contains(char::is_whitespace) {
            return Err(EngineError::Usage(format!("`{reference}` is not the name of an image")));
        }
        let present = self.inspect_image(reference).await?;
        let image = match (present, pull) {
            (Some(image), Pull::Missing | Pull::Never) => Some(image),
            (None, Pull::Never) => None,
            (None, Pull::Missing) | (_, Pull::Always) => {
                self.pull(reference).await?;
                self.inspect_image(reference).await?
            }
        };
        image.and_then(|image| read(reference, image)).ok_or_else(|| {
            EngineError::Refused(format!(
                "there is no image {reference} on {}, and --pull never forbids to fetch it\nhint: `docker images` shows \
                 what is there",
                self.place.target()
            ))
        })
    }

    pub(in crate::engine) async fn has_image(&self, id: &str) -> Result<bool, EngineError> {
        Ok(self.inspect_image(id).await?.is_some())
    }

    pub(in crate::engine) async fn remove_image(&self, id: &str) -> Result<(), EngineError> {
        let Some(image) = self.inspect_image(id).await? else { return Ok(()) };
        // By each of its names, which the engine takes without force; the last takes the layers along.
        let names = image.repo_tags.unwrap_or_default();
        for name in if names.is_empty() { vec![id.to_owned()] } else { names } {
            let removed = self.handles.call.remove_image(&name, None::<RemoveImageOptions>, None).await;
            removed.map_err(|error| refusal(&format!("remove {name}"), error))?;
        }
        Ok(())
    }

    async fn inspect_image(&self, reference: &str) -> Result<Option<ImageInspect>, EngineError> {
        found(&format!("look for image {reference}"), self.handles.call.inspect_image(reference).await)
    }

    async fn pull(&self, reference: &str) -> Result<(), EngineError> {
        let registry = credentials::registry(reference);
        let known = match credentials::folder(&config::paths::variable) {
            Some(folder) => credentials::find(&folder, registry).await,
            None => Ok(None),
        };
        // A public image needs none, so what is wrong with them is said where the pull fails.
        let (credentials, trouble) = match known {
            Ok(known) => (known, None),
            Err(trouble) => (None, Some(trouble)),
        };
        let failed = |why: &dyn std::fmt::Display| {
            let why = why.to_string();
            let is_closed = ["unauthorized", "denied", "no basic auth"].iter().any(|word| why.contains(word));
            let hint = match &trouble {
                Some(trouble) => format!("docker's credentials can't be read: {trouble}"),
                None if is_closed && registry.starts_with("https://") => {
                    "`docker login` first, on this machine".to_owned()
                }
                None if is_closed => format!("`docker login {registry}` first, on this machine"),
                None => "build it on this machine, and `bgctl deploy HOST IMAGE` sends it".to_owned(),
            };
            EngineError::Refused(format!(
                "there is no image {reference} on {}, and it could not be pulled: {why}\nhint: {hint}",
                self.place.target()
            ))
        };
        // Without a tag, the engine would pull every tag of the repository.
        let last = reference.rsplit('/').next().unwrap_or(reference);
        let tag = (!last.contains(':') && !reference.contains('@')).then(|| "latest".to_owned());
        let options =
            CreateImageOptions { from_image: Some(reference.to_owned()), tag, ..CreateImageOptions::default() };
        let mut progress = std::pin::pin!(self.handles.long.create_image(Some(options), None, credentials));
        while let Some(step) = progress.next().await {
            let step = step.map_err(|error| match refusal("pull", error) {
                EngineError::Refused(why) => failed(&why),
                other => other,
            })?;
            if let Some(message) = step.error_detail.and_then(|detail| detail.message) {
                return Err(failed(&message));
            }
        }
        Ok(())
    }
}

fn read(reference: &str, image: ImageInspect) -> Option<Image> {
    let config = image.config.unwrap_or_default();
    let ports = config.exposed_ports.unwrap_or_default();
    let mut ports: Vec<u16> = ports
        .iter()
        .filter_map(|port| match port.split_once('/') {
            Some((number, "tcp")) => number.parse().ok(),
            Some(_) => None,
            None => port.parse().ok(),
        })
        .collect();
    ports.sort_unstable();
    let shell = config.shell.filter(|shell| !shell.is_empty());
    Some(Image {
        reference: reference.to_owned(),
        id: image.id?,
        exposed_ports: ports,
        entrypoint: config.entrypoint.unwrap_or_default(),
        revision: config.labels.unwrap_or_default().remove("org.opencontainers.image.revision"),
        health_command: config.healthcheck.and_then(|check| health_command(check, shell)),
    })
}

fn health_command(check: HealthConfig, shell: Option<Vec<String>>) -> Option<Vec<String>> {
    let test = check.test?;
    match test.split_first()? {
        (kind, command) if kind == "CMD" && !command.is_empty() => Some(command.to_vec()),
        (kind, [line]) if kind == "CMD-SHELL" => {
            let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            command.push(line.clone());
            Some(command)
        }
        // NONE, or nothing of its own.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ImageConfig;

    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn tcp_ports_are_exposed_ports_and_others_are_not() {
        let config =
            ImageConfig { exposed_ports: Some(words(&["9000/tcp", "53/udp", "80/tcp"])), ..ImageConfig::default() };
        let image = ImageInspect { id: Some("sha256:1".to_owned()), config: Some(config), ..ImageInspect::default() };
        assert_eq!(read("shop", image).unwrap().exposed_ports, [80, 9000]);
    }

    #[test]
    fn the_revision_is_what_the_image_says_it_was_built_from() {
        let label = ("org.opencontainers.image.revision".to_owned(), "5f2c1e".to_owned());
        let config = ImageConfig { labels: Some([label].into()), ..ImageConfig::default() };
        let image = ImageInspect { id: Some("sha256:1".to_owned()), config: Some(config), ..ImageInspect::default() };
        assert_eq!(read("shop", image).unwrap().revision.as_deref(), Some("5f2c1e"));
    }

    #[test]
    fn a_health_command_is_run_as_docker_would() {
        let check = |test: &[&str]| HealthConfig { test: Some(words(test)), ..HealthConfig::default() };
        assert_eq!(health_command(check(&["CMD", "/ok", "-q"]), None), Some(words(&["/ok", "-q"])));
        let shell = health_command(check(&["CMD-SHELL", "curl -f x || exit 1"]), None);
        assert_eq!(shell, Some(words(&["/bin/sh", "-c", "curl -f x || exit 1"])));
        assert_eq!(health_command(check(&["NONE"]), None), None);
    }
}
