//! The configuration file: read at the start, and applied again whenever it changes or someone asks.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use config::diff::Diff;
use config::error::Problem;
use config::load::{self, Presence};
use config::model::{Log, Model};
use config::paths;
use config::watch::{self, Watch};
use tokio::sync::{mpsc, oneshot};

use super::{Handle, flip};
use crate::headers::Trust;
use crate::telemetry::access_log::Target;
use crate::worker::{Settings, Shared};

/// What the control thread is told from outside.
pub(crate) enum Order {
    /// Read the configuration again; the reply takes its problems.
    Reload(Option<oneshot::Sender<Vec<String>>>),
    /// End.
    Stop,
}

/// The configuration file, and what sees it change.
pub(crate) struct ConfigFile {
    path: PathBuf,
    presence: Presence,
    watch: Watch,
}

impl ConfigFile {
    /// Begins to watch, so that no change after the first read is missed.
    ///
    /// # Errors
    /// Where its thread can't be started.
    pub(crate) fn watch(path: PathBuf, orders: mpsc::UnboundedSender<Order>) -> io::Result<Self> {
        let watch = watch::watch(&path, move || drop(orders.send(Order::Reload(None))))?;
        let presence = if path == Path::new(paths::PROXY_CONFIG) { Presence::Optional } else { Presence::Required };
        Ok(Self { path, presence, watch })
    }

    /// Reads it.
    ///
    /// # Errors
    /// Every problem of it.
    pub(crate) fn load(&self) -> Result<Model, Vec<Problem>> {
        load::load(&self.path, self.presence)
    }
}

/// Returns what workers take from a configuration.
pub(crate) fn settings(model: &Model) -> Settings {
    Settings {
        limits: model.limits.clone(),
        trust: Trust::new(&model.trusted_proxies),
        balancers: Trust::new(&model.proxy_protocol),
        access: Arc::new(model.log.access.clone()),
    }
}

/// Applies the configuration file, at the start and whenever it changes.
pub(crate) struct Reloader {
    /// The file.
    pub(crate) config: Option<ConfigFile>,
    /// What is in force.
    pub(crate) model: Model,
    /// Where its services go.
    pub(crate) handle: Rc<Handle>,
    /// Where its limits go.
    pub(crate) shared: Arc<Shared>,
}

impl Reloader {
    /// Applies the services of the file as it was at the start.
    pub(crate) fn begin(&mut self) {
        let problems = self.handle.with(|control| control.apply_file(&self.model.services));
        for problem in &problems {
            tracing::warn!("a service of the file is refused: {problem}");
        }
        if let Some(warning) = self.config.as_ref().and_then(|config| config.watch.warning()) {
            tracing::warn!("{warning}");
        }
        self.handle.with(|control| control.set_config_problems(problems));
    }

    /// Reads the file again and applies it; returns why the old one stays, empty where it was applied.
    pub(crate) fn reload(&mut self) -> Vec<String> {
        let Some(config) = &self.config else { return Vec::new() };
        let problems = match config.load() {
            Ok(model) => self.apply(model),
            Err(problems) => problems.iter().map(Problem::render).collect(),
        };
        for problem in &problems {
            tracing::warn!("the new configuration is refused, the old one stays: {problem}");
        }
        self.handle.with(|control| control.set_config_problems(problems.clone()));
        problems
    }

    /// Returns the problems; where there is one, the limits of the old file stay too.
    fn apply(&mut self, model: Model) -> Vec<String> {
        let diff = Diff::between(&self.model, &model);
        let file = &model.log.access.file;
        let target = match (*file != self.model.log.access.file).then(|| Target::open(file.clone())).transpose() {
            Ok(target) => target,
            Err(error) => {
                let file = file.clone().unwrap_or_default();
                return vec![format!("the access log {} can't be opened: {error}", file.display())];
            }
        };
        let problems = flip::apply_file(&self.handle, &model.services);
        // One service's fault does not keep the others from being applied.
        if !problems.is_empty() {
            return problems;
        }
        target.into_iter().for_each(|target| self.shared.access.write_to(target));
        self.shared.settings.send_replace(settings(&model));
        tracing::info!(applied = diff.live.join(" "), "the configuration was read again");
        if !diff.restart.is_empty() {
            tracing::warn!(keys = diff.restart.join(" "), "in force only after a restart");
        }
        // What waits is told again after the next change: the model in force keeps what was there at the start.
        let (listen, admin, state) = (self.model.listen.clone(), self.model.admin.clone(), self.model.state.clone());
        let (workers, metrics) = (self.model.workers, self.model.metrics);
        let log = Log { access: model.log.access.clone(), ..self.model.log.clone() };
        self.model = Model { listen, admin, state, workers, metrics, log, ..model };
        Vec::new()
    }
}
