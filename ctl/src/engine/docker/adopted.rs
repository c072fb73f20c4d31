//! Containers that others made and that we took over in place.
//!
//! A container that runs can't be given labels, so what ours would say is kept as one label of the holder, by the container's
//! id: a container that is made anew under the same name is not meant. `down` takes the holder away, so it leaves the label on an
//! empty volume, beside the saved state, and the next holder has it again.

use std::collections::HashMap;

use bollard::models::{ContainerInspectResponse, ImageInspect, MountPoint, ResourcesUlimits, VolumeCreateRequest};
use bollard::query_parameters::{ListContainersOptions, RemoveVolumeOptions};
use config::name::{ServiceName, Slot};
use serde::{Deserialize, Serialize};

use super::container::listed;
use super::names::strip_kept;
use super::refusal::{found, refusal};
use super::{Docker, labels};
use crate::engine::{EngineError, Instance, RunSettings};

/// On the holder: what was taken over, as JSON.
pub(super) const LABEL: &str = "bluegreen.adopted";

/// What the deployment of such a container begins with.
pub(super) const DEPLOYMENT: &str = "adopted-";

/// What our labels would say of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Adopted {
    id: String,
    service: ServiceName,
    slot: Slot,
    port: u16,
    deployment: String,
    image: String,
    image_id: String,
    run: RunSettings,
    notes: Vec<(String, String)>,
}

/// Returns the label's value.
pub(super) fn label(instances: &[Instance]) -> String {
    let adopted = |instance: &Instance| Adopted {
        id: instance.id.clone(),
        service: instance.service.clone(),
        slot: instance.slot,
        port: instance.endpoint.port(),
        deployment: instance.deployment.clone(),
        image: instance.image.clone(),
        image_id: instance.image_id.clone(),
        run: labels::public(&instance.run),
        notes: instance.notes.clone(),
    };
    serde_json::to_string(&instances.iter().map(adopted).collect::<Vec<_>>()).expect("our own types are JSON")
}

impl Instance {
    /// Tells whether someone else made it, and we took it over in place.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.deployment.starts_with(DEPLOYMENT)
    }
}

impl Docker {
    /// Keeps what the holder knows of containers that were taken over, for the next holder. Where there is no holder now, the one
    /// before has left it.
    pub(super) async fn keep_adopted(&self) -> Result<(), EngineError> {
        if self.inspect(&self.names.holder()).await?.is_none() {
            return Ok(());
        }
        let adopted = self.adopted_instances().await?;
        // A volume's labels can't be changed either.
        self.forget_adopted().await?;
        if adopted.is_empty() {
            return Ok(());
        }
        let mut own_labels = labels::of_part(&self.names.network(), None);
        own_labels.insert(LABEL.to_owned(), label(&adopted));
        let name = self.names.adopted();
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(own_labels),
            ..VolumeCreateRequest::default()
        };
        let made = self.handles.call.create_volume(request).await;
        made.map(drop).map_err(|error| refusal(&format!("make the volume {name}"), error))
    }

    /// Returns the label of the holder before; `None` where nothing was taken over.
    pub(super) async fn kept_adopted(&self) -> Result<Option<String>, EngineError> {
        let name = self.names.adopted();
        let volume = self.handles.call.inspect_volume(&name).await;
        let volume = found(&format!("look at the volume {name}"), volume)?;
        let ours = volume.filter(|volume| labels::is_ours(Some(&volume.labels), &self.names.network()));
        Ok(ours.and_then(|mut volume| volume.labels.remove(LABEL)))
    }

    /// Removes what was kept.
    pub(super) async fn forget_adopted(&self) -> Result<(), EngineError> {
        if self.kept_adopted().await?.is_none() {
            return Ok(());
        }
        let name = self.names.adopted();
        let removed = self.handles.call.remove_volume(&name, None::<RemoveVolumeOptions>).await;
        found(&format!("remove the volume {name}"), removed).map(drop)
    }

    /// Returns those that are still there, without the values of their environments.
    pub(super) async fn adopted_instances(&self) -> Result<Vec<Instance>, EngineError> {
        let Some(holder) = self.inspect(&self.names.holder()).await? else { return Ok(Vec::new()) };
        let own_labels = holder.config.and_then(|config| config.labels).unwrap_or_default();
        let records: Vec<Adopted> =
            own_labels.get(LABEL).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let ids = records.iter().map(|record| record.id.clone()).collect();
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("id".to_owned(), ids)])),
            ..ListContainersOptions::default()
        };
        let list = self.handles.call.list_containers(Some(options)).await;
        let list = list.map_err(|error| refusal("list the containers", error))?;
        let found = list.into_iter().filter_map(listed).filter_map(|container| {
            let record = records.iter().find(|record| record.id == container.id)?.clone();
            let endpoint = format!("{}:{}", container.name, record.port).parse().ok()?;
            Some(Instance {
                id: record.id,
                service: record.service,
                slot: record.slot,
                replica: 1,
                kept: strip_kept(&container.name).1,
                running: container.running,
                endpoint,
                deployment: record.deployment,
                image: record.image,
                image_id: record.image_id,
                run: record.run,
                notes: record.notes,
                created: container.created,
                name: container.name,
            })
        });
        Ok(found.collect())
    }
}

