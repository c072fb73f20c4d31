//! What a deployment needs of an engine: a gateway that runs the proxy, images, and instances that run in slots.
//!
//! Two engines provide it: [`docker`], where an instance is a container, and [`process`], where it is a plain process on
//! this machine. A deployment is written once, against [`Engine`].

pub mod docker;
mod error;
mod gateway;
mod instance;
pub mod process;
mod variables;
mod wanted;

use std::time::Duration;

pub use self::docker::judge;
pub use self::error::EngineError;
pub use self::gateway::{Gateway, GatewaySpec};
use self::instance::slot_name;
pub use self::instance::{
    Exit, Happening, Image, Instance, InstanceSpec, LogRange, Output, Pull, Restart, RunSettings, STOP_GRACE,
};
pub(crate) use self::process::run_to_its_end;
pub use self::variables::Variables;
pub use self::wanted::IsWanted;
use config::name::ServiceName;
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of bytes to the proxy's admin socket.
pub trait AdminStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AdminStream for T {}

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
            Self::Process(_) => Err(EngineError::Usage(format!(
                "a plain process has no inside\nhint: `bgctl run {} -- COMMAND` runs one with its settings",
                instance.service
            ))),
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

    /// Returns the folders of the host that the proxy sees; `None`: all of them.
    ///
    /// # Errors
    /// Where the engine can't be reached.
    pub async fn sight(&self) -> Result<Option<Vec<std::path::PathBuf>>, EngineError> {
        match self {
            Self::Docker(docker) => docker.sight().await.map(Some),
            Self::Process(_) => Ok(None),
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
