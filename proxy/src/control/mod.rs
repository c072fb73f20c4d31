//! The only writer: services and their slots, one method an admin call, one after the other.
//!
//! Nothing here waits. What takes time stands in `flip` and in `health`, and comes back as another call.

mod alone;
mod bake;
mod brought;
mod canary;
mod closing;
mod compiled;
pub(crate) mod custody;
mod draining;
mod durable;
mod endpoints;
mod file;
mod flip;
mod flip_back;
mod journal;
mod judge;
mod kept_headers;
mod lease;
mod leasing;
mod preview;
mod progress;
mod proxy;
pub(crate) mod reload;
mod restore;
mod routes;
pub mod saved;
mod secure;
pub(crate) mod secured;
mod service;
mod shown;
mod sidecars;
mod slot;
pub mod store;
mod watching;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use config::admin::journal::Entry;
use config::admin::request::ServiceSettings;
use config::admin::response::{Origin, ServiceStatus};
use config::admin::{AdminError, ErrorCode, Event};
use config::name::{EndpointAddr, ServiceName};
use tokio::sync::{broadcast, watch};

pub use canary::canary;
pub use closing::{pause, resume};
use custody::{Custody, Predecessor};
pub use endpoints::endpoints;
pub use flip::{delete, drain, flip, rollback, stage};
pub(crate) use flip_back::suspect;
pub use preview::preview;
use saved::{Saved, SavedProxy};
use service::Service;
use store::Store;
use tokio::sync::mpsc;
pub(crate) use watching::Probed;

use crate::routing::live::Live;
use crate::routing::table::Index;
use crate::telemetry::counters::ServiceCounters;
use crate::telemetry::panics;
use crate::tls;
use crate::upstream::run::{Run, RunId};
use crate::webhook::Outbox;
use crate::worker::{Resolve, Shared};

/// Events that a slow listener may fall behind by.
const EVENTS: usize = 1024;

/// Under which conditions a change is wanted.
#[derive(Debug, Clone)]
pub struct Change {
    /// The generation that the caller has seen.
    pub if_match: IfMatch,
    /// The lease it acts under.
    pub lease: Option<String>,
}

/// The generation that a change is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMatch {
    /// Whichever it is.
    Any,
    /// This one alone.
    Generation(u64),
}

/// Everything that can be changed while the proxy runs.
pub struct Control {
    services: BTreeMap<ServiceName, Service>,
    index: Arc<Index>,
    live: Live,
    store: Store,
    workers: usize,
    shared: Option<Arc<Shared>>,
    state_lost: Vec<String>,
    restored_warnings: Vec<String>,
    config_problems: Vec<String>,
    /// What the admin API set of the proxy itself.
    proxy: SavedProxy,
    /// What of it the file has its own word on.
    overruled: Vec<String>,
    journals: BTreeMap<ServiceName, Vec<Entry>>,
    /// What happened and was not told yet.
    news: Vec<Event>,
    /// What is known of certificates that come by themselves.
    secured: Arc<secured::Secured>,
    /// What TLS was told of clients that have to show certificates.
    guarded: std::cell::RefCell<Vec<tls::Guarded>>,
    /// What is being probed.
    watching: HashSet<(RunId, EndpointAddr)>,
}

/// Control and its listeners, shared by the tasks of the control thread.
pub struct Handle {
    /// The only writer.
    control: RefCell<Control>,
    /// Who listens.
    pub events: broadcast::Sender<Event>,
    /// Who is told what the proxy did by itself.
    pub(crate) webhook: Outbox,
    /// How far a hand-over to a successor is.
    pub(crate) custody: watch::Sender<Custody>,
    /// Why the last one came to nothing.
    pub(crate) kept_because: watch::Sender<String>,
    /// The process before us.
    pub(crate) predecessor: Predecessor,
}

impl Handle {
    /// Returns the handle that tasks share.
    pub(crate) fn new(control: Control, custody: watch::Sender<Custody>) -> Rc<Self> {
        let webhook = Outbox::new(control.store.notices());
        let (control, events) = (RefCell::new(control), broadcast::channel(EVENTS).0);
        let (kept_because, predecessor) = (watch::Sender::default(), Predecessor::default());
        Rc::new(Self { control, events, webhook, custody, kept_because, predecessor })
    }

    /// Does something with control, and then tells the listeners what happened.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Control) -> T) -> T {
        let mut control = self.control.borrow_mut();
        let outcome = act(&mut control);
        for event in std::mem::take(&mut control.news) {
            // What we do while we only finish our last requests is nobody's news: the successor judges for itself.
            let notice = control.notice(&event).filter(|_| *self.custody.borrow() < Custody::Given);
            notice.into_iter().for_each(|notice| self.webhook.put(notice));
            // Nobody listening is no fault.
            _ = self.events.send(event);
        }
        outcome
    }
}

