//! The compiled routing table: host and path to service, and each service's live run.

use std::sync::Arc;

use config::admin::request::ServiceSettings;
use config::name::{HostPattern, PathPrefix, ServiceName};
use config::options::ServiceOptions;

use rustc_hash::FxHashMap;

use super::canary::Canary;
use super::closed::Closed;
use super::preview::Preview;
use super::rate::{Rate, Rates};
use super::secure::Secure;
pub use super::target::{Endpoint, Other, Target};
use super::waiting::Waiting;
use crate::edge::Edge;
use crate::telemetry::counters::ServiceCounters;
use crate::upstream::run::RunId;

/// Everything a request needs to find its way, in one immutable piece.
///
/// The index and the services are kept apart, so that a flip copies a list of pointers and not ten thousand domains.
#[derive(Clone)]
pub struct Table {
    index: Arc<Index>,
    services: Vec<Arc<Service>>,
    /// Runs that may still have requests in flight or be flipped back to: their idle connections are kept.
    runs: Vec<RunId>,
    /// Saved state could not be read: what has no route may have had one.
    state_lost: bool,
}

/// A service, as requests see it.
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// What takes new requests; `None` before the first flip.
    pub live: Option<Target>,
    /// The run that answers what the live one fails, while the bake lasts.
    pub back: Option<Target>,
    /// What still has what the live one lacks, for a while after a flip.
    pub other: Option<Box<Other>>,
    /// The idle slot's share of the visitors.
    pub canary: Option<Box<Canary>>,
    /// The idle slot, for whoever has a link.
    pub preview: Option<Box<Preview>>,
    /// Cookies and links that we signed for it may be out there, whether or not anything is shown now.
    pub has_signed: bool,
    /// Why it takes no requests, where it is closed on purpose.
    pub closed: Option<Box<Closed>>,
    /// What https is to it; `None`: it is served by whatever comes.
    pub secure: Option<Box<Secure>>,
    /// Whether a route's prefix is taken off.
    pub strip_path: bool,
    /// How its requests are served.
    pub options: Arc<ServiceOptions>,
    /// What is done before its application; `None`: nothing.
    pub edge: Option<Arc<Edge>>,
    /// Requests that wait for it to come back.
    pub waiting: Arc<Waiting>,
    /// What each client address has used of its rate.
    pub rates: Arc<Rates>,
    /// What is counted of it.
    pub counters: Arc<ServiceCounters>,
}

impl Service {
    /// Returns a service without a live run, whose options are the defaults.
    pub fn new(name: ServiceName) -> Self {
        Self {
            name,
            live: None,
            back: None,
            other: None,
            canary: None,
            preview: None,
            has_signed: false,
            closed: None,
            secure: None,
            strip_path: false,
            options: Arc::default(),
            edge: None,
            waiting: Arc::default(),
            rates: Arc::default(),
            counters: Arc::new(ServiceCounters::new(1)),
        }
    }

    /// Returns the rate of one client address, where it has one.
    pub fn rate(&self) -> Option<Rate> {
        let per_second = self.options.requests_per_second?;
        Some(Rate { per_second, burst: self.options.burst.unwrap_or(per_second) })
    }
}

/// What is known about the routes of one service.
pub struct Routes<'s> {
    /// The service.
    pub name: &'s ServiceName,
    /// Its routes; `None`: it has none yet, and keeps its place.
    pub settings: Option<&'s ServiceSettings>,
}

/// Routes, compiled. A fast hash will do: its keys are the operator's, a visitor only asks for them.
#[derive(Default)]
pub struct Index {
    exact: FxHashMap<String, Paths>,
    wildcard: FxHashMap<String, Paths>,
    any: Paths,
}

/// Path prefixes of one host, the longest first.
#[derive(Default)]
struct Paths(Vec<(PathPrefix, usize)>);

/// Two services that want the same route.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host}{path} is wanted by {} and by {}", services[0], services[1])]
pub struct Taken {
    /// The host of the route.
    pub host: HostPattern,
    /// Its path.
    pub path: PathPrefix,
    /// Both.
    pub services: [ServiceName; 2],
}

impl Taken {
    /// Returns whom the route belongs to, where one of the two asks for it.
    pub fn holder(&self, asking: &ServiceName) -> &ServiceName {
        if self.services[0] == *asking { &self.services[1] } else { &self.services[0] }
    }
}

/// A request's way.
pub struct Matched<'t> {
    /// The service.
    pub service: &'t Arc<Service>,
    /// The prefix that took it.
    pub prefix: &'t PathPrefix,
}

