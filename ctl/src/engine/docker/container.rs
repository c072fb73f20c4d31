//! Instances as containers: list, create, start, stop, rename, remove.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerInspectResponse, ContainerUpdateBody, EndpointSettings, NetworkConnectRequest, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, ListContainersOptions, RemoveContainerOptions,
    RenameContainerOptions, StartContainerOptions, StopContainerOptions,
};
use config::name::ServiceName;
use tokio::time::{Instant, sleep};

use super::Docker;
use super::environment::{environment, valued};
use super::labels::{self, Listed};
use super::names::{self, strip_kept};
use super::refusal::{found, refusal, status};
use super::spec::{self, Surroundings, blueprint};
use crate::engine::{EngineError, Instance, InstanceSpec, Restart};

/// How long Podman may take to put away what a container leaves at its end.
const CLEANING_UP: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

impl Docker {
    /// Returns what the engine knows of a container; `None` where there is none.
    pub(super) async fn inspect(&self, name: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let deadline = Instant::now() + CLEANING_UP;
        loop {
            let answer = self.handles.call.inspect_container(name, None::<InspectContainerOptions>).await;
            // Between its end and `exited`, a container is `stopped` to Podman, which is no word of Docker's API.
            let is_cleaning_up =
                answer.as_ref().is_err_and(|error| error.to_string().contains("unknown variant `stopped`"));
            if is_cleaning_up && Instant::now() < deadline {
                sleep(LOOK).await;
                continue;
            }
            return found(&format!("inspect {name}"), answer);
        }
    }

    /// Returns the address of an instance on the gateway's network, which its own host alone reaches.
    pub(in crate::engine) async fn address_of(&self, instance: &Instance) -> Result<String, EngineError> {
        let container = self.inspect(&instance.id).await?;
        let networks = container.and_then(|container| container.network_settings?.networks);
        let ours = networks.and_then(|mut networks| networks.remove(&self.names.network())?.ip_address);
        let address = ours.filter(|address| !address.is_empty()).ok_or_else(|| {
            EngineError::Refused(format!("{} has no address on {}", instance.name, self.names.network()))
        })?;
        Ok(format!("{address}:{}", instance.endpoint.port()))
    }

    pub(super) async fn list_instances(&self, service: Option<&ServiceName>) -> Result<Vec<Instance>, EngineError> {
        let mut wanted = vec![format!("{}={}", labels::GATEWAY, self.names.network())];
        wanted.push(match service {
            Some(service) => format!("{}={service}", labels::SERVICE),
            None => labels::SERVICE.to_owned(),
        });
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), wanted)])),
            ..ListContainersOptions::default()
        };
        let answer = self.handles.call.list_containers(Some(options)).await;
        let list = answer.map_err(|error| refusal("list the containers", error))?;
        let mut instances: Vec<Instance> = list.into_iter().filter_map(listed).filter_map(labels::read).collect();
        let adopted = self.adopted_instances().await?.into_iter();
        instances.extend(adopted.filter(|instance| service.is_none_or(|service| instance.service == *service)));
        let place =
            |instance: &Instance| (instance.service.clone(), instance.slot.lower(), instance.replica, instance.kept);
        instances.sort_by_cached_key(place);
        self.with_values(instances).await
    }

    pub(super) async fn create_instance(&self, spec: &InstanceSpec) -> Result<Instance, EngineError> {
        let name = self.names.slot(&spec.service, spec.slot, spec.replica);
        self.refuse_taken_name(&name).await?;
        let network = self.names.network();
        let log_driver = self.log_driver().await?;
        let blueprint = blueprint(spec, &Surroundings { network: &network, log_driver: &log_driver })?;
        let what = format!("create {name}");
        let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
        let created = self.handles.call.create_container(Some(options), blueprint.body).await;
        let id = created.map_err(|error| refusal(&what, error))?.id;
        for (network, settings) in blueprint.networks {
            if let Err(error) = self.join(&id, &network, settings).await {
                // The first error is the one to tell; what can't be removed is found by its label.
                let _ = self.discard(&id).await;
                return Err(error);
            }
        }
        match self.read_instance(&id).await {
            Ok(instance) => Ok(instance),
            Err(error) => {
                let _ = self.discard(&id).await;
                Err(error)
            }
        }
    }

    pub(super) async fn start_instance(&self, instance: &Instance) -> Result<(), EngineError> {
        let answer = self.handles.call.start_container(&instance.id, None::<StartContainerOptions>).await;
        unless_done(&format!("start {}", instance.name), answer)
    }

    pub(super) async fn stop_instance(&self, instance: &Instance, grace: Duration) -> Result<(), EngineError> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let options = StopContainerOptions { signal: None, t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)) };
        let answer = self.handles.long.stop_container(&instance.id, Some(options)).await;
        unless_done(&format!("stop {}", instance.name), answer)
    }

    pub(super) async fn remove_instance(&self, instance: &Instance) -> Result<(), EngineError> {
        self.discard(&instance.id).await
    }

    /// Removes a container, running or not, with its anonymous volumes; one that is gone already is fine.
    pub(super) async fn discard(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
        match self.handles.call.remove_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            // 409: another call is removing it at this moment.
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(refusal(&format!("remove {id}"), error)),
        }
    }

    pub(super) async fn rename_kept(&self, instance: &Instance, kept: bool) -> Result<Instance, EngineError> {
        let (slot_name, _) = strip_kept(&instance.name);
        let name = if kept { format!("{slot_name}{}", names::KEPT) } else { slot_name.to_owned() };
        if name != instance.name {
            self.rename(&instance.id, &name).await?;
        }
        self.read_instance(&instance.id).await
    }

    pub(super) async fn rename(&self, container: &str, name: &str) -> Result<(), EngineError> {
        let options = RenameContainerOptions { name: name.to_owned() };
        let answer = self.handles.call.rename_container(container, options).await;
        answer.map_err(|error| refusal(&format!("rename a container to {name}"), error))
    }

    /// Sets the restart policy of a part of the gateway.
    pub(super) async fn set_proxy_restart(&self, container: &str, restart: Restart) -> Result<(), EngineError> {
        let answer = self.handles.call.update_container(container, restart_body(restart)).await;
        answer.map_err(|error| refusal("set the restart policy of the proxy", error))
    }

    pub(super) async fn update_restart(&self, instance: &Instance, restart: Restart) -> Result<(), EngineError> {
        let answer = self.handles.call.update_container(&instance.id, restart_body(restart)).await;
        // Podman before 5.1 has no such call; a slot is made without a policy, so there is none to take back.
        if self.handles.is_podman && answer.as_ref().is_err_and(|error| status(error) == Some(404)) {
            return match restart {
                Restart::No => Ok(()),
                Restart::Always => Err(EngineError::Refused(format!(
                    "this Podman can't change one (5.1 and newer can), so nobody starts {} again after a crash or a reboot",
                    instance.name
                ))),
            };
        }
        answer.map_err(|error| refusal(&format!("set the restart policy of {}", instance.name), error))
    }

    /// Returns the log driver that the holder was started with: that one works on this engine.
    pub(super) async fn log_driver(&self) -> Result<String, EngineError> {
        let holder = self.inspect(&self.names.holder()).await?;
        let config = holder.and_then(|holder| holder.host_config).and_then(|host| host.log_config);
        Ok(config.and_then(|config| config.typ).unwrap_or_else(|| self.fallback_log_driver().to_owned()))
    }

    pub(super) async fn join(&self, id: &str, network: &str, settings: EndpointSettings) -> Result<(), EngineError> {
        let request = NetworkConnectRequest { container: id.to_owned(), endpoint_config: Some(settings) };
        let answer = self.handles.call.connect_network(network, request).await;
        answer.map_err(|error| refusal(&format!("join the network {network}"), error))
    }

    async fn refuse_taken_name(&self, name: &str) -> Result<(), EngineError> {
        let Some(present) = self.inspect(name).await? else { return Ok(()) };
        let own_labels = present.config.as_ref().and_then(|config| config.labels.as_ref());
        Err(EngineError::Refused(if labels::is_ours(own_labels, &self.names.network()) {
            format!(
                "create {name}: it is there already, left by an earlier run\nhint: `docker rm -f {name}` removes it"
            )
        } else {
            format!(
                "create {name}: {} has that name, and bluegreen did not make it, so it was not touched\nhint: `docker \
                 rename {name} OTHER-NAME` frees the name, `docker rm -f {name}` removes the container",
                describe(&present)
            )
        }))
    }

    async fn read_instance(&self, id: &str) -> Result<Instance, EngineError> {
        let gone = || EngineError::Refused(format!("container {id} is gone, or lost its labels"));
        let present = self.inspect(id).await?.ok_or_else(gone)?;
        let env = environment(&present);
        let instance = match inspected(present).and_then(labels::read) {
            Some(instance) => instance,
            None => {
                let adopted = self.adopted_instances().await?.into_iter().find(|instance| instance.id == id);
                adopted.ok_or_else(gone)?
            }
        };
        Ok(valued(instance, &env))
    }
}