/// What workers tell control.
pub(crate) struct Reports {
    /// Names to look up anew.
    pub(crate) resolves: mpsc::UnboundedReceiver<Resolve>,
    /// Runs that failed a request in their bake.
    pub(crate) suspects: mpsc::UnboundedReceiver<RunId>,
}

/// Begins the health checks of restored services, and takes what workers report.
pub(crate) fn start(handle: &Rc<Handle>, reports: Reports) {
    watching::watch_all(handle);
    shown::watch_all(handle);
    let Reports { mut resolves, mut suspects } = reports;
    let taker = Rc::clone(handle);
    spawn("looking names up", async move || watching::take_resolves(&taker, &mut resolves).await);
    let taker = Rc::clone(handle);
    spawn("looking into failures", async move || flip_back::take_suspects(&taker, &mut suspects).await);
    let taker = Rc::clone(handle);
    spawn("keeping figures", async move || flip_back::take_snapshots(&taker).await);
}

/// Begins a task that must go on whatever happens in it.
fn spawn(what: &'static str, mut task: impl AsyncFnMut() + 'static) {
    tokio::task::spawn_local(async move { panics::enduring(what, async || task().await).await });
}

fn now_text() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

fn not_saved(error: &io::Error) -> AdminError {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on the disk of the state folder",
        _ => "look at the state folder: its disk, its owner and its mode",
    };
    AdminError::new(ErrorCode::NotSaved, format!("the state could not be saved: {error}; nothing was changed"))
        .hint(hint)
}

impl Control {
    /// Joins what workers share; before that nothing is served.
    pub(crate) fn attach(&mut self, shared: Arc<Shared>) {
        self.shared = Some(shared);
        self.guard();
    }

    /// Returns every service.
    pub fn services(&self) -> Vec<ServiceStatus> {
        let now = Instant::now();
        self.services.values().map(|service| service.status(now)).collect()
    }

    /// Returns one service.
    ///
    /// # Errors
    /// `unknown_service`.
    pub fn service(&self, name: &ServiceName) -> Result<ServiceStatus, AdminError> {
        self.services.get(name).map(|service| service.status(Instant::now())).ok_or_else(|| unknown(name))
    }

    /// Returns what was counted of each service.
    pub fn counted(&self) -> Vec<Counted> {
        let made = self.services.values().filter(|service| service.generation > 0);
        let counted = |service: &Service| Counted {
            name: service.name.clone(),
            flips: service.flips,
            own: service.counters.owned(),
            files: service.counters.files(),
            drains: service.drains,
            requests: Arc::clone(&service.counters),
        };
        made.map(counted).collect()
    }

    /// Returns saved services that could not be read.
    pub fn state_lost(&self) -> Vec<String> {
        self.state_lost.clone()
    }

    /// Returns what someone should look at.
    pub fn warnings(&self) -> Vec<String> {
        let overruled = self.overruled.iter();
        let overruled =
            overruled.map(|key| format!("{key} was set by the admin API; what bgproxy.toml says is in force"));
        let unsynced = self.store.unsynced().map(|why| {
            format!("what was changed last is in force and may not outlive a power cut: the state folder could not be synced: {why}")
        });
        self.restored_warnings.iter().chain(&self.config_problems).cloned().chain(overruled).chain(unsynced).collect()
    }

    /// Notes why the configuration file is refused; nothing where it is in force.
    pub fn set_config_problems(&mut self, problems: Vec<String>) {
        self.news.push(Event::Reloaded { problems: problems.clone() });
        self.config_problems = problems;
    }

    /// Creates a service or changes its routes.
    ///
    /// # Errors
    /// Where another has the route, the change is stale or locked, or it can't be saved; nothing is changed then.
    pub fn put(
        &mut self,
        name: &ServiceName,
        settings: ServiceSettings,
        change: &Change,
    ) -> Result<ServiceStatus, AdminError> {
        self.admit(name, change, Origin::Admin)?;
        let settings = self.complete(name, settings);
        let index = self.compile_index(name, Some(&settings))?;
        let mut saved = self
            .services
            .get(name)
            .map_or_else(|| Service::new(name.clone(), Origin::Admin, self.workers).saved(), Service::saved);
        saved.generation += 1;
        saved.settings = settings.clone();
        saved.routed = true;
        self.save(&saved)?;
        let service = self.entry(name, Origin::Admin);
        service.generation = saved.generation;
        service.settings = settings;
        service.routed = true;
        service.prepared = None;
        service.compile();
        self.index = index;
        self.found_again(name);
        self.publish();
        self.news.push(Event::Changed { service: name.clone(), generation: saved.generation });
        self.service(name)
    }

