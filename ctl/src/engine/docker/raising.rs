//! One run of `up`: what it has made so far, what it says of it, and how that is taken back.

use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use bollard::query_parameters::{CreateContainerOptions, StartContainerOptions};

use super::Docker;
use super::program_image::ProgramImage;
use super::refusal::refusal;
use super::spec::log_config;
use crate::engine::{EngineError, Gateway, GatewaySpec};

/// One run of `up`: what it did, and what to take back when it fails.
pub(super) struct Raising<'a> {
    pub(super) docker: &'a Docker,
    pub(super) spec: &'a GatewaySpec,
    pub(super) report: Gateway,
    pub(super) made: Vec<Made>,
    /// The networks whose forwarded headers the proxy believes: those asked for, else those it believes already.
    pub(super) trusted: Vec<String>,
    /// What of the host the proxy sees: what was asked for, else what it sees already.
    pub(super) volumes: Vec<String>,
}

/// Something that this run made.
pub(super) enum Made {
    Network(String),
    Volume(String),
    Container(String),
}

/// A container that came up with this log driver.
pub(super) struct Started {
    pub(super) id: String,
    pub(super) log_driver: String,
}

impl<'a> Raising<'a> {
    /// Returns a run that may have made something already.
    pub(super) fn new(docker: &'a Docker, spec: &'a GatewaySpec, made: Vec<Made>) -> Self {
        let report = Gateway { changed: false, done: Vec::new(), warnings: Vec::new(), addresses: Vec::new() };
        Self { docker, spec, report, made, trusted: Vec::new(), volumes: Vec::new() }
    }

    /// Returns what it made, so that another run goes on.
    pub(super) fn into_made(self) -> Vec<Made> {
        self.made
    }
}

impl Raising<'_> {
    pub(super) async fn load(&mut self, image: &ProgramImage) -> Result<(), EngineError> {
        if self.docker.load_image(image).await.map_err(|error| no_proxy(&error))? {
            self.report.done.push(format!("loaded the image {}", image.reference));
        }
        Ok(())
    }

    /// Creates a container and starts it; where no driver is given, tries journald and, refused, the fallback.
    pub(super) async fn start_new(
        &mut self,
        name: &str,
        body: ContainerCreateBody,
        log_driver: Option<&str>,
    ) -> Result<Started, EngineError> {
        let drivers = match log_driver {
            Some(driver) => vec![driver],
            None => vec!["journald", self.docker.fallback_log_driver()],
        };
        let mut last = None;
        for driver in drivers {
            let mut body = body.clone();
            if let Some(host) = &mut body.host_config {
                host.log_config = Some(log_config(driver));
            }
            let call = &self.docker.handles.call;
            let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
            let created = call.create_container(Some(options), body).await;
            let id = match created {
                Ok(created) => created.id,
                // The plugin is not even listed, or there is no journal to write to.
                Err(error)
                    if log_driver.is_none()
                        && ["logg", "journal"].iter().any(|word| error.to_string().contains(word)) =>
                {
                    last = Some(refusal(&format!("create {name}"), error));
                    continue;
                }
                Err(error) => return Err(refusal(&format!("create {name}"), error)),
            };
            match call.start_container(&id, None::<StartContainerOptions>).await {
                Ok(()) => {
                    self.made.push(Made::Container(id.clone()));
                    return Ok(Started { id, log_driver: driver.to_owned() });
                }
                Err(error) => {
                    let error = refusal(&format!("start {name}"), error);
                    self.docker.discard(&id).await?;
                    // journald may be listed and refuse all the same; any other refusal would come again.
                    let text = error.to_string();
                    if log_driver.is_some() || !(text.contains("logging driver") || text.contains("journal")) {
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| EngineError::NoProxy(format!("start {name}: no log driver works"))))
    }

    /// Removes what this run made, the last first; what can't be removed carries our labels, and `down` finds it.
    pub(super) async fn take_back(&mut self) {
        while let Some(made) = self.made.pop() {
            let call = &self.docker.handles.call;
            let _ = match made {
                Made::Container(id) => self.docker.discard(&id).await,
                Made::Network(name) => call.remove_network(&name).await.map_err(|error| refusal(&name, error)),
                Made::Volume(name) => {
                    let options = None::<bollard::query_parameters::RemoveVolumeOptions>;
                    call.remove_volume(&name, options).await.map_err(|error| refusal(&name, error))
                }
            };
        }
    }
}

pub(super) fn no_proxy(error: &EngineError) -> EngineError {
    match error {
        EngineError::Unreachable(words) => EngineError::Unreachable(words.clone()),
        EngineError::Usage(words) => EngineError::Usage(words.clone()),
        EngineError::Refused(words) | EngineError::NoProxy(words) => EngineError::NoProxy(words.clone()),
    }
}

pub(super) fn id_of(container: &ContainerInspectResponse) -> Result<String, EngineError> {
    container.id.clone().ok_or_else(|| EngineError::Refused("the engine named no id of a container".to_owned()))
}

pub(super) fn is_running(container: &ContainerInspectResponse) -> bool {
    container.state.as_ref().and_then(|state| state.running).unwrap_or(false)
}

pub(super) fn started_at(container: &ContainerInspectResponse) -> Option<std::time::SystemTime> {
    humantime::parse_rfc3339(container.state.as_ref()?.started_at.as_deref()?).ok()
}
