//! What is known of every domain that certificates are wanted for: which is due, what became of its orders, what is shown and told.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::acme::AcmeSettings;
use config::admin::response::DomainTls;
use config::certificate::Certificate;
use rustc_hash::FxBuildHasher;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

use super::demand::{self, Demand};
use super::failure::Failure;
use super::office::Office;
use super::order::{Desk, Issued};
use super::schedule::{BackOff, Case, Life, Spread};
use super::shelf::{Found, Shelf};
use crate::control::reload::Order;
use crate::control::secured::Secured;
use crate::routing::secure::covers;

/// How long nothing is looked at, though nothing is told: own certificates come and go, and clocks jump.
pub(super) const LOOK: Duration = Duration::from_secs(30);
/// Orders under way at once.
const AT_ONCE: usize = 4;

/// A domain that certificates are wanted for.
#[derive(Default)]
struct Domain {
    case: Case,
    shown: Option<Certificate>,
    problem: Option<String>,
    /// Someone asks for it now.
    is_busy: bool,
    /// Orders so far, so that each way of proof has its turn.
    tries: usize,
}

/// What became of a task.
pub(super) struct Ended {
    domain: String,
    /// The settings that it began with.
    round: u64,
    what: What,
}

enum What {
    Order(Box<Result<Issued, Failure>>),
    Asked(Option<((SystemTime, SystemTime), Duration)>),
    /// Whoever knows said that it may have none, or could not say.
    Denied {
        is_known: bool,
    },
}

/// What is known of all domains.
pub(super) struct Book<'o> {
    office: &'o Office,
    shelf: Arc<Shelf>,
    settings: AcmeSettings,
    domains: BTreeMap<String, Domain>,
    /// What visitors named.
    demand: Demand,
    /// What was wanted when it was looked last.
    wanted: BTreeSet<String>,
    /// What goes wrong with the authority itself.
    authority: BackOff,
    /// Why nobody listens for TLS.
    closed: Option<String>,
    /// Counts the settings.
    round: u64,
    report: mpsc::UnboundedSender<Ended>,
    /// What is under way; it ends with the book.
    pub(super) orders: JoinSet<()>,
    account: Arc<Mutex<()>>,
    records: Arc<Mutex<()>>,
}

impl<'o> Book<'o> {
    pub(super) fn new(office: &'o Office, settings: AcmeSettings, report: mpsc::UnboundedSender<Ended>) -> Self {
        Self {
            office,
            shelf: Arc::new(Shelf::new(&office.shared.spool)),
            settings,
            domains: BTreeMap::new(),
            demand: Demand::default(),
            wanted: BTreeSet::new(),
            authority: BackOff::default(),
            closed: None,
            round: 0,
            report,
            orders: JoinSet::new(),
            account: Arc::default(),
            records: Arc::default(),
        }
    }

    /// Takes up what is wanted now. What is not is neither shown nor renewed; its file stays, should it come back.
    pub(super) fn look(&mut self) {
        let mut wanted = self.office.handle.with(|control| control.wants_certificates());
        self.take_up_wishes(&mut wanted);
        let own = self.own_names();
        let wanted: BTreeSet<String> =
            wanted.into_iter().filter(|domain| !own.iter().any(|name| covers(name, domain))).collect();
        self.domains.retain(|domain, _| wanted.contains(domain));
        for domain in &wanted {
            if !self.domains.contains_key(domain) {
                let found = self.shelf.certificate(self.settings.directory(), domain);
                self.domains.insert(domain.clone(), Domain::found(found));
            }
        }
        self.wanted = wanted;
    }

    /// Takes up what visitors name, where they may.
    fn take_up_wishes(&mut self, wanted: &mut BTreeSet<String>) {
        let (wishes, now) = (self.office.shared.tls.wishes(), self.office.clock.now());
        wishes.open(self.settings.on_demand.is_some());
        if self.settings.on_demand.is_none() {
            self.demand = Demand::default();
            return;
        }
        if self.settings.dns_hook.is_none() {
            // Each host below it has its own.
            wanted.retain(|domain| !domain.starts_with("*."));
        }
        let takes = |host: &str| self.office.handle.with(|control| control.takes_unnamed(host));
        for host in wishes.hosts() {
            if !self.demand.has(&host) && takes(&host) {
                self.demand.take_up(&host, now);
            }
        }
        wanted.extend(self.demand.retain(takes).cloned());
    }

    /// Returns the names of certificates that were brought, as far as they are good.
    fn own_names(&self) -> BTreeSet<String> {
        let told = self.office.shared.tls.told();
        let now = self.office.clock.now();
        let own = told.certificates.iter().chain(told.brought.values());
        own.filter(|one| one.not_before <= now && now < one.not_after).flat_map(|one| one.names.clone()).collect()
    }

