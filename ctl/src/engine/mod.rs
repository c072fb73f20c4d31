//! What a deployment needs of an engine: a gateway that runs the proxy, images, and instances that run in slots.
//!
//! Two engines provide it: [`docker`], where an instance is a container, and [`process`], where it is a plain process on
//! this machine. A deployment is written once, against [`Engine`].

pub mod docker;
pub mod process;
mod variables;
mod wanted;

use std::time::Duration;

pub use self::docker::judge;
pub(crate) use self::process::run_to_its_end;
pub use self::variables::Variables;
pub use self::wanted::IsWanted;
use config::name::{EndpointAddr, ServiceName, Slot};
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of bytes to the proxy's admin socket.
pub trait AdminStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AdminStream for T {}

/// What an engine could not do; the kind decides the exit code.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine or its host can't be reached, or its disk is full: exit 8.
    #[error("{0}")]
    Unreachable(String),
    /// The image is missing, or the engine refused to create or start the instance: exit 3.
    #[error("{0}")]
    Refused(String),
    /// The proxy is not there and could not be made to run: exit 2.
    #[error("{0}")]
    NoProxy(String),
    /// Wrong usage, such as an image with several exposed ports and no `--port`: exit 1.
    #[error("{0}")]
    Usage(String),
}

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
fn slot_name(service: &ServiceName, slot: Slot, replica: u32) -> String {
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

/// What `up` is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewaySpec {
    /// `--publish`; empty is 80:80, and 443:443 where free.
    pub publish: Vec<String>,
    /// `--trusted-proxy`.
    pub trusted_proxies: Vec<String>,
    /// `--proxy-binary`.
    pub proxy_binary: Option<std::path::PathBuf>,
    /// Replaces a running proxy of another build.
    pub upgrade: bool,
}

/// What `up` did or found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Gateway {
    /// True: something was created or started; false: all of it ran already.
    pub changed: bool,
    /// What was done, a sentence each.
    pub done: Vec<String>,
    /// What someone should know: another build runs, 443 is taken.
    pub warnings: Vec<String>,
    /// Where the proxy is reached, as `http://0.0.0.0:80`.
    pub addresses: Vec<String>,
}

/// How long an instance may take to stop by its stop signal before it is killed.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// An engine, of one kind or the other.
pub enum Engine {
    /// Containers.
    Docker(docker::Docker),
    /// Plain processes on this machine.
    Process(process::Process),
}

/// Hands a call to whichever engine it is.
macro_rules! dispatch {
    ($self:expr, $engine:ident => $call:expr) => {
        match $self {
            Engine::Docker($engine) => $call,
            Engine::Process($engine) => $call,
        }
    };
}

impl Engine {
    /// Returns where the engine is, for the first line of a command: `docker on this machine`, `docker at ssh://production`.
    pub fn target(&self) -> String {
        dispatch!(self, engine => engine.target())
    }

    /// Makes sure that the gateway runs, and says what it did.
    ///
    /// # Errors
    /// [`EngineError::NoProxy`] where it can't be made to run, with the reason.
    pub async fn up(&self, spec: &GatewaySpec) -> Result<Gateway, EngineError> {
        dispatch!(self, engine => engine.up(spec).await)
    }

    /// Returns what someone who runs a site on this engine should know, a sentence each: that a restart of the engine stops it.
    ///
    /// # Errors
    /// Where the engine can't be reached.
    pub async fn warnings(&self) -> Result<Vec<String>, EngineError> {
        match self {
            Self::Docker(docker) => docker.warnings().await,
            Self::Process(_) => Ok(Vec::new()),
        }
    }

    /// Returns where the running proxy is reached, as `http://0.0.0.0:80`.
    ///
    /// # Errors
    /// Where the engine can't be reached, or no proxy runs.
    pub async fn addresses(&self) -> Result<Vec<String>, EngineError> {
        match self {
            Self::Docker(docker) => docker.published().await,
            Self::Process(process) => process.listeners().await,
        }
    }

    /// Removes the gateway; with `volumes` its saved state too. Returns what was removed and what was left, a sentence each.
    ///
    /// # Errors
    /// Where the engine can't be reached or refuses.
    pub async fn down(&self, volumes: bool) -> Result<Vec<String>, EngineError> {
        dispatch!(self, engine => engine.down(volumes).await)
    }

