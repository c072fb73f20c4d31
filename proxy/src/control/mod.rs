//! The only writer: services and their slots, one method an admin call, one after the other.
//!
//! Nothing here waits. What takes time stands in `flip` and in `health`, and comes back as another call.

mod bake;
mod canary;
mod closing;
mod draining;
mod durable;
mod endpoints;
mod flip;
mod flip_back;
mod journal;
mod judge;
mod lease;
mod preview;
mod progress;
mod proxy;
pub(crate) mod reload;
mod service;
pub mod store;
mod watching;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use config::admin::journal::Entry;
use config::admin::request::{self, ServiceSettings};
use config::admin::response::{self, LeaseHolder, Origin, ServiceStatus};
use config::admin::{AdminError, ErrorCode, Event};
use config::model::FileService;
use config::name::{EndpointAddr, ServiceName, Slot};
use tokio::sync::broadcast;

pub use canary::canary;
pub use closing::{pause, resume};
pub use endpoints::endpoints;
pub use flip::{delete, drain, flip, rollback, stage};
pub(crate) use flip_back::suspect;
use lease::Holder;
pub use preview::preview;
use service::{Service, SlotRun};
use store::{Restored, Saved, SavedProxy, Store};
use tokio::sync::mpsc;
pub(crate) use watching::Probed;

use crate::routing::live::Live;
use crate::routing::table::{Index, Routes, Table};
use crate::telemetry::counters::ServiceCounters;
use crate::upstream::run::{Run, RunId};
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
    /// What is being probed.
    watching: HashSet<(RunId, EndpointAddr)>,
}

/// Control and its listeners, shared by the tasks of the control thread.
pub struct Handle {
    /// The only writer.
    control: RefCell<Control>,
    /// Who listens.
    pub events: broadcast::Sender<Event>,
}

impl Handle {
    /// Returns the handle that tasks share.
    pub fn new(control: Control) -> Rc<Self> {
        Rc::new(Self { control: RefCell::new(control), events: broadcast::channel(EVENTS).0 })
    }