    /// Listens for TLS where nobody does: an authority may look there, and visitors are to come.
    pub(super) async fn open_port(&mut self) {
        if self.wanted.is_empty() || !self.office.shared.tls.told().addresses.is_empty() {
            self.closed = None;
            return;
        }
        let (reply, answer) = oneshot::channel();
        // Without control there is nobody to tell.
        _ = self.office.orders.send(Order::OpenTls(reply));
        let closed = answer.await.unwrap_or(Ok(())).err();
        if let Some(why) = closed.as_ref().filter(|_| closed != self.closed) {
            tracing::warn!(why, "certificates are to come, and nobody can listen for TLS");
        }
        self.closed = closed;
    }

    /// Begins what is due, and returns when something is due next.
    pub(super) fn begin(&mut self) -> SystemTime {
        let now = self.office.clock.now();
        let mut busy = self.domains.values().filter(|domain| domain.is_busy).count();
        let mut next = now + LOOK;
        // What services name comes before what visitors do.
        let (demanded, named): (Vec<_>, Vec<_>) = self.wanted.iter().cloned().partition(|name| self.demand.has(name));
        for name in named.into_iter().chain(demanded) {
            let ways = self.settings.challenges(name.starts_with("*."));
            let Some(domain) = self.domains.get_mut(&name) else { continue };
            if domain.is_busy {
                continue;
            }
            if ways.is_empty() {
                domain.problem = Some("a wildcard is proved by DNS alone, and there is no `dns_hook`".to_owned());
                continue;
            }
            let due = domain.case.due(&self.authority);
            let asks = domain.case.asks(&self.authority).filter(|_| due > now);
            let at = asks.map_or(due, |asks| asks.min(due));
            if at > now || busy == AT_ONCE {
                next = next.min(at.max(now + Duration::from_secs(1)));
                continue;
            }
            let is_order = due <= now;
            let who_knows = self.settings.on_demand.clone().filter(|_| is_order && self.demand.has(&name));
            if who_knows.is_some()
                && domain.shown.is_none()
                && let Err(at) = self.demand.order(self.settings.on_demand_per_hour(), now)
            {
                let most = self.settings.on_demand_per_hour();
                domain.problem = Some(format!("{most} hosts were given certificates on demand within an hour"));
                next = next.min(at.max(now + Duration::from_secs(1)));
                continue;
            }
            busy += 1;
            domain.is_busy = true;
            let before = domain.shown.clone();
            let way = ways[domain.tries % ways.len()];
            domain.tries += usize::from(is_order);
            let is_another = domain.case.life.as_ref().is_some_and(|life| life.is_of_another);
            let (desk, report, round) = (self.desk(), self.report.clone(), self.round);
            self.orders.spawn_local(async move {
                let permitted = match &who_knows {
                    Some(url) => demand::permits(url, &name).await,
                    None => Ok(true),
                };
                let what = match (permitted, is_order, &before) {
                    (Ok(true), false, Some(shown)) => What::Asked(desk.ask(shown).await),
                    (Ok(true), ..) => {
                        let before = before.as_ref().filter(|_| !is_another);
                        What::Order(Box::new(desk.get(&name, way, before).await))
                    }
                    (Ok(false), ..) => What::Denied { is_known: true },
                    // What it has is not taken away because nobody knows.
                    (Err(why), _, Some(_)) => What::Order(Box::new(Err(Failure::of_domain(why)))),
                    (Err(why), _, None) => {
                        tracing::warn!(domain = name, why, "nobody can say whether a host may have a certificate");
                        What::Denied { is_known: false }
                    }
                };
                // The control thread may be at its end.
                _ = report.send(Ended { domain: name, round, what });
            });
        }
        next
    }

    fn desk(&self) -> Desk {
        Desk {
            settings: self.settings.clone(),
            shelf: Arc::clone(&self.shelf),
            answers: Arc::clone(self.office.shared.tls.answers()),
            account: Arc::clone(&self.account),
            records: Arc::clone(&self.records),
        }
    }

