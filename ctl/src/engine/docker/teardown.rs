//! `down`: removes what carries this gateway's label, and nothing else.

use std::collections::HashMap;

use bollard::query_parameters::{
    InspectNetworkOptions, ListContainersOptions, ListImagesOptions, RemoveImageOptions, RemoveVolumeOptions,
    StopContainerOptions,
};

use super::refusal::{found, refusal, status};
use super::{Docker, labels};
use crate::engine::EngineError;

/// A proxy that is told to stop drains for 30 s, an application has its own grace.
const GRACE: i32 = 35;

impl Docker {
    pub(super) async fn tear_down(&self, volumes: bool) -> Result<Vec<String>, EngineError> {
        let mut said = Vec::new();
        let adopted = self.adopted_instances().await?;
        if !volumes {
            self.keep_adopted().await?;
        }
        self.remove_containers(&mut said).await?;
        if volumes {
            self.forget_adopted().await?;
        }
        let next = if volumes { "knows nothing of how it is run" } else { "has it again" };
        let left = adopted.iter().map(|one| format!("left {}, which was taken over: the next `up` {next}", one.name));
        said.extend(left);
        self.remove_network(&mut said).await?;
        self.remove_volume(volumes, &mut said).await?;
        self.remove_images(&mut said).await?;
        Ok(said)
    }

    fn own(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([("label".to_owned(), vec![format!("{}={}", labels::GATEWAY, self.names.network())])])
    }

    async fn remove_containers(&self, said: &mut Vec<String>) -> Result<(), EngineError> {
        let options =
            ListContainersOptions { all: true, filters: Some(self.own()), ..ListContainersOptions::default() };
        let list = self.handles.call.list_containers(Some(options)).await;
        let list = list.map_err(|error| refusal("list the containers", error))?;
        let named = list.into_iter().filter_map(|container| {
            let name = container.names?.first()?.trim_start_matches('/').to_owned();
            Some((name, container.id?))
        });
        let mut containers: Vec<(String, String)> = named.collect();
        // The proxy goes first, so that it drains while its slots still run; the holder, whose namespace it is in, last.
        let (proxy, holder) = (self.names.proxy(), self.names.holder());
        containers.sort_by_key(|(name, _)| match name {
            name if *name == proxy => 0,
            name if *name == holder => 2,
            _ => 1,
        });
        for (name, id) in containers {
            let options = StopContainerOptions { signal: None, t: Some(GRACE) };
            match self.handles.long.stop_container(&id, Some(options)).await {
                Err(error) if !matches!(status(&error), Some(304 | 404)) => {
                    return Err(refusal(&format!("stop {name}"), error));
                }
                _ => self.discard(&id).await?,
            }
            said.push(format!("removed the container {name}"));
        }
        Ok(())
    }

    async fn remove_network(&self, said: &mut Vec<String>) -> Result<(), EngineError> {
        let name = self.names.network();
        let what = format!("remove the network {name}");
        let answer = self.handles.call.inspect_network(&name, None::<InspectNetworkOptions>).await;
        let Some(network) = found(&what, answer)? else { return Ok(()) };
        if !labels::is_ours(network.labels.as_ref(), &name) {
            said.push(format!("left the network {name}: someone else made it"));
            return Ok(());
        }
        let mut strangers: Vec<String> =
            network.containers.unwrap_or_default().into_values().filter_map(|endpoint| endpoint.name).collect();
        strangers.sort();
        if !strangers.is_empty() {
            said.push(format!("left the network {name}: {} still in it", strangers.join(", ")));
            return Ok(());
        }
        let removed = found(&what, self.handles.call.remove_network(&name).await)?;
        said.extend(removed.map(|()| format!("removed the network {name}")));
        Ok(())
    }

    async fn remove_volume(&self, volumes: bool, said: &mut Vec<String>) -> Result<(), EngineError> {
        let name = self.names.volume();
        let what = format!("remove the volume {name}");
        let Some(volume) = found(&what, self.handles.call.inspect_volume(&name).await)? else { return Ok(()) };
        if !volumes {
            said.push(format!(
                "left the volume {name}, the saved state; `bgctl down{} --volumes` removes it",
                self.names.flag()
            ));
        } else if labels::is_ours(Some(&volume.labels), &self.names.network()) {
            found(&what, self.handles.call.remove_volume(&name, None::<RemoveVolumeOptions>).await)?;
            said.push(format!("removed the volume {name}"));
        } else {
            said.push(format!("left the volume {name}: someone else made it"));
        }
        Ok(())
    }

    /// Removes the images that this gateway made, by its own tags; one that something still runs stays.
    async fn remove_images(&self, said: &mut Vec<String>) -> Result<(), EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![labels::BUILD.to_owned()])]);
        let options = ListImagesOptions { filters: Some(filters), ..ListImagesOptions::default() };
        let list = self.handles.call.list_images(Some(options)).await;
        let list = list.map_err(|error| refusal("list the images", error))?;
        let (proxy, gateway) = (format!("{}:", self.names.image()), self.names.network());
        let mut own = Vec::new();
        for image in list {
            let is_application = labels::is_ours(Some(&image.labels), &gateway);
            own.extend(image.repo_tags.into_iter().filter(|tag| is_application || tag.starts_with(&proxy)));
        }
        for tag in own {
            match self.handles.call.remove_image(&tag, None::<RemoveImageOptions>, None).await {
                Ok(_) => said.push(format!("removed the image {tag}")),
                Err(error) if status(&error) == Some(404) => {}
                Err(error) if status(&error) == Some(409) => said.push(format!("left the image {tag}: it is in use")),
                Err(error) => return Err(refusal(&format!("remove the image {tag}"), error)),
            }
        }
        Ok(())
    }
}