    /// Opens a byte stream to the running proxy's admin socket; `None` where no proxy runs.
    ///
    /// # Errors
    /// Where the engine can't be reached.
    pub async fn admin(&self) -> Result<Option<Box<dyn AdminStream>>, EngineError> {
        dispatch!(self, engine => engine.admin().await)
    }

    /// Finds an image, pulling it where asked.
    ///
    /// # Errors
    /// [`EngineError::Refused`] where it is missing and can't be pulled.
    pub async fn image(&self, reference: &str, pull: Pull) -> Result<Image, EngineError> {
        dispatch!(self, engine => engine.image(reference, pull).await)
    }

    /// Returns our instances, of one service or of all, kept and stopped ones too.
    ///
    /// # Errors
    /// Where the engine can't be reached.
    pub async fn instances(&self, service: Option<&ServiceName>) -> Result<Vec<Instance>, EngineError> {
        dispatch!(self, engine => engine.instances(service).await)
    }

    /// Creates an instance without starting it; restart policy `no`.
    ///
    /// # Errors
    /// [`EngineError::Refused`] with the engine's reason; nothing is left behind.
    pub async fn create(&self, spec: &InstanceSpec) -> Result<Instance, EngineError> {
        dispatch!(self, engine => engine.create(spec).await)
    }

    /// Starts an instance; one that runs already is left alone.
    ///
    /// # Errors
    /// [`EngineError::Refused`] with the engine's reason.
    pub async fn start(&self, instance: &Instance) -> Result<(), EngineError> {
        dispatch!(self, engine => engine.start(instance).await)
    }

    /// Stops an instance by its stop signal, then by force after `grace`.
    ///
    /// # Errors
    /// Where the engine can't be reached or refuses.
    pub async fn stop(&self, instance: &Instance, grace: Duration) -> Result<(), EngineError> {
        dispatch!(self, engine => engine.stop(instance, grace).await)
    }

    /// Removes an instance, running or not.
    ///
    /// # Errors
    /// Where the engine can't be reached or refuses.
    pub async fn remove(&self, instance: &Instance) -> Result<(), EngineError> {
        dispatch!(self, engine => engine.remove(instance).await)
    }

    /// Gives an instance its kept name, or its slot's name back.
    ///
    /// # Errors
    /// Where the name is taken, or the engine can't be reached.
    pub async fn set_kept(&self, instance: &Instance, kept: bool) -> Result<Instance, EngineError> {
        dispatch!(self, engine => engine.set_kept(instance, kept).await)
    }

    /// Sets whether the engine starts an instance again by itself.
    ///
    /// # Errors
    /// Where the engine can't be reached or refuses.
    pub async fn set_restart(&self, instance: &Instance, restart: Restart) -> Result<(), EngineError> {
        dispatch!(self, engine => engine.set_restart(instance, restart).await)
    }

    /// Waits until something happens to an instance that ends a wait for its health.
    ///
    /// # Errors
    /// Where the engine can't be reached any more.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing: an exit is a state, and the next call reports it at once.
    pub async fn watch(&self, instance: &Instance) -> Result<Happening, EngineError> {
        dispatch!(self, engine => engine.watch(instance).await)
    }

    /// Runs the image's own health command inside an instance; `Ok(Err(words))` where it fails.
    ///
    /// # Errors
    /// Where the engine can't be reached or refuses.
    pub async fn run_health_command(
        &self,
        instance: &Instance,
        command: &[String],
    ) -> Result<Result<(), String>, EngineError> {
        dispatch!(self, engine => engine.run_health_command(instance, command).await)
    }