/// Reads out of a container how it is run, beyond what its image says by itself.
pub(super) fn run_settings(container: &ContainerInspectResponse, image: &ImageInspect, network: &str) -> RunSettings {
    let config = container.config.clone().unwrap_or_default();
    let host = container.host_config.clone().unwrap_or_default();
    let own = image.config.clone().unwrap_or_default();
    let own_env = own.env.unwrap_or_default();
    let own_labels = own.labels.unwrap_or_default();
    let number = |value: Option<i64>| value.filter(|value| *value > 0);
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.clone());
    let mut networks: Vec<String> = networks.unwrap_or_default().into_keys().filter(|name| name != network).collect();
    networks.sort();
    let mut labels: Vec<String> = config
        .labels
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, value)| own_labels.get(name) != Some(value))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    labels.sort();
    let mut tmpfs: Vec<String> = host
        .tmpfs
        .unwrap_or_default()
        .into_iter()
        .map(|(path, options)| if options.is_empty() { path } else { format!("{path}:{options}") })
        .collect();
    tmpfs.sort();
    let entrypoint = config.entrypoint.filter(|words| Some(words) != own.entrypoint.as_ref()).unwrap_or_default();
    let command = config.cmd.unwrap_or_default();
    let is_own_command = entrypoint.is_empty() && Some(&command) == own.cmd.as_ref();
    let mut words = entrypoint.into_iter();
    let env = config.env.unwrap_or_default().into_iter().filter(|variable| !own_env.contains(variable));
    RunSettings {
        env: env.collect::<Vec<_>>().into(),
        volumes: container.mounts.iter().flatten().filter_map(volume).collect(),
        mounts: Vec::new(),
        tmpfs,
        networks,
        user: config.user.filter(|user| !user.is_empty() && Some(user) != own.user.as_ref()),
        init: host.init.unwrap_or(false),
        add_hosts: host.extra_hosts.unwrap_or_default(),
        labels,
        memory: number(host.memory).map(|bytes| bytes.to_string()),
        cpus: number(host.nano_cpus).map(|nano| format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000)),
        // The engine's own 64 MiB are no wish of anybody's.
        shm_size: number(host.shm_size).filter(|bytes| *bytes != 64 << 20).map(|bytes| bytes.to_string()),
        ulimits: host.ulimits.unwrap_or_default().into_iter().filter_map(ulimit).collect(),
        entrypoint: words.next(),
        command: words.chain(if is_own_command { Vec::new() } else { command }).collect(),
    }
}

/// Returns an ulimit as `--ulimit` has it.
fn ulimit(limit: ResourcesUlimits) -> Option<String> {
    let (name, soft) = (limit.name?, limit.soft?);
    Some(format!("{name}={soft}:{}", limit.hard.unwrap_or(soft)))
}