    /// Notes what became of a task.
    pub(super) fn end(&mut self, Ended { domain: name, round, what }: Ended) {
        let now = self.office.clock.now();
        let is_stale = round != self.round;
        if let What::Order(outcome) = &what {
            self.office.shared.tls.count_order(outcome.is_ok());
        }
        let Some(domain) = self.domains.get_mut(&name) else { return };
        if is_stale {
            // It was asked for by other settings, which have begun anew.
            return;
        }
        domain.is_busy = false;
        match what {
            What::Asked(told) => domain.case.told(now, told),
            What::Denied { is_known } => {
                tracing::info!(domain = name, is_known, "a host that a visitor named gets no certificate");
                if domain.shown.is_none() {
                    self.demand.uncount();
                }
                self.domains.remove(&name);
                self.demand.deny(&name, is_known, now);
            }
            What::Order(outcome) => match *outcome {
                Ok(Issued { certificate, chain, key }) => {
                    self.authority = BackOff::default();
                    let kept = self.shelf.keep_certificate(self.settings.directory(), &name, &chain, &key);
                    let ends = humantime::format_rfc3339_seconds(certificate.not_after).to_string();
                    tracing::info!(domain = name, not_after = ends, "a certificate came");
                    *domain = Domain::found(Some(Found { certificate, is_of_another: false }));
                    if let Err(error) = kept {
                        tracing::error!(domain = name, %error, "a certificate can't be kept; it is shown until the proxy ends");
                        domain.problem = Some(format!("it can't be kept in the state folder: {error}"));
                    }
                    self.office.handle.with(|control| control.tell_certificate(&name, Some(ends), None));
                }
                Err(Failure { what, is_of_all, wait }) => {
                    tracing::warn!(domain = name, why = what, "no certificate came");
                    let back_off = if is_of_all { &mut self.authority } else { &mut domain.case.back_off };
                    // Several that were under way have failed of one cause.
                    if !is_of_all || back_off.until.is_none_or(|until| until <= now) {
                        back_off.failed(now, wait, chance(&(&name, back_off.failures, now)));
                    }
                    if !is_of_all {
                        self.authority = BackOff::default();
                    }
                    domain.problem = Some(what.clone());
                    self.office.handle.with(|control| control.tell_certificate(&name, None, Some(what)));
                }
            },
        }
    }

    /// Takes up other settings.
    pub(super) fn settle(&mut self, settings: AcmeSettings) {
        let only_redirect = AcmeSettings { redirect: settings.redirect, ..self.settings.clone() };
        let is_same = only_redirect == settings;
        self.settings = settings;
        if !is_same {
            self.demand = Demand::default();
            self.round += 1;
            self.authority = BackOff::default();
            self.domains.clear();
        }
    }

    /// Tries again what failed: what was wrong may be right now.
    pub(super) fn hurry(&mut self) {
        self.authority.hurry();
        self.domains.values_mut().for_each(|domain| domain.case.back_off.hurry());
    }

    /// Shows what came, and tells control.
    pub(super) fn tell(&self) {
        let (tls, now) = (&self.office.shared.tls, self.office.clock.now());
        let issued: BTreeMap<String, Certificate> =
            self.domains.iter().filter_map(|(name, domain)| Some((name.clone(), domain.shown.clone()?))).collect();
        if tls.told().issued != issued {
            tls.issue(|shown| *shown = issued);
        }
        // Whoever waits for more than this waits for something.
        tls.wishes().decide(|host| match self.domains.get(host) {
            None => true,
            Some(domain) => {
                let is_late = domain.case.due(&self.authority) > now;
                !domain.is_busy && (domain.shown.is_some() || domain.problem.is_some() || is_late)
            }
        });
        let good = |one: &&Certificate| one.not_before <= now && now < one.not_after;
        let mut names = self.own_names();
        names.extend(
            self.domains
                .values()
                .filter_map(|domain| domain.shown.as_ref())
                .filter(good)
                .flat_map(|one| one.names.clone()),
        );
        let domains = self.domains.iter().map(|(name, domain)| (name.clone(), self.status(name, domain, now)));
        let secured = Secured {
            names,
            domains: domains.collect(),
            redirect: self.settings.redirect != Some(false),
            port: tls.told().addresses.first().map(std::net::SocketAddr::port),
        };
        self.office.handle.with(|control| control.secure(secured));
    }

    fn status(&self, name: &str, domain: &Domain, now: SystemTime) -> DomainTls {
        let text = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
        let next = domain.case.due(&self.authority);
        let waiting = (domain.shown.is_none() && domain.problem.is_none()).then(|| "it is being asked for".to_owned());
        DomainTls {
            domain: name.to_owned(),
            not_after: domain.shown.as_ref().map(|shown| text(shown.not_after)),
            problem: self.closed.clone().or(domain.problem.clone()).or(waiting),
            next: (!domain.is_busy && next > now).then(|| text(next)),
        }
    }
}

impl Domain {
    fn found(found: Option<Found>) -> Self {
        let mut domain = Self::default();
        if let Some(Found { certificate, is_of_another }) = found {
            let life = Life { from: certificate.not_before, to: certificate.not_after, is_of_another };
            domain.case.got(life, chance(&certificate.certified.cert.first().map(|der| der.to_vec())));
            domain.shown = Some(certificate);
        }
        domain
    }
}

/// Returns a number that is the same for the same, and unlike that of others.
fn chance(of: &impl std::hash::Hash) -> Spread {
    let hash = FxBuildHasher.hash_one(of);
    f64::from(u32::try_from(hash >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