    /// Does something with control, and then tells the listeners what happened.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Control) -> T) -> T {
        let mut control = self.control.borrow_mut();
        let outcome = act(&mut control);
        for event in control.news.drain(..) {
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
    tokio::task::spawn_local(watching::take_resolves(Rc::clone(handle), reports.resolves));
    tokio::task::spawn_local(flip_back::take_suspects(Rc::clone(handle), reports.suspects));
    tokio::task::spawn_local(flip_back::take_snapshots(Rc::clone(handle)));
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
    /// Restores what was saved and returns the table that serves it.
    pub fn open(store: Store, restored: Restored, workers: usize) -> (Self, Live) {
        let live = Live::new(Table::empty(!restored.lost.is_empty()));
        let mut control = Self {
            services: BTreeMap::new(),
            index: Arc::default(),
            live: live.clone(),
            store,
            workers,
            shared: None,
            state_lost: restored.lost,
            restored_warnings: restored.warnings,
            config_problems: Vec::new(),
            proxy: restored.proxy,
            overruled: Vec::new(),
            journals: BTreeMap::new(),
            news: Vec::new(),
            watching: HashSet::new(),
        };
        for saved in restored.services {
            control.restore(saved);
        }
        control.restore_leases();
        match control.store.journals() {
            Ok((journals, warnings)) => {
                control.journals = journals;
                control.restored_warnings.extend(warnings);
            }
            Err(error) => control.restored_warnings.push(format!("the journals could not be read: {error}")),
        }
        for warning in &control.restored_warnings {
            tracing::warn!("{warning}");
        }
        (control, live)
    }

    fn restore(&mut self, saved: Saved) {
        let Saved { name, generation, origin, settings, routed, live, blue, green, maintenance } = saved;
        let mut service = Service::new(name.clone(), origin, self.workers);
        let now = Instant::now();
        service.generation = generation;
        service.settings = settings;
        service.maintenance = maintenance;
        service.routed = routed;
        for (slot, saved) in [(Slot::Blue, blue), (Slot::Green, green)] {
            let run = |saved| {
                let run = Run::of_service(slot, self.workers, Arc::clone(&service.counters));
                SlotRun::restored(run, saved, live == Some(slot), now)
            };
            *service.slot_mut(slot) = saved.map(run);
            if let Some(run) = service.slot(slot).filter(|_| live != Some(slot)) {
                run.run.drain();
            }
        }
        service.live = live.filter(|live| service.slot(*live).is_some());
        service.compile();
        let index = match routed {
            true => self.compile_index(&name, Some(&service.settings)),
            false => Ok(Arc::clone(&self.index)),
        };
        match index {
            Ok(index) => {
                self.services.insert(name, service);
                self.index = index;
                self.publish();
            }
            Err(error) => {
                // One service's fault must not take the others' routes away.
                self.restored_warnings.push(format!("saved state of {name}: {error}"));
                self.state_lost.push(name.to_string());
            }
        }
    }

    /// Takes up the leases that were given before; one of a service that is not there any more is of no use.
    fn restore_leases(&mut self) {
        let kept = self.store.leases().and_then(|leases| {
            for (name, saved) in leases {
                match self.services.get_mut(&name) {
                    Some(service) => service.lease = Holder::restored(saved, Instant::now()),
                    None => self.store.write_lease(&name, None)?,
                }
            }
            Ok(())
        });
        if let Err(error) = kept {
            self.restored_warnings.push(format!("the leases could not be read: {error}"));
        }
    }

    /// Joins what workers share; before that nothing is served.
    pub(crate) fn attach(&mut self, shared: Arc<Shared>) {
        self.shared = Some(shared);
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
        self.restored_warnings.iter().chain(&self.config_problems).cloned().chain(overruled).collect()
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
        });
        self.news.push(Event::Removed { service: name.clone() });
        Ok(runs)
    }

    /// Gives, keeps or takes back a service's lease; a service that is yet to be made can be leased too.
    ///
    /// # Errors
    /// `locked` with who holds it; `superseded` where what is to be renewed has ended.
    pub fn lease(&mut self, name: &ServiceName, lease: request::Lease) -> Result<response::Lease, AdminError> {
        let now = Instant::now();
        let holder = &mut self.entry(name, Origin::Admin).lease;
        let before = holder.saved();
        let id = match lease {
            request::Lease::Acquire { who, what } => holder.acquire(LeaseHolder { who, what, since: now_text() }, now),
            request::Lease::Renew { lease } => holder.renew(&lease, now).map(|()| lease),
            request::Lease::Release { lease } => {
                holder.release(&lease);
                Ok(String::new())
            }
        };
        let saved = holder.saved();
        if saved != before
            && let Err(error) = self.store.write_lease(name, saved.as_ref())
        {
            // It is in force all the same, until a restart of ours.
            tracing::warn!(%error, service = %name, "the lease could not be kept");
        }
        self.forget_unmade(name);
        Ok(response::Lease { lease: id?, expires_in: config::defaults::LEASE })
    }

    fn is_lost(&self, name: &ServiceName) -> bool {
        self.state_lost.iter().any(|lost| lost == name.as_str())
    }

    /// A service that was made anew, or removed, is lost no more.
    fn found_again(&mut self, name: &ServiceName) {
        self.state_lost.retain(|lost| lost != name.as_str());
    }

    /// A service that was leased and never made leaves nothing behind.
    fn forget_unmade(&mut self, name: &ServiceName) {
        let unmade = |service: &Service| service.generation == 0 && service.lease.current(Instant::now()).is_none();
        if self.services.get(name).is_some_and(unmade) {
            self.services.remove(name);
            // One that stays behind is removed at the next start.
            _ = self.store.write_lease(name, None);
            self.recompile();
        }
    }

    /// Applies the services of the file: each is live at once with the endpoints that it names. Returns the problems.
    pub fn apply_file(&mut self, services: &[FileService]) -> Vec<String> {
        let mut problems = Vec::new();
        let gone: Vec<ServiceName> = self
            .services
            .values()
            .filter(|known| known.origin == Origin::File && !services.iter().any(|service| service.name == known.name))
            .map(|known| known.name.clone())
            .collect();
        for name in gone {
            self.services.remove(&name);
            self.news.push(Event::Removed { service: name });
        }
        self.recompile();
        for wanted in services {
            if let Err(error) = self.apply_service(wanted) {
                problems.push(format!("service {}: {error}", wanted.name));
            }
        }
        self.publish();
        problems
    }

    fn apply_service(&mut self, wanted: &FileService) -> Result<(), AdminError> {
        let any = Change { if_match: IfMatch::Any, lease: None };
        self.admit(&wanted.name, &any, Origin::File)?;
        self.compile_index(&wanted.name, Some(&wanted.settings))?;
        let workers = self.workers;
        let service = self.entry(&wanted.name, Origin::File);
        let live = service.live.unwrap_or(Slot::Blue);
        let same = service.slot(live).is_some_and(|run| {
            run.health == wanted.health && run.endpoints.iter().map(|e| &e.endpoint.address).eq(&wanted.endpoints)
        });
        service.settings = wanted.settings.clone();
        service.routed = true;
        service.generation += 1;
        if !same {
            let stage = request::Stage {
                endpoints: wanted.endpoints.clone(),
                health: wanted.health.clone(),
                ..request::Stage::default()
            };
            let counted = Run::of_service(live, workers, Arc::clone(&service.counters));
            let mut run = SlotRun::staged(counted, stage, now_text(), Instant::now());
            run.was_live = true;
            for endpoint in &mut run.endpoints {
                endpoint.endpoint.healthy = true;
            }
            if let Some(old) = service.slot_mut(live).replace(run) {
                old.run.drain();
            }
            service.live = Some(live);
        }
        service.compile();
        self.recompile();
        Ok(())
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
            self.services.insert(name.clone(), Service::new(name.clone(), origin, self.workers));
            self.recompile();
        }
        self.services.get_mut(name).expect("it was put in just now")
    }

    /// Compiles the routes as they would be with one service's settings changed, or with that service gone.
    fn compile_index(&self, name: &ServiceName, settings: Option<&ServiceSettings>) -> Result<Arc<Index>, AdminError> {
        let mut routes: BTreeMap<&ServiceName, &ServiceSettings> =
            self.services.iter().map(|(name, service)| (name, &service.settings)).collect();
        match settings {
            Some(settings) => routes.insert(name, settings),
            None => routes.remove(name),
        };
        let routes: Vec<Routes<'_>> = routes
            .into_iter()
            .map(|(known, settings)| Routes {
                name: known,
                settings: (known == name || self.services.get(known).is_some_and(|service| service.routed))
                    .then_some(settings)
                    .filter(|settings| settings.is_routed()),
            })
            .collect();
        Index::compile(&routes).map(Arc::new).map_err(|taken| {
            let (host, path, holder) = (&taken.host, &taken.path, taken.holder(name));
            AdminError::new(ErrorCode::RouteTaken, format!("{host}{path} belongs to service {holder}"))
                .hint("give the service another --domain or --path")
        })
    }

    /// Compiles the routes after services came or went; they agreed before and agree now.
    fn recompile(&mut self) {
        let routes: Vec<Routes<'_>> = self
            .services
            .values()
            .map(|service| Routes {
                name: &service.name,
                settings: service.routed.then_some(&service.settings).filter(|settings| settings.is_routed()),
            })
            .collect();
        if let Ok(index) = Index::compile(&routes) {
            self.index = Arc::new(index);
            self.publish();
        }
    }

    /// Returns the table that says what is known now.
    fn table(&self) -> Table {
        let services = self.services.values().map(|service| Arc::clone(&service.compiled)).collect();
        let runs = self.services.values().flat_map(|s| [&s.blue, &s.green]).flatten().map(|run| run.run.id()).collect();
        Table::new(Arc::clone(&self.index), services, runs, !self.state_lost.is_empty())
    }

    fn publish(&self) {
        self.live.publish(self.table());
    }

    fn save(&mut self, saved: &Saved) -> Result<(), AdminError> {
        self.store.prepare(saved).map_err(|error| not_saved(&error))?;
        // It stands where the next flip's file stood: should the rename fail, that flip must not put this in force.
        self.services.get_mut(&saved.name).into_iter().for_each(|service| service.prepared = None);
        let written = self.store.commit(&saved.name);
        written.and_then(|()| self.store.sync()).map_err(|error| not_saved(&error))
    }
}

/// What was counted of a service since the start.
pub struct Counted {
    /// Its name.
    pub name: ServiceName,
    /// Its flips.
    pub flips: u64,
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