/// Returns what a container was started with that no option of ours says, by docker's own words.
pub(super) fn uncarried(container: &ContainerInspectResponse, image: &ImageInspect) -> Vec<&'static str> {
    let config = container.config.clone().unwrap_or_default();
    let host = container.host_config.clone().unwrap_or_default();
    let own = image.config.clone().unwrap_or_default();
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let is_mount = |mount: &bollard::models::Mount| mount.typ == Some(bollard::models::MountType::TMPFS);
    [
        ("--cap-add", some(&host.cap_add)),
        ("--cap-drop", some(&host.cap_drop)),
        ("--device", host.devices.is_some_and(|devices| !devices.is_empty())),
        ("--device", host.device_requests.is_some_and(|requests| !requests.is_empty())),
        ("--dns", some(&host.dns)),
        ("--group-add", some(&host.group_add)),
        ("--mount type=tmpfs", host.mounts.is_some_and(|mounts| mounts.iter().any(is_mount))),
        ("--pid", host.pid_mode.is_some_and(|mode| !mode.is_empty())),
        ("--privileged", host.privileged == Some(true)),
        ("--read-only", host.readonly_rootfs == Some(true)),
        ("--security-opt", some(&host.security_opt)),
        ("--sysctl", host.sysctls.is_some_and(|sysctls| !sysctls.is_empty())),
        ("--workdir", config.working_dir.unwrap_or_default() != own.working_dir.unwrap_or_default()),
    ]
    .into_iter()
    .filter_map(|(setting, is_there)| is_there.then_some(setting))
    .collect()
}

/// Returns a mount as `--volume` has it; a volume without a name can't be had twice.
fn volume(mount: &MountPoint) -> Option<String> {
    let target = mount.destination.as_deref()?;
    let end = if mount.rw == Some(false) { ":ro" } else { "" };
    let is_named = |name: &&str| !(name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let source = match mount.typ.as_deref() {
        Some("bind") => mount.source.as_deref(),
        Some("volume") => mount.name.as_deref().filter(is_named),
        _ => None,
    };
    Some(format!("{}:{target}{end}", source?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_container_was_run_with_is_found_again_and_what_its_image_says_is_not() {
        let container = serde_json::from_value(json!({
            "Config": {
                "Env": ["PATH=/bin", "SECRET=s", "PORT=8080"], "Cmd": ["serve"], "Entrypoint": null, "User": "app",
                "Labels": { "of": "image", "team": "shop" },
            },
            "HostConfig": { "Memory": 67108864, "NanoCpus": 1_500_000_000, "ShmSize": 67108864, "Init": true,
                            "ExtraHosts": ["db:10.0.0.1"] },
            "Mounts": [
                { "Type": "bind", "Source": "/srv/uploads", "Destination": "/uploads", "RW": true },
                { "Type": "volume", "Name": "data", "Destination": "/data", "RW": false },
                { "Type": "volume", "Name": "a".repeat(64), "Destination": "/tmp", "RW": true },
            ],
            "NetworkSettings": { "Networks": { "web-gateway": {}, "db": {} } },
        }))
        .unwrap();
        let image = serde_json::from_value(json!({
            "Config": { "Env": ["PATH=/bin"], "Cmd": ["serve"], "Labels": { "of": "image" } },
        }))
        .unwrap();
        let run = run_settings(&container, &image, "web-gateway");
        assert_eq!(*run.env, ["SECRET=s", "PORT=8080"]);
        assert_eq!(run.volumes, ["/srv/uploads:/uploads", "data:/data:ro"]);
        assert_eq!((run.networks, run.labels), (vec!["db".to_owned()], vec!["team=shop".to_owned()]));
        assert_eq!((run.memory.as_deref(), run.cpus.as_deref()), (Some("67108864"), Some("1.500000000")));
        assert_eq!((run.user.as_deref(), run.init, run.shm_size), (Some("app"), true, None));
        assert_eq!((run.entrypoint, run.command), (None, Vec::<String>::new()));
    }
}
