//! Plain processes as an engine: an instance is a process on 127.0.0.1, the proxy a process beside it.
//!
//! `folders` says where everything is; `gateway` runs the proxy; `slot` does what a deployment asks, by `record` (what is
//! there), `program` (an image is a program), `port`, `log`, `identity` (never the wrong process) and `exit` (no zombie).
//!
//! Nobody supervises: an instance that died is reported, not started again, and no reboot revives one. How a process
//! ended can be read by its parent alone, so that the exit code of an instance that another run of `bgctl` started is
//! [`Exit::UNKNOWN`](super::Exit::UNKNOWN). Logs grow until their instance is removed.

mod exit;
mod folders;
mod gateway;
mod identity;
mod log;
mod once;
mod port;
mod program;
mod record;
mod slot;
mod successor;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use config::name::ServiceName;

use self::exit::End;
use self::folders::Folders;
pub(crate) use self::once::run_to_its_end;
use self::record::Records;
use super::{
    AdminStream, EngineError, Gateway, GatewaySpec, Happening, Image, Instance, InstanceSpec, IsWanted, LogRange, Pull,
    Restart,
};

/// The engine.
pub struct Process {
    folders: Folders,
    records: Records,
    /// Held while records are read and written back.
    changing: Arc<Mutex<()>>,
    /// The ends of the instances that this run started.
    ends: Mutex<HashMap<String, End>>,
}

impl Process {
    /// Opens the engine; `gateway` is `--gateway`, whose folders are its own. Nothing is made or started yet.
    ///
    /// # Errors
    /// [`EngineError::Usage`] where the environment names no place for the state.
    pub fn connect(gateway: Option<&str>) -> Result<Self, EngineError> {
        Ok(Self::with(Folders::find(gateway, &config::paths::variable)?))
    }

    fn with(folders: Folders) -> Self {
        let records = Records::new(folders.instances());
        Self { folders, records, changing: Arc::default(), ends: Mutex::default() }
    }

    pub(super) fn target(&self) -> String {
        format!("plain processes on this machine ({})", self.folders.state().display())
    }

    pub(super) async fn up(&self, spec: &GatewaySpec) -> Result<Gateway, EngineError> {
        self.bring_up(spec).await
    }

    pub(super) async fn down(&self, volumes: bool) -> Result<Vec<String>, EngineError> {
        self.tear_down(volumes).await
    }

    pub(super) async fn admin(&self) -> Result<Option<Box<dyn AdminStream>>, EngineError> {
        self.open_admin().await
    }

    pub(super) async fn image(&self, reference: &str, _: Pull) -> Result<Image, EngineError> {
        // There is nowhere to pull a program from.
        self.find_program(reference)
    }

    pub(super) async fn instances(&self, service: Option<&ServiceName>) -> Result<Vec<Instance>, EngineError> {
        self.list_instances(service)
    }

    pub(super) async fn create(&self, spec: &InstanceSpec) -> Result<Instance, EngineError> {
        self.create_instance(spec)
    }

    pub(super) async fn start(&self, instance: &Instance) -> Result<(), EngineError> {
        self.start_instance(instance)
    }

    pub(super) async fn stop(&self, instance: &Instance, grace: Duration) -> Result<(), EngineError> {
        self.stop_instance(instance, grace).await
    }

    pub(super) async fn remove(&self, instance: &Instance) -> Result<(), EngineError> {
        self.remove_instance(instance).await
    }

    pub(super) async fn set_kept(&self, instance: &Instance, kept: bool) -> Result<Instance, EngineError> {
        self.rename_kept(instance, kept)
    }

    /// Does nothing: without a supervisor there is nobody to start an instance again.
    pub(super) async fn set_restart(&self, _: &Instance, _: Restart) -> Result<(), EngineError> {
        Ok(())
    }

    pub(super) async fn watch(&self, instance: &Instance) -> Result<Happening, EngineError> {
        self.watch_instance(instance).await
    }

    /// Passes: a program brings no health command, so that none is ever asked for.
    pub(super) async fn run_health_command(
        &self,
        _: &Instance,
        _: &[String],
    ) -> Result<Result<(), String>, EngineError> {
        Ok(Ok(()))
    }

    pub(super) async fn logs(
        &self,
        instance: &Instance,
        range: LogRange,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        self.read_log(instance, range, line).await
    }

    pub(super) async fn access_log(
        &self,
        range: LogRange,
        is_wanted: IsWanted<'_>,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        self.read_access_log(range, is_wanted, line).await
    }

    pub(super) async fn proxy_logs(
        &self,
        range: LogRange,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        self.read_proxy_log(range, line).await
    }
}
