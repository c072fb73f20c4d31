//! Plain processes as an engine: an instance is a process on 127.0.0.1, the proxy a process beside it.

use std::time::Duration;

use config::name::ServiceName;

use super::{
    AdminStream, EngineError, Gateway, GatewaySpec, Happening, Image, Instance, InstanceSpec, LogRange, Pull, Restart,
};

/// The engine.
pub struct Process;

fn not_yet<T>() -> Result<T, EngineError> {
    Err(EngineError::Refused("not there yet".to_owned()))
}

impl Process {
    pub(super) fn target(&self) -> String {
        String::new()
    }
    pub(super) async fn up(&self, _: &GatewaySpec) -> Result<Gateway, EngineError> {
        not_yet()
    }
    pub(super) async fn down(&self, _: bool) -> Result<Vec<String>, EngineError> {
        not_yet()
    }
    pub(super) async fn admin(&self) -> Result<Option<Box<dyn AdminStream>>, EngineError> {
        not_yet()
    }
    pub(super) async fn image(&self, _: &str, _: Pull) -> Result<Image, EngineError> {
        not_yet()
    }
    pub(super) async fn instances(&self, _: Option<&ServiceName>) -> Result<Vec<Instance>, EngineError> {
        not_yet()
    }
    pub(super) async fn create(&self, _: &InstanceSpec) -> Result<Instance, EngineError> {
        not_yet()
    }
    pub(super) async fn start(&self, _: &Instance) -> Result<(), EngineError> {
        not_yet()
    }
    pub(super) async fn stop(&self, _: &Instance, _: Duration) -> Result<(), EngineError> {
        not_yet()
    }
    pub(super) async fn remove(&self, _: &Instance) -> Result<(), EngineError> {
        not_yet()
    }
    pub(super) async fn set_kept(&self, _: &Instance, _: bool) -> Result<Instance, EngineError> {
        not_yet()
    }
    pub(super) async fn set_restart(&self, _: &Instance, _: Restart) -> Result<(), EngineError> {
        not_yet()
    }
    pub(super) async fn watch(&self, _: &Instance) -> Result<Happening, EngineError> {
        not_yet()
    }
    pub(super) async fn run_health_command(
        &self,
        _: &Instance,
        _: &[String],
    ) -> Result<Result<(), String>, EngineError> {
        not_yet()
    }
    pub(super) async fn logs(
        &self,
        _: &Instance,
        _: LogRange,
        _: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        not_yet()
    }
    pub(super) async fn proxy_logs(&self, _: LogRange, _: &mut (dyn FnMut(&str) + Send)) -> Result<(), EngineError> {
        not_yet()
    }
}
