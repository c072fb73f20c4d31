//! `up`: network, holder and proxy, made, completed or found.

use std::path::Path;

use bollard::models::{ContainerInspectResponse, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::InspectNetworkOptions;

use super::binary::{self, Machine, Search};
use super::container::describe;
use super::parts::trusted_proxies;
use super::ports::{self, Published};
use super::program_image::ProgramImage;
use super::proxy::needed;
use super::proxy_image::{self, Content};
use super::raising::{Made, Raising};
use super::refusal::{found, refusal};
use super::{Docker, labels, sight};
use crate::engine::{EngineError, Gateway, GatewaySpec};

impl Docker {
    pub(super) async fn bring_up(&self, spec: &GatewaySpec) -> Result<Gateway, EngineError> {
        let mut raising = Raising::new(self, spec, Vec::new());
        match raising.run().await {
            Ok(()) => {
                raising.report.changed = !raising.report.done.is_empty();
                // Once, when it is made; `status` and `doctor` say it again.
                if raising.report.changed {
                    raising.report.warnings.extend(self.host_warnings().await?);
                }
                Ok(raising.report)
            }
            Err(error) => {
                raising.take_back().await;
                Err(error)
            }
        }
    }

    /// Returns a part of the gateway by its name, `None` where it is not there.
    ///
    /// # Errors
    /// [`EngineError::NoProxy`] where someone else's container has the name.
    pub(super) async fn own_container(&self, name: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let Some(container) = self.inspect(name).await? else { return Ok(None) };
        let own_labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
        if labels::is_ours(own_labels, &self.names.network()) {
            return Ok(Some(container));
        }
        Err(EngineError::NoProxy(format!(
            "`{name}` is {}, which bluegreen did not make; nothing was touched\nhint: when bgproxy is to take its place: \
             `docker rm -f {name}`, then the same command again",
            describe(&container)
        )))
    }

    /// Returns where the proxy is reached by the ports that its holder publishes.
    pub(in crate::engine) async fn published(&self) -> Result<Vec<String>, EngineError> {
        let holder = self.own_container(&self.names.holder()).await?;
        let published = ports::read(holder.and_then(|holder| holder.host_config?.port_bindings).as_ref());
        Ok(published.iter().map(|port| port.url(self.place.host())).collect())
    }

    pub(super) async fn machine(&self) -> Result<Machine, EngineError> {
        let version =
            self.handles.call.version().await.map_err(|error| refusal("ask the engine for its version", error))?;
        let word = version.arch.unwrap_or_default();
        Machine::parse(&word).ok_or_else(|| {
            EngineError::NoProxy(format!("the engine runs on `{word}`; bgproxy runs on x86_64 and arm64"))
        })
    }

    /// Puts the proxy's image together from the binary that `up` takes.
    ///
    /// # Errors
    /// Where there is no binary that could run there.
    pub(super) async fn proxy_image(
        &self,
        named: Option<&Path>,
        trusted: Vec<String>,
    ) -> Result<ProgramImage, EngineError> {
        let machine = self.machine().await?;
        let own = std::env::current_exe().ok();
        let search = Search {
            named,
            beside: own.as_deref().and_then(Path::parent).map(Path::to_owned),
            path: config::paths::variable("PATH"),
        };
        let name = self.names.image();
        let made = tokio::task::spawn_blocking({
            let file = search.find(machine)?;
            move || {
                let program = binary::load(&file, machine)?;
                let content = Content { program: &program, machine, trusted_proxies: &trusted };
                let built = proxy_image::build(&name, &content);
                built.map_err(|error| EngineError::NoProxy(format!("put the proxy's image together: {error}")))
            }
        });
        made.await.map_err(|error| EngineError::NoProxy(format!("put the proxy's image together: {error}")))?
    }
}

impl Raising<'_> {
    async fn run(&mut self) -> Result<(), EngineError> {
        let names = &self.docker.names;
        // Both names are looked at before anything is made.
        let holder = self.docker.own_container(&names.holder()).await?;
        let proxy = self.docker.own_container(&names.proxy()).await?;
        let wanted = self.spec.publish.iter().map(|text| Published::parse(text)).collect::<Result<Vec<_>, _>>()?;

        // Both are there and belong together, so that at most they are to be started.
        let is_made = holder
            .as_ref()
            .is_some_and(|holder| proxy.as_ref().is_some_and(|proxy| self.shares(proxy, holder.id.as_deref())));
        self.trusted = trusted_proxies(&self.spec.trusted_proxies, proxy.as_ref())?;
        self.volumes = sight::volumes(&self.spec.volumes, proxy.as_ref())?;
        let image = match self.docker.proxy_image(self.spec.proxy_binary.as_deref(), self.trusted.clone()).await {
            Ok(image) => Some(image),
            // A binary is needed only by those who asked for one, and for what is to be made.
            Err(_) if is_made && !self.spec.upgrade && self.spec.proxy_binary.is_none() => None,
            Err(error) => return Err(error),
        };
        self.ensure_network().await?;
        self.ensure_volume().await?;

        let present = holder.is_some();
        let holder = match holder {
            Some(holder) => self.complete_holder(holder).await?,
            None => {
                let image = needed(image.as_ref())?;
                self.create_holder(image, &wanted).await?
            }
        };
        let inspected = self.docker.inspect(&holder.id).await?;
        let bound = inspected.as_ref().and_then(|holder| holder.host_config.as_ref()?.port_bindings.as_ref());
        let published = ports::read(bound);
        let urls = || published.iter().map(|port| port.url(self.docker.place.host())).collect::<Vec<_>>();
        if present && !wanted.is_empty() && !wanted.iter().all(|port| published.contains(port)) {
            let now = urls();
            self.report.warnings.push(format!(
                "the ports stay as they are ({}): to publish others, `bgctl down{flag}`, then `bgctl up{flag} --publish PORT:PORT`",
                now.join(", "),
                flag = names.flag()
            ));
        }
        self.report.addresses = urls();
        self.ensure_proxy(proxy, inspected.as_ref(), &holder, image.as_ref()).await
    }

    pub(super) async fn ensure_network(&mut self) -> Result<(), EngineError> {
        let docker = self.docker;
        let name = docker.names.network();
        let what = format!("make the network {name}");
        let present = docker.handles.call.inspect_network(&name, None::<InspectNetworkOptions>).await;
        if found(&what, present)?.is_some() {
            return Ok(());
        }
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels::of_part(&name, None)),
            ..NetworkCreateRequest::default()
        };
        docker.handles.call.create_network(request).await.map_err(|error| refusal(&what, error))?;
        self.report.done.push(format!("made the network {name}"));
        self.made.push(Made::Network(name));
        Ok(())
    }

    pub(super) async fn ensure_volume(&mut self) -> Result<(), EngineError> {
        let docker = self.docker;
        let name = docker.names.volume();
        let what = format!("make the volume {name}");
        if found(&what, docker.handles.call.inspect_volume(&name).await)?.is_some() {
            return Ok(());
        }
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(labels::of_part(&docker.names.network(), None)),
            ..VolumeCreateRequest::default()
        };
        docker.handles.call.create_volume(request).await.map_err(|error| refusal(&what, error))?;
        self.report.done.push(format!("made the volume {name}"));
        self.made.push(Made::Volume(name));
        Ok(())
    }
}