/// Returns a few words on a container that we did not make: what it runs, and whether it runs.
pub(super) fn describe(container: &ContainerInspectResponse) -> String {
    let image = container.config.as_ref().and_then(|config| config.image.as_deref()).unwrap_or("an unknown image");
    let is_running = container.state.as_ref().and_then(|state| state.running).unwrap_or(false);
    format!("a {} container of {image}", if is_running { "running" } else { "stopped" })
}

/// Takes 304, which says that it was so already, for success.
fn unless_done(what: &str, answer: Result<(), bollard::errors::Error>) -> Result<(), EngineError> {
    match answer {
        Err(error) if status(&error) != Some(304) => Err(refusal(what, error)),
        _ => Ok(()),
    }
}

pub(super) fn listed(container: bollard::models::ContainerSummary) -> Option<Listed> {
    use bollard::models::ContainerSummaryStateEnum as State;
    let created = u64::try_from(container.created.unwrap_or(0)).unwrap_or(0);
    let created = std::time::UNIX_EPOCH + Duration::from_secs(created);
    Some(Listed {
        id: container.id?,
        name: container.names?.first()?.trim_start_matches('/').to_owned(),
        running: matches!(container.state, Some(State::RUNNING | State::PAUSED)),
        created: humantime::format_rfc3339_seconds(created).to_string(),
        labels: container.labels?,
    })
}

fn inspected(container: ContainerInspectResponse) -> Option<Listed> {
    // The same moment in the same form as from a list, which has no fraction of a second.
    let created = humantime::parse_rfc3339(&container.created?).ok()?;
    let is_restarting = container.state.as_ref().and_then(|state| state.restarting).unwrap_or(false);
    Some(Listed {
        id: container.id?,
        name: container.name?.trim_start_matches('/').to_owned(),
        running: container.state?.running.unwrap_or(false) && !is_restarting,
        created: humantime::format_rfc3339_seconds(created).to_string(),
        labels: container.config?.labels?,
    })
}

fn restart_body(restart: Restart) -> ContainerUpdateBody {
    let name = match restart {
        Restart::No => RestartPolicyNameEnum::NO,
        Restart::Always => RestartPolicyNameEnum::ALWAYS,
    };
    ContainerUpdateBody { restart_policy: Some(spec::restart_policy(name)), ..ContainerUpdateBody::default() }
}
