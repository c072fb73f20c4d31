//! Docker as an engine: an instance is a container, the gateway two of them on a network of their own.
//!
//! `place` finds the engine, `connect` (`transport`, `ssh`) reaches it; `gateway` (`raising`, `holder`, `proxy`, `parts`, `sight`, `ready`) and `teardown` make and
//! remove what runs the proxy (`proxy_image`, `program_image`, `binary`, `ports`); `relay` reaches it; `image` (`credentials`), `layers` (`partial`), `container` (`spec`, `mount`, `quantity`, `environment`), `events`, `exec` and `logs` are what a
//! deployment does with its slots; `survey` is what `doctor` finds, `application` what the demo runs.
//! `recipe` (`nginx`) is what may stand in the gateway's place, `takeover` puts ours there, `adopted` knows the containers that stay. Whatever has our `labels` is ours, and nothing else is touched.

mod adopted;
mod application;
mod binary;
mod certificates;
mod connect;
mod container;
mod credentials;
mod environment;
mod events;
mod exec;
mod gateway;
mod holder;
mod image;
mod labels;
mod layers;
mod logs;
mod mend;
mod mount;
mod names;
mod nginx;
mod once;
mod partial;
mod parts;
mod place;
mod ports;
mod program_image;
mod proxy;
mod proxy_image;
mod quantity;
mod raising;
mod ready;
mod recipe;
mod refusal;
mod relay;
mod sight;
mod spec;
mod ssh;
mod survey;
mod takeover;
mod teardown;
mod transport;

pub use self::spec::judge;

use std::time::Duration;

use config::name::ServiceName;

pub use self::application::Application;
use self::connect::Handles;
pub use self::layers::{Present, Store, StoredImage};
use self::names::Names;
pub use self::partial::Partial;
use self::place::Place;
pub use self::recipe::{Adoption, Recipe};
pub use self::survey::{Finding, Verdict};
pub use self::takeover::Rehearsal;
use super::{
    AdminStream, EngineError, Gateway, GatewaySpec, Happening, Image, Instance, InstanceSpec, IsWanted, LogRange, Pull,
    Restart,
};

/// The log driver where journald can't be used: it rotates, which `json-file` does not.
const FALLBACK_LOG_DRIVER: &str = "local";
/// Podman's, which rotates where it is told a size.
const PODMAN_LOG_DRIVER: &str = "k8s-file";

/// The engine.
pub struct Docker {
    place: Place,
    /// In a box, so that an engine of the other kind doesn't carry their size.
    handles: Box<Handles>,
    names: Names,
}

impl Docker {
    /// Connects to the engine: `host` is `--host`, without which Docker's own environment decides; `gateway` is
    /// `--gateway`, which prefixes every name with itself and a dash.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] where no engine answers, [`EngineError::Usage`] for what is not there yet or a name
    /// that Docker would not take.
    pub async fn connect(host: Option<&str>, gateway: Option<&str>) -> Result<Self, EngineError> {
        let names = Names::new(gateway)?;
        let place = Place::find(host, &config::paths::variable)?;
        let handles = Box::new(place.connect().await?);
        Ok(Self { place, handles, names })
    }

    /// Tells whether [`Docker::connect`] would look on this machine, without connecting.
    pub fn would_be_here(host: Option<&str>) -> bool {
        Place::find(host, &config::paths::variable).is_ok_and(|place| place.host().is_none())
    }

    /// Looks at the engine and at everything of ours on it, for `doctor`; what can't be looked at is a finding too.
    pub async fn survey(&self) -> Vec<Finding> {
        self.look_around().await
    }

    /// Returns the log driver for an engine that can't use journald.
    fn fallback_log_driver(&self) -> &'static str {
        if self.handles.is_podman { PODMAN_LOG_DRIVER } else { FALLBACK_LOG_DRIVER }
    }

    /// Returns the API that the engine is spoken to in, as `1.41`.
    pub fn api(&self) -> &str {
        &self.handles.api
    }

    pub(crate) fn target(&self) -> String {
        self.place.target()
    }

    pub(super) async fn up(&self, spec: &GatewaySpec) -> Result<Gateway, EngineError> {
        self.bring_up(spec).await
    }

    pub(super) async fn warnings(&self) -> Result<Vec<String>, EngineError> {
        self.host_warnings().await
    }

    pub(super) async fn down(&self, volumes: bool) -> Result<Vec<String>, EngineError> {
        self.tear_down(volumes).await
    }

    pub(super) async fn admin(&self) -> Result<Option<Box<dyn AdminStream>>, EngineError> {
        self.open_relay().await
    }

    pub(crate) async fn image(&self, reference: &str, pull: Pull) -> Result<Image, EngineError> {
        self.find_image(reference, pull).await
    }

    pub(super) async fn instances(&self, service: Option<&ServiceName>) -> Result<Vec<Instance>, EngineError> {
        self.list_instances(service).await
    }

    pub(super) async fn create(&self, spec: &InstanceSpec) -> Result<Instance, EngineError> {
        self.create_instance(spec).await
    }

    pub(super) async fn start(&self, instance: &Instance) -> Result<(), EngineError> {
        self.start_instance(instance).await
    }

    pub(super) async fn stop(&self, instance: &Instance, grace: Duration) -> Result<(), EngineError> {
        self.stop_instance(instance, grace).await
    }

    pub(super) async fn remove(&self, instance: &Instance) -> Result<(), EngineError> {
        self.remove_instance(instance).await
    }

    pub(super) async fn set_kept(&self, instance: &Instance, kept: bool) -> Result<Instance, EngineError> {
        self.rename_kept(instance, kept).await
    }

    pub(super) async fn set_restart(&self, instance: &Instance, restart: Restart) -> Result<(), EngineError> {
        self.update_restart(instance, restart).await
    }

    pub(super) async fn watch(&self, instance: &Instance) -> Result<Happening, EngineError> {
        self.watch_instance(instance).await
    }

    pub(super) async fn run_health_command(
        &self,
        instance: &Instance,
        command: &[String],
    ) -> Result<Result<(), String>, EngineError> {
        self.exec_health_command(instance, command).await
    }

    pub(super) async fn logs(
        &self,
        instance: &Instance,
        range: LogRange,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        self.read_log(&instance.id, range, line).await
    }

    pub(super) async fn proxy_logs(
        &self,
        range: LogRange,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        let name = self.logging_proxy().await?;
        self.read_log(&name, range, line).await
    }

    pub(super) async fn access_log(
        &self,
        range: LogRange,
        is_wanted: IsWanted<'_>,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        let name = self.logging_proxy().await?;
        self.read_output(&name, range, is_wanted, line).await
    }

    /// Returns the container whose log is the proxy's.
    async fn logging_proxy(&self) -> Result<String, EngineError> {
        let name = self.names.proxy();
        match self.inspect(&name).await? {
            Some(_) => Ok(name),
            None => Err(EngineError::NoProxy(format!(
                "there is no proxy on {}\nhint: `bgctl up{}` makes it",
                self.target(),
                self.names.flag()
            ))),
        }
    }
}