    /// Takes a service's routes away and forgets it; returns its runs, which drain.
    ///
    /// # Errors
    /// Where it is unknown, stale or locked, or can't be forgotten on disk.
    pub fn delete(&mut self, name: &ServiceName, change: &Change) -> Result<Vec<Arc<Run>>, AdminError> {
        if !self.services.contains_key(name) && !self.is_lost(name) {
            return Err(unknown(name));
        }
        self.admit(name, change, Origin::Admin)?;
        let index = self.compile_index(name, None)?;
        self.store.remove(name).map_err(|error| not_saved(&error))?;
        self.journals.remove(name);
        let gone = self.services.remove(name);
        self.found_again(name);
        self.index = index;
        self.publish();
        // Who waits learns that there is nothing to wait for.
        gone.iter().filter_map(|service| service.pause.as_ref()).for_each(|pause| pause.gate.open());
        let slots = gone.iter().flat_map(|service| [&service.blue, &service.green]).flatten();
        let runs: Vec<_> = slots.map(|slot| Arc::clone(&slot.run)).collect();
        runs.iter().for_each(|run| {
            run.drain();
            run.end_replays();
            run.end_assets();
        });
        self.news.push(Event::Removed { service: name.clone() });
        Ok(runs)
    }

    fn is_lost(&self, name: &ServiceName) -> bool {
        self.state_lost.iter().any(|lost| lost == name.as_str())
    }

    /// A service that was made anew, or removed, is lost no more.
    fn found_again(&mut self, name: &ServiceName) {
        self.state_lost.retain(|lost| lost != name.as_str());
    }

    /// Returns settings with what they leave open taken from those in force.
    fn complete(&self, name: &ServiceName, settings: ServiceSettings) -> ServiceSettings {
        match self.services.get(name) {
            Some(service) => settings.or(&service.settings),
            None => settings,
        }
    }

    /// Checks that a change is allowed now.
    fn admit(&mut self, name: &ServiceName, change: &Change, origin: Origin) -> Result<(), AdminError> {
        let now = Instant::now();
        let Some(service) = self.services.get_mut(name) else {
            return match change.if_match {
                IfMatch::Any | IfMatch::Generation(0) => Ok(()),
                IfMatch::Generation(_) => Err(unknown(name)),
            };
        };
        if service.generation > 0 && service.origin != origin {
            let whose = match service.origin {
                Origin::File => "bgproxy.toml",
                Origin::Admin => "the admin API",
            };
            return Err(AdminError::new(ErrorCode::OtherOrigin, format!("{name} belongs to {whose}")));
        }
        service.lease.check(change.lease.as_deref(), now)?;
        match change.if_match {
            IfMatch::Generation(seen) if seen != service.generation => Err(AdminError::new(
                ErrorCode::Stale,
                format!("{name} is at generation {}, not {seen}: someone changed it", service.generation),
            )),
            _ => Ok(()),
        }
    }

    fn entry(&mut self, name: &ServiceName, origin: Origin) -> &mut Service {
        if !self.services.contains_key(name) {
            let mut service = Service::new(name.clone(), origin, self.workers);
            service.secured = Arc::clone(&self.secured);
            self.services.insert(name.clone(), service);
            self.recompile();
        }
        self.services.get_mut(name).expect("it was put in just now")
    }

    fn save(&mut self, saved: &Saved) -> Result<(), AdminError> {
        self.store.prepare(saved).map_err(|error| not_saved(&error))?;
        // It stands where the next flip's file stood: should the rename fail, that flip must not put this in force.
        self.services.get_mut(&saved.name).into_iter().for_each(|service| service.prepared = None);
        self.store.commit(&saved.name).map_err(|error| not_saved(&error))?;
        self.store.sync();
        Ok(())
    }
}

/// What was counted of a service since the start.
pub struct Counted {
    /// Its name.
    pub name: ServiceName,
    /// Its flips.
    pub flips: u64,
    /// Answers that no slot had a part in, by class of status.
    pub own: [u64; 5],
    /// Of these, those out of folders.
    pub files: u64,
    /// Its drains that ended.
    pub drains: u64,
    /// Its requests.
    pub requests: Arc<ServiceCounters>,
}

fn unknown(name: &ServiceName) -> AdminError {
    AdminError::new(ErrorCode::UnknownService, format!("there is no service {name}"))
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
