//! The configuration file: read at the start, and applied again whenever it changes or someone asks.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use config::acme::AcmeSettings;
use config::admin::{AdminError, ErrorCode, response};
use config::brought::{Brought, CertificateName};
use config::diff::Diff;
use config::error::Problem;
use config::load::{self, Presence};
use config::model::{Log, Model};
use config::network::expand;
use config::paths;
use config::settings::ProxySettings;
use config::watch::{self, Watch};
use config::webhook::WebhookSettings;
use tokio::sync::{mpsc, oneshot, watch as watch_channel};

use super::custody::{self, Custody, Step};
use super::{Handle, IfMatch, flip};
use crate::belongings::Parcel;
use crate::doors::Doors;
use crate::headers::Trust;
use crate::telemetry::log_target::Target;
use crate::worker::{Settings, Shared};

/// What the control thread is told from outside.
pub(crate) enum Order {
    /// Read the configuration again; the reply takes its problems.
    Reload(Option<oneshot::Sender<Vec<String>>>),
    /// Tell the proxy's own settings.
    Tell(oneshot::Sender<response::Proxy>),
    /// Put the proxy's own settings in the place of those that the admin API set before.
    Configure(Box<Configure>),
    /// Show a certificate, and keep it.
    Bring(Box<Bring>),
    /// Listen for TLS, where nobody does yet: certificates are to come by themselves.
    OpenTls(oneshot::Sender<Result<(), String>>),
    /// Show and keep a certificate no longer.
    TakeAway(CertificateName, oneshot::Sender<Result<(), AdminError>>),
    /// Go a step of the hand-over to a successor; the reply takes what is given, or why not.
    HandOver(Step, oneshot::Sender<Result<Parcel, String>>),
    /// Let successors ask here.
    Await(UnixListener),
    /// The process before us, which finishes its last requests.
    Predecessor(UnixStream),
    /// End tunnels and streams of events as they should end.
    CloseLong,
    /// End.
    Stop,
}

/// New settings of the proxy itself, by the admin API.
pub(crate) struct Configure {
    pub(crate) settings: ProxySettings,
    pub(crate) if_match: IfMatch,
    /// Takes what is in force then, or why nothing changed.
    pub(crate) reply: oneshot::Sender<Result<response::Proxy, AdminError>>,
}

/// A certificate to be shown.
pub(crate) struct Bring {
    pub(crate) name: CertificateName,
    pub(crate) brought: Brought,
    /// Takes what is shown then, or why nothing changed.
    pub(crate) reply: oneshot::Sender<Result<response::CertificateStatus, AdminError>>,
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
        trust: Trust::new(&expand(&model.trusted_proxies)),
        balancers: Trust::new(&expand(&model.proxy_protocol)),
        access: Arc::new(model.log.access.clone()),
    }
}

/// Applies the configuration file, at the start and whenever it changes.
pub(crate) struct Reloader {
    /// The file.
    pub(crate) config: Option<ConfigFile>,
    /// What it says, as far as that is in force.
    pub(crate) model: Model,
    /// Where its services go.
    pub(crate) handle: Rc<Handle>,
    /// Where its limits go.
    pub(crate) shared: Arc<Shared>,
    /// Whom the webhook tells.
    pub(crate) webhook: watch_channel::Sender<WebhookSettings>,
    /// Where certificates come from that nobody brings.
    pub(crate) acme: watch_channel::Sender<AcmeSettings>,
    /// Where the first certificate opens the ports of TLS.
    pub(crate) doors: Doors,
    /// The file is to be read once the hand-over that is under way came to nothing.
    pub(crate) is_due: bool,
}

impl Reloader {
    /// Applies the services of the file as it was at the start.
    pub(crate) fn begin(&mut self) {
        self.config.iter_mut().for_each(|config| config.watch.also(&self.model.files));
        let problems = self.handle.with(|control| control.apply_file(&self.model.services));
        for problem in &problems {
            tracing::warn!("a service of the file is refused: {problem}");
        }
        if let Some(warning) = self.config.as_ref().and_then(|config| config.watch.warning()) {
            tracing::warn!("{warning}");
        }
        self.complain();
        self.handle.with(|control| {
            control.compare_with(&self.model);
            control.set_config_problems(problems);
        });
    }

    fn complain(&self) {
        for complaint in &self.model.complaints {
            tracing::warn!("{complaint}");
        }
    }

    /// Returns the proxy's own settings.
    pub(crate) fn tell(&self) -> response::Proxy {
        self.handle.with(|control| control.proxy(&self.model))
    }

    /// Puts settings in force, in the place of those that the admin API set before, and saves them.
    ///
    /// # Errors
    /// Why they are refused; nothing has changed.
    pub(crate) fn configure(
        &mut self,
        settings: ProxySettings,
        if_match: IfMatch,
    ) -> Result<response::Proxy, AdminError> {
        self.handle.with(|control| control.admit_proxy(&settings, if_match, &self.model))?;
        let next = self.model.with(&settings);
        let target = self.target(&next).map_err(|wrong| AdminError::new(ErrorCode::BadRequest, wrong))?;
        self.handle.with(|control| control.put_proxy(settings))?;
        self.enforce(&next, target);
        tracing::info!("the proxy's own settings were changed by the admin API");
        Ok(self.tell())
    }

    /// Returns what is in force: the file, and what the admin API set besides.
    fn in_force(&self) -> Model {
        self.handle.with(|control| self.model.with(control.proxy_settings()))
    }

