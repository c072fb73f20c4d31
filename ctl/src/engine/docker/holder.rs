//! The holder: the container that has the published ports, so that the proxy can be replaced without giving them up.

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{ListContainersOptions, StartContainerOptions};

use super::ports::{self, Published};
use super::program_image::ProgramImage;
use super::raising::{Raising, Started, id_of, is_running, no_proxy};
use super::refusal::refusal;
use super::{Docker, adopted};
use crate::engine::EngineError;

impl Docker {
    /// Returns the containers that publish a port of the host, by name.
    pub(super) async fn publishers(&self, port: u16) -> Result<Vec<String>, EngineError> {
        // Docker's own filter knows ports inside of containers too, and Podman has none.
        let list = self.handles.call.list_containers(None::<ListContainersOptions>).await;
        let list = list.map_err(|error| refusal("list the containers", error))?;
        let has_port = |container: &bollard::models::ContainerSummary| {
            container.ports.iter().flatten().any(|published| published.public_port == Some(port))
        };
        let names = list.into_iter().filter(has_port).filter_map(|container| {
            let image = container.image.unwrap_or_default();
            Some(format!("`{}` (image {image})", container.names?.first()?.trim_start_matches('/')))
        });
        Ok(names.collect())
    }
}

impl Raising<'_> {
    /// Starts a holder that is there and does not run.
    pub(super) async fn complete_holder(&mut self, holder: ContainerInspectResponse) -> Result<Started, EngineError> {
        let name = self.docker.names.holder();
        let driver = holder.host_config.as_ref().and_then(|host| host.log_config.as_ref()?.typ.clone());
        let started = Started {
            id: id_of(&holder)?,
            log_driver: driver.unwrap_or_else(|| self.docker.fallback_log_driver().to_owned()),
        };
        if !is_running(&holder) {
            let published = ports::read(holder.host_config.as_ref().and_then(|host| host.port_bindings.as_ref()));
            let answer = self.docker.handles.call.start_container(&started.id, None::<StartContainerOptions>).await;
            if let Err(error) = answer {
                return Err(self.explain_start(&name, &published, &refusal(&format!("start {name}"), error)).await);
            }
            self.report.done.push(format!("started {name}, which holds the ports"));
        }
        Ok(started)
    }

    pub(super) async fn create_holder(
        &mut self,
        image: &ProgramImage,
        wanted: &[Published],
    ) -> Result<Started, EngineError> {
        self.load(image).await?;
        let name = self.docker.names.holder();
        let adopted = self.docker.kept_adopted().await?;
        let usual = [Published::usual(80), Published::usual(443)];
        let mut published = if wanted.is_empty() { usual.to_vec() } else { wanted.to_vec() };
        loop {
            let mut body = self.holder_body(image, &published);
            let own_labels = body.labels.get_or_insert_default();
            own_labels.extend(adopted.clone().map(|label| (adopted::LABEL.to_owned(), label)));
            match self.start_new(&name, body, None).await {
                Ok(started) => {
                    self.report.done.push(format!("started {name}, which holds the ports"));
                    return Ok(started);
                }
                Err(error) => {
                    let is_443 = ports::taken(&published, &error.to_string()).is_some_and(|port| port.host == 443);
                    if !(is_443 && wanted.is_empty()) {
                        return Err(self.explain_start(&name, &published, &error).await);
                    }
                    // Nobody asked for 443 by name, and plain HTTP works without it.
                    published.retain(|port| port.host != 443);
                    let who = self.who_has(443).await;
                    self.report.warnings.push(format!("port 443 is taken{who}; only port 80 is published"));
                }
            }
        }
    }

    async fn explain_start(&self, name: &str, published: &[Published], error: &EngineError) -> EngineError {
        let Some(port) = ports::taken(published, &error.to_string()) else { return no_proxy(error) };
        let host = port.host;
        let who = self.who_has(host).await;
        EngineError::NoProxy(format!(
            "{name} can't publish port {host}: it is taken{who}; nothing was touched\nhint: stop what holds it (`ss -ltnp \
             'sport = :{host}'` shows it), or publish another port: `bgctl up{} --publish 8080:80`",
            self.docker.names.flag()
        ))
    }

    async fn who_has(&self, port: u16) -> String {
        match self.docker.publishers(port).await {
            Ok(names) if !names.is_empty() => format!(" by the container {}", names.join(", ")),
            _ => " by a program on the host".to_owned(),
        }
    }
}