impl Index {
    /// Compiles routes; the place of a service in `routes` is its place in the table's services.
    ///
    /// # Errors
    /// Where two services want the same route.
    pub fn compile(routes: &[Routes<'_>]) -> Result<Self, Taken> {
        let mut index = Self::default();
        for (service, Routes { name, settings }) in routes.iter().enumerate() {
            let Some(settings) = settings else { continue };
            let any = [HostPattern::Any];
            let domains = if settings.domains.is_empty() { &any[..] } else { &settings.domains };
            let root = [PathPrefix::root()];
            let paths = if settings.paths.is_empty() { &root[..] } else { &settings.paths };
            for host in domains {
                for path in paths {
                    if let Some(holder) = index.paths_mut(host).insert(path, service) {
                        let services = [routes[holder].name.clone(), (*name).clone()];
                        return Err(Taken { host: host.clone(), path: path.clone(), services });
                    }
                }
            }
        }
        for (service, Routes { name, settings }) in routes.iter().enumerate() {
            if settings.is_none() {
                continue;
            }
            // Containers of the same network reach the live slot by this name, whatever its public domains are.
            index.exact.entry(format!("{name}.internal")).or_default().insert(&PathPrefix::root(), service);
        }
        Ok(index)
    }

    fn paths_mut(&mut self, host: &HostPattern) -> &mut Paths {
        match host {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Wildcard(name) => self.wildcard.entry(name.clone()).or_default(),
            HostPattern::Any => &mut self.any,
        }
    }

    /// Finds the most specific host that has a prefix of the path: exact, then wildcards from the longest, then any.
    fn find(&self, host: &str, path: &str) -> Option<&(PathPrefix, usize)> {
        if let Some(found) = self.exact.get(host).and_then(|paths| paths.find(path)) {
            return Some(found);
        }
        if !self.wildcard.is_empty() {
            let mut rest = host;
            while let Some((_, suffix)) = rest.split_once('.') {
                if let Some(found) = self.wildcard.get(suffix).and_then(|paths| paths.find(path)) {
                    return Some(found);
                }
                rest = suffix;
            }
        }
        self.any.find(path)
    }
}

impl Paths {
    /// Adds a prefix; returns the service that has it already, where that is another.
    fn insert(&mut self, path: &PathPrefix, service: usize) -> Option<usize> {
        if let Some((_, holder)) = self.0.iter().find(|(known, _)| known == path) {
            return (*holder != service).then_some(*holder);
        }
        let length = path.trimmed().len();
        let at = self.0.partition_point(|(known, _)| known.trimmed().len() >= length);
        self.0.insert(at, (path.clone(), service));
        None
    }

    fn find(&self, path: &str) -> Option<&(PathPrefix, usize)> {
        self.0.iter().find(|(prefix, _)| prefix.takes(path))
    }
}

impl Table {
    /// Returns a table without routes; with `state_lost` every request is answered 503, for it may have had one.
    pub fn empty(state_lost: bool) -> Self {
        Self { index: Arc::default(), services: Vec::new(), runs: Vec::new(), state_lost }
    }

    /// Puts a table together; `services` stand in the order in which the index was compiled.
    pub fn new(index: Arc<Index>, services: Vec<Arc<Service>>, runs: Vec<RunId>, state_lost: bool) -> Self {
        Self { index, services, runs, state_lost }
    }

    /// Finds the service for a host (lower case, without port) and a raw path.
    pub fn find(&self, host: &str, path: &str) -> Option<Matched<'_>> {
        let (prefix, service) = self.index.find(host, path)?;
        Some(Matched { service: self.services.get(*service)?, prefix })
    }

    /// Tells whether saved state could not be read.
    pub fn state_lost(&self) -> bool {
        self.state_lost
    }

    /// Tells whether a run's idle connections are still of use.
    pub fn has_run(&self, run: RunId) -> bool {
        self.runs.contains(&run)
    }
}

/// Tells whether dot segments, plain or percent-encoded, lead out of the prefix that took the path.
///
/// An encoded slash counts as a slash: some applications decode it before they look at the dots.
pub(crate) fn escapes(path: &str, prefix: &PathPrefix) -> bool {
    // One look at what nearly every path is: without either.
    if !path.as_bytes().windows(2).any(|pair| pair == b".." || pair == b"%2") {
        return false;
    }
    let decoded = path.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%2F", "/");
    if !decoded.contains("..") {
        return false;
    }
    let home = prefix.trimmed().split('/').skip(1).count();
    let mut depth = 0_usize;
    for segment in decoded.split('/').skip(1) {
        match segment {
            "" | "." => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if segment == ".." && depth < home {
            return true;
        }
    }
    false
}