    /// Opens the file of another access log than the one in force.
    fn target(&self, next: &Model) -> Result<Option<Target>, String> {
        let file = &next.log.access.file;
        // A fault of ours in the midst of an order, for the test of what such a one ends.
        #[cfg(test)]
        assert!(file.as_ref().is_none_or(|file| !file.ends_with("panics.log")), "as the test wants it");
        if *file == self.in_force().log.access.file {
            return Ok(None);
        }
        Target::open(file.clone()).map(Some).map_err(|error| {
            let file = file.clone().unwrap_or_default();
            format!("the access log {} can't be opened: {error}", file.display())
        })
    }

    fn enforce(&self, next: &Model, target: Option<Target>) {
        target.into_iter().for_each(|target| self.shared.access.write_to(target));
        self.shared.settings.send_replace(settings(next));
        self.webhook.send_replace(next.webhook.clone());
        self.acme.send_if_modified(|settings| {
            let is_new = *settings != next.acme;
            settings.clone_from(&next.acme);
            is_new
        });
    }

    /// Listens for TLS where nobody does yet: at the usual port where none was named.
    ///
    /// # Errors
    /// The first address that is not to be had, in words.
    pub(crate) fn open_tls(&mut self) -> Result<(), String> {
        let sockets = self.doors.bind_any(&self.model).map_err(|closed| closed.to_string())?;
        if !sockets.is_empty() {
            let addresses = self.doors.open(sockets);
            tracing::info!(listen_tls = ?addresses, "serving TLS, too");
            self.shared.tls.listens_on(addresses);
        }
        Ok(())
    }

    /// Reads the file again and applies it; returns why the old one stays, empty where it was applied.
    pub(crate) fn reload(&mut self) -> Vec<String> {
        if *self.handle.custody.borrow() != Custody::Ours {
            self.is_due = true;
            return vec!["a successor is taking over, and reads the file itself".to_owned()];
        }
        self.shared.access.reopen();
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
        let mut diff = Diff::between(&self.model, &model);
        let next = self.handle.with(|control| model.with(control.proxy_settings()));
        let target = match self.target(&next) {
            Ok(target) => target,
            Err(problem) => return vec![problem],
        };
        let sockets = match self.doors.bind(&model) {
            Ok(sockets) => sockets,
            Err(closed) => return vec![closed.to_string()],
        };
        let problems = flip::apply_file(&self.handle, &model.services);
        // One service's fault does not keep the others from being applied.
        if !problems.is_empty() {
            return problems;
        }
        self.enforce(&next, target);
        self.shared.tls.show(&model.certificates);
        let mut listen_tls = self.model.listen_tls.clone();
        if !sockets.is_empty() {
            listen_tls = model.listen_tls.clone();
            diff.restart.retain(|key| *key != "listen_tls");
            let addresses = self.doors.open(sockets);
            tracing::info!(listen_tls = ?addresses, "serving TLS, too");
            self.shared.tls.listens_on(addresses);
        }
        tracing::info!(applied = diff.live.join(" "), "the configuration was read again");
        if !diff.restart.is_empty() {
            tracing::warn!(keys = diff.restart.join(" "), "in force only after a restart");
        }
        // What waits is told again after the next change: the model in force keeps what was there at the start.
        let (listen, admin, state) = (self.model.listen.clone(), self.model.admin.clone(), self.model.state.clone());
        let (workers, metrics) = (self.model.workers, self.model.metrics);
        let log = Log { access: model.log.access.clone(), ..self.model.log.clone() };
        self.model = Model { listen, listen_tls, admin, state, workers, metrics, log, ..model };
        self.config.iter_mut().for_each(|config| config.watch.also(&self.model.files));
        self.handle.with(|control| control.compare_with(&self.model));
        self.complain();
        Vec::new()
    }
}

impl Reloader {
    /// Goes a step of the hand-over to a successor.
    ///
    /// # Errors
    /// Why it is not gone; everything is as it was.
    pub(crate) fn hand_over(&mut self, step: Step) -> Result<Parcel, String> {
        let custody = *self.handle.custody.borrow();
        let next = match (step, custody) {
            (Step::Offer, Custody::Ours) => {
                self.handle.with(|control| control.admit_successor()).map_err(|error| error.to_string())?;
                let parcel = self.doors.belongings.parcel().map_err(|error| format!("its sockets: {error}"))?;
                self.handle.custody.send_replace(Custody::Offered);
                return Ok(parcel);
            }
            (Step::Offer, _) => return Err("another successor is taking over".to_owned()),
            (Step::Give, Custody::Offered) => {
                self.handle.with(|control| control.give_state(true));
                Custody::Given
            }
            (Step::Leave, Custody::Given) => {
                self.doors.belongings.let_go();
                Custody::Left
            }
            (Step::Hurry, Custody::Left) => Custody::Hurried,
            (Step::TakeBack(why), Custody::Offered | Custody::Given) => {
                self.handle.with(|control| control.give_state(false));
                self.handle.kept_because.send_replace(why);
                self.handle.custody.send_replace(Custody::Ours);
                if std::mem::take(&mut self.is_due) {
                    self.reload();
                }
                return Ok(Parcel::new());
            }
            (Step::Note(why), Custody::Ours) => {
                self.handle.kept_because.send_replace(why);
                return Ok(Parcel::new());
            }
            (Step::Give | Step::Leave | Step::Hurry | Step::TakeBack(_) | Step::Note(_), _) => {
                return Err("this is not the time for that".to_owned());
            }
        };
        self.handle.custody.send_replace(next);
        Ok(Parcel::new())
    }

    /// Follows the process before us to its end.
    pub(crate) fn follow(&self, predecessor: UnixStream) {
        custody::follow(&self.handle, predecessor);
    }

    /// Ends what may last for hours, as it should end.
    pub(crate) fn close_long(&self) {
        self.handle.with(|control| control.close_all_long());
    }
}
