//! What an engine runs in a slot: an instance, the image that it is made from, and how it is run.

use std::time::Duration;

use config::name::{EndpointAddr, ServiceName, Slot};

use super::Variables;

/// An image, or for the process engine the program that stands for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// As the user wrote it.
    pub reference: String,
    /// The engine's id or digest of it.
    pub id: String,
    /// The TCP ports that it exposes.
    pub exposed_ports: Vec<u16>,
    /// Its own ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// The source that it says it was built from: its label `org.opencontainers.image.revision`.
    pub revision: Option<String>,
    /// Its own HEALTHCHECK, as an argument list for exec.
    pub health_command: Option<Vec<String>>,
}

/// What to do about an image that the engine lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Pull it.
    Missing,
    /// Pull it even when it is there.
    Always,
    /// Fail.
    Never,
}

/// How an instance is run: docker's own words and meaning. Saved as a label, so that the next switch keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct RunSettings {
    /// `K=V`, in the order given; a later one wins.
    pub env: Variables,
    /// `--volume`, as written.
    pub volumes: Vec<String>,
    /// `--mount`, as written.
    pub mounts: Vec<String>,
    /// `--tmpfs`, as written.
    pub tmpfs: Vec<String>,
    /// Networks besides the gateway's.
    pub networks: Vec<String>,
    /// `--user`.
    pub user: Option<String>,
    /// `--init`.
    pub init: bool,
    /// `--add-host`, as written.
    pub add_hosts: Vec<String>,
    /// `--label`, as written.
    pub labels: Vec<String>,
    /// `--memory`, as written.
    pub memory: Option<String>,
    /// `--cpus`, as written.
    pub cpus: Option<String>,
    /// `--shm-size`, as written.
    pub shm_size: Option<String>,
    /// `--ulimit`, as written.
    pub ulimits: Vec<String>,
    /// `--entrypoint`.
    pub entrypoint: Option<String>,
    /// What follows `--`.
    pub command: Vec<String>,
}

/// A new instance.
#[derive(Debug, Clone)]
pub struct InstanceSpec {
    /// The service.
    pub service: ServiceName,
    /// The slot.
    pub slot: Slot,
    /// Its number among the slot's instances, from 1 on.
    pub replica: u32,
    /// The deployment's id.
    pub deployment: String,
    /// The image.
    pub image: Image,
    /// The port that the application listens on, put into its environment as `PORT` too.
    pub port: u16,
    /// How it is run.
    pub run: RunSettings,
    /// Who deploys, as in `alice@laptop`.
    pub who: String,
    /// More labels of ours: name without the `bluegreen.` prefix, and value (the sticky settings go here).
    pub notes: Vec<(String, String)>,
}

/// An instance of ours that the engine has: running, stopped or kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The engine's id; what the calls below want.
    pub id: String,
    /// Its name, as `shop_BLUE`, `shop_BLUE_2` or `shop_BLUE_2_kept`.
    pub name: String,
    /// The service.
    pub service: ServiceName,
    /// The slot.
    pub slot: Slot,
    /// Its number among the slot's instances, from 1 on.
    pub replica: u32,
    /// Whether it waits under its kept name.
    pub kept: bool,
    /// Whether it runs.
    pub running: bool,
    /// Where the proxy reaches it: the container's name (or 127.0.0.1) and the port.
    pub endpoint: EndpointAddr,
    /// The deployment's id.
    pub deployment: String,
    /// The image, as the user wrote it.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// How it is run.
    pub run: RunSettings,
    /// As in [`InstanceSpec::notes`].
    pub notes: Vec<(String, String)>,
    /// When it was created, RFC 3339.
    pub created: String,
}

/// Returns the name of an instance under its slot's name: the first replica has that alone, the others a number behind it.
pub(super) fn slot_name(service: &ServiceName, slot: Slot, replica: u32) -> String {
    match replica {
        0 | 1 => format!("{service}_{}", slot.upper()),
        more => format!("{service}_{}_{more}", slot.upper()),
    }
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, or 128 + the signal.
    pub code: i64,
    /// Whether the kernel killed it for want of memory.
    pub oom: bool,
}

impl Exit {
    /// The code of an exit that nobody could read: the process engine's, for one that another run of `bgctl` started.
    pub const UNKNOWN: i64 = -1;
}

/// What an engine tells about a running instance while a deployment waits for its health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// It ended.
    Exited(Exit),
    /// The engine's own health check gave up on it.
    Unhealthy,
}

/// Where a command's output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Data,
    /// Standard error.
    Error,
}

/// Whether the engine starts an instance again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Never: an instance that is not live.
    No,
    /// Always: the live one.
    Always,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// The last lines only; `None` is all.
    pub tail: Option<usize>,
    /// Goes on until interrupted.
    pub follow: bool,
}

/// How long an instance may take to stop by its stop signal before it is killed.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