    /// Runs a command in a one-off instance with a service's settings, hands over its lines, and removes it.
    ///
    /// # Errors
    /// [`EngineError::Refused`] where it could not be run; a command that fails is no error.
    ///
    /// # Cancel safety
    /// Dropping it may leave the instance: [`Engine::end_once`] removes it.
    pub async fn run_once(
        &self,
        spec: &InstanceSpec,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Exit, EngineError> {
        dispatch!(self, engine => engine.run_one_off(spec, line).await)
    }

    /// Ends and removes a service's one-off instance, where there is one.
    ///
    /// # Errors
    /// Where the engine can't be reached or refuses.
    pub async fn end_once(&self, service: &ServiceName) -> Result<(), EngineError> {
        match self {
            Self::Docker(docker) => docker.end_one_off(service).await,
            Self::Process(process) => {
                process.end_one_off(service);
                Ok(())
            }
        }
    }

    /// Returns what an instance was made from, to run something else with its settings.
    ///
    /// # Errors
    /// Where its image is gone, or the engine can't be reached.
    pub async fn spec_of(&self, instance: &Instance, who: String) -> Result<InstanceSpec, EngineError> {
        let reference = if instance.image_id.is_empty() { &instance.image } else { &instance.image_id };
        let image = match self.image(reference, Pull::Never).await {
            Ok(image) => image,
            // The process engine knows programs by their names alone.
            Err(_) => self.image(&instance.image, Pull::Never).await?,
        };
        Ok(InstanceSpec {
            service: instance.service.clone(),
            slot: instance.slot,
            replica: 1,
            deployment: instance.deployment.clone(),
            image,
            port: instance.endpoint.port(),
            run: instance.run.clone(),
            who,
            notes: Vec::new(),
        })
    }

    /// Returns where a running instance is reached on the engine's own machine, as `172.18.0.4:8080`.
    ///
    /// # Errors
    /// Where it has no address, or the engine can't be reached.
    pub async fn address(&self, instance: &Instance) -> Result<String, EngineError> {
        match self {
            Self::Docker(docker) => docker.address_of(instance).await,
            Self::Process(_) => Ok(instance.endpoint.to_string()),
        }
    }

    /// Runs a command in a running instance, hands over what it writes, and returns its exit code.
    ///
    /// # Errors
    /// Where the engine can't be reached or refuses, and where an instance is a plain process.
    pub async fn exec(
        &self,
        instance: &Instance,
        command: &[String],
        output: &mut (dyn FnMut(Output, &[u8]) + Send),
    ) -> Result<i64, EngineError> {
        match self {
            Self::Docker(docker) => docker.exec_command(instance, command, output).await,
            Self::Process(_) => Err(EngineError::Usage(
                "a plain process has no inside\nhint: `bgctl run` runs a command with its settings".to_owned(),
            )),
        }
    }

    /// Tells whether an image is there, by its id.
    ///
    /// # Errors
    /// Where the engine can't be reached.
    pub async fn has_image(&self, id: &str) -> Result<bool, EngineError> {
        match self {
            Self::Docker(docker) => docker.has_image(id).await,
            // A program is no image of ours, whoever put it there.
            Self::Process(_) => Ok(false),
        }
    }

    /// Removes an image, by its id, with all its names.
    ///
    /// # Errors
    /// Where a container uses it, or the engine can't be reached.
    pub async fn remove_image(&self, id: &str) -> Result<(), EngineError> {
        match self {
            Self::Docker(docker) => docker.remove_image(id).await,
            Self::Process(_) => Ok(()),
        }
    }

    /// Hands the lines of an instance's log to `line`, standard error included.
    ///
    /// # Errors
    /// Where the engine can't be reached, or has no log of it.
    pub async fn logs(
        &self,
        instance: &Instance,
        range: LogRange,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        dispatch!(self, engine => engine.logs(instance, range, line).await)
    }

    /// The same for the proxy's own log.
    ///
    /// # Errors
    /// Where the engine can't be reached, or there is no proxy.
    pub async fn proxy_logs(&self, range: LogRange, line: &mut (dyn FnMut(&str) + Send)) -> Result<(), EngineError> {
        dispatch!(self, engine => engine.proxy_logs(range, line).await)
    }

    /// The same for the lines of the proxy's access log that are wanted; a tail counts these alone.
    ///
    /// # Errors
    /// Where the engine can't be reached, or there is no proxy.
    pub async fn access_log(
        &self,
        range: LogRange,
        is_wanted: IsWanted<'_>,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        dispatch!(self, engine => engine.access_log(range, is_wanted, line).await)
    }
}
