//! One service as control knows it: two slots, which is live, and what was measured since the last staging.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::admin::Event;
use config::admin::request::{ServiceSettings, Stage};
use config::admin::response::{
    Counts, EndpointStatus, LongLived, MaintenanceStatus, Origin, ServiceStatus, SlotState, SlotStatus, Slots,
};
use config::edge::OldAssets;
use config::health::HealthCheck;
use config::name::{EndpointAddr, ServiceName, Slot};
use config::options::ServiceOptions;

use super::bake::{Bake, Lately};
use super::canary::Canary;
use super::closing::Pause;
use super::kept_headers::KeptHeaders;
use super::lease::Holder;
use super::preview::Preview;
use super::saved::{Saved, SavedMaintenance, SavedSlot};
use super::secured::Secured;
use crate::edge::Edge;
use crate::health::Streak;
use crate::routing;
use crate::routing::closed::{Closed, Maintenance};
use crate::routing::table::{Endpoint, Other, Service as Compiled, Target};
use crate::telemetry::counters::ServiceCounters;
use crate::upstream::inflight::Progress;
use crate::upstream::run::{Run, RunCounts, RunId};

/// A service.
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) generation: u64,
    pub(crate) origin: Origin,
    pub(crate) settings: ServiceSettings,
    /// Its routes are in force: since it was put, or since its first flip.
    pub(crate) routed: bool,
    /// Take effect with the next flip to the staged slot.
    pub(crate) next_settings: Option<ServiceSettings>,
    pub(crate) live: Option<Slot>,
    pub(crate) blue: Option<SlotRun>,
    pub(crate) green: Option<SlotRun>,
    pub(crate) lease: Holder,
    /// What the flip to the staged slot will put in force, already on disk.
    pub(crate) prepared: Option<Saved>,
    /// The new slot is watched.
    pub(crate) bake: Option<Bake>,
    /// A share of its visitors is on the idle slot.
    pub(crate) canary: Option<Canary>,
    /// The idle slot is shown to whoever has a link.
    pub(crate) preview: Option<Preview>,
    /// It has a key: what that signed may come back at any time.
    pub(crate) has_signed: bool,
    /// Its requests are held.
    pub(crate) pause: Option<Pause>,
    /// Its visitors are shown a page.
    pub(crate) maintenance: Option<SavedMaintenance>,
    /// Header fields of the probes of its deployments.
    pub(crate) kept_headers: KeptHeaders,
    /// How its last bake ended, where the proxy flipped back and nothing was staged since.
    pub(crate) flipped_back: Option<Event>,
    /// What is known of certificates that come by themselves.
    pub(crate) secured: Arc<Secured>,
    /// As requests see it.
    pub(crate) compiled: Arc<Compiled>,
    /// Flips since the start.
    pub(crate) flips: u64,
    /// Drains that ended since the start.
    pub(crate) drains: u64,
    /// What was counted of its requests since the start.
    pub(crate) counters: Arc<ServiceCounters>,
}

/// What is in a slot.
pub(crate) struct SlotRun {
    pub(crate) run: Arc<Run>,
    pub(crate) endpoints: Vec<EndpointHealth>,
    pub(crate) health: HealthCheck,
    pub(crate) image: Option<String>,
    pub(crate) deployment: Option<String>,
    /// Tells this staging from every other, also after a restart.
    pub(crate) staging: String,
    pub(crate) since: String,
    pub(crate) staged: Instant,
    /// It took requests once, so it may be rolled back to.
    pub(crate) was_live: bool,
    /// It took requests before it was staged, and is warm again once it is healthy.
    pub(crate) warms_up: bool,
    /// Its counters when the switch began that is under way or was last.
    pub(crate) base: RunCounts,
    /// When it stopped being live, and how its drain ended.
    pub(crate) drain: Option<Drain>,
    /// What it did while it was live, to compare the next version with.
    pub(crate) lately: Lately,
}

/// A drain, under way or ended.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    pub(crate) began: Instant,
    /// Seconds it took and what it counted, once ended.
    pub(crate) ended: Option<(f64, Counts)>,
}

/// An endpoint and the state of its probes.
pub(crate) struct EndpointHealth {
    pub(crate) endpoint: Endpoint,
    pub(crate) streak: Streak,
}

impl SlotRun {
    pub(crate) fn staged(run: Arc<Run>, stage: Stage, since: String, now: Instant) -> Self {
        let healthy = !stage.health.enabled;
        Self {
            run,
            endpoints: endpoints(stage.endpoints, healthy),
            health: stage.health,
            image: stage.image,
            deployment: stage.deployment,
            staging: unlike_any(),
            since,
            staged: now,
            was_live: false,
            warms_up: stage.was_live,
            base: RunCounts::default(),
            drain: None,
            lately: Lately::default(),
        }
    }

    pub(crate) fn restored(run: Arc<Run>, saved: SavedSlot, live: bool, now: Instant) -> Self {
        Self {
            run,
            // What was live is believed to be still: a probe that has yet to come must not hold up visitors.
            endpoints: endpoints(saved.endpoints, live || !saved.health.enabled),
            health: saved.health,
            image: saved.image,
            deployment: saved.deployment,
            staging: saved.staging,
            since: saved.since,
            staged: now,
            was_live: true,
            warms_up: false,
            base: RunCounts::default(),
            drain: None,
            lately: Lately::default(),
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.endpoints.iter().all(|endpoint| endpoint.endpoint.healthy)
    }

    /// Returns what tells its version from others in what we sign, also after a restart. Without a deployment's id it is this staging,
    /// as another version may come to have the same image and addresses: what was signed for the one must not hold for the other.
    pub(crate) fn identity(&self) -> Arc<str> {
        self.deployment.as_ref().map_or_else(|| format!("staging {}", self.staging), Clone::clone).into()
    }

    /// Says why it is not healthy.
    pub(crate) fn complaint(&self) -> String {
        let complaints: Vec<String> = self
            .endpoints
            .iter()
            .filter(|endpoint| !endpoint.endpoint.healthy)
            .map(|endpoint| format!("{}: {}", endpoint.endpoint.address, endpoint.streak.outcome()))
            .collect();
        complaints.join("; ")
    }

    fn target(&self) -> Target {
        Target {
            run: Arc::clone(&self.run),
            endpoints: self.endpoints.iter().map(|endpoint| endpoint.endpoint.clone()).collect(),
        }
    }

    pub(super) fn saved(&self) -> SavedSlot {
        SavedSlot {
            endpoints: self.endpoints.iter().map(|endpoint| endpoint.endpoint.address.clone()).collect(),
            health: self.health.clone(),
            image: self.image.clone(),
            deployment: self.deployment.clone(),
            staging: self.staging.clone(),
            since: self.since.clone(),
        }
    }

    fn state(&self, live: bool) -> SlotState {
        if live {
            SlotState::Live
        } else if self.was_live {
            match self.run.progress() {
                Progress::InFlight(_) => SlotState::Draining,
                Progress::Drained | Progress::Superseded => SlotState::Warm,
            }
        } else if self.is_healthy() {
            SlotState::Ready
        } else if self.endpoints.iter().any(|endpoint| endpoint.streak.was_healthy()) {
            SlotState::Unhealthy
        } else {
            SlotState::Starting
        }
    }

    fn status(&self, live: bool) -> SlotStatus {
        SlotStatus {
            state: self.state(live),
            endpoints: self
                .endpoints
                .iter()
                .map(|EndpointHealth { endpoint, streak }| EndpointStatus {
                    address: endpoint.address.clone(),
                    healthy: endpoint.healthy,
                    reason: (!endpoint.healthy).then(|| streak.outcome().to_owned()),
                })
                .collect(),
            in_flight: self.run.in_flight(),
            long_lived: long_lived(&self.run),
            image: self.image.clone(),
            deployment: self.deployment.clone(),
            since: Some(self.since.clone()),
        }
    }
}

/// Returns a word that no other is like.
pub(super) fn unlike_any() -> String {
    let mut bytes = [0; 16];
    // So few bytes come whole or not at all; without them it is the time.
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_err() {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = since.as_nanos().to_le_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn long_lived(run: &Run) -> Option<LongLived> {
    let oldest = run.oldest_long_lived()?;
    Some(LongLived { count: run.long_lived() as u64, oldest: oldest.elapsed() })
}

pub(super) fn endpoints(addresses: Vec<EndpointAddr>, healthy: bool) -> Vec<EndpointHealth> {
    addresses
        .into_iter()
        .map(|address| EndpointHealth { endpoint: Endpoint::new(address, healthy), streak: Streak::new(healthy) })
        .collect()
}

impl Service {
    pub(crate) fn new(name: ServiceName, origin: Origin, workers: usize) -> Self {
        Self {
            secured: Arc::default(),
            flips: 0,
            drains: 0,
            counters: Arc::new(ServiceCounters::new(workers)),
            compiled: Arc::new(Compiled::new(name.clone())),
            name,
            generation: 0,
            origin,
            settings: ServiceSettings::default(),
            routed: false,
            next_settings: None,
            live: None,
            blue: None,
            green: None,
            lease: Holder::default(),
            prepared: None,
            bake: None,
            canary: None,
            preview: None,
            has_signed: false,
            pause: None,
            maintenance: None,
            kept_headers: KeptHeaders::default(),
            flipped_back: None,
        }
    }

    pub(crate) fn slot(&self, slot: Slot) -> Option<&SlotRun> {
        match slot {
            Slot::Blue => self.blue.as_ref(),
            Slot::Green => self.green.as_ref(),
        }
    }

    pub(crate) fn slot_mut(&mut self, slot: Slot) -> &mut Option<SlotRun> {
        match slot {
            Slot::Blue => &mut self.blue,
            Slot::Green => &mut self.green,
        }
    }

    /// Returns the slot that a new version goes into.
    pub(crate) fn idle(&self) -> Slot {
        self.live.map_or(Slot::Blue, Slot::other)
    }

    /// Returns the slot that answers what the live one fails.
    fn back(&self) -> Option<&SlotRun> {
        let bake = self.bake.as_ref().filter(|bake| bake.is_under_way())?;
        self.slot(bake.back)
    }

    /// Returns what is asked for what the live version lacks: the slot that was live before it, where that is not long ago.
    fn other(&self, assets: &OldAssets, now: SystemTime) -> Option<Other> {
        let live = self.live?;
        let state = self.slot(live.other()).filter(|state| state.was_live)?;
        // It was left when the live one became so. By the clock of the wall, as that may be before a restart of ours; what was
        // saved with the flip is the time of the staging before it.
        let left = humantime::parse_rfc3339(&self.slot(live)?.since).ok()?;
        let ago = now.duration_since(left).unwrap_or_default();
        let remains = Duration::from_secs(u64::from(assets.minutes) * 60).checked_sub(ago)?;
        state.run.begin_assets();
        Some(Other { target: state.target(), until: Instant::now() + remains })
    }

    /// Tells whether a run is asked for old assets.
    pub(crate) fn is_other(&self, run: RunId) -> bool {
        self.compiled.other.as_ref().is_some_and(|other| other.target.run.id() == run)
    }

    /// Returns where a share of the visitors goes.
    fn compiled_canary(&self) -> Option<routing::canary::Canary> {
        let Canary { slot, percent, key, deployment, .. } = self.canary.as_ref().filter(|canary| !canary.is_waiting)?;
        let target = self.slot(*slot)?.target();
        let (key, deployment) = (key.clone(), Arc::clone(deployment));
        Some(routing::canary::Canary { target, percent: *percent, key, deployment })
    }

    /// Returns what whoever has a link is shown.
    fn compiled_preview(&self) -> Option<routing::preview::Preview> {
        let Preview { slot, key, deployment, .. } = self.preview.as_ref().filter(|preview| !preview.is_waiting)?;
        let target = self.slot(*slot)?.target();
        Some(routing::preview::Preview { target, key: key.clone(), deployment: Arc::clone(deployment) })
    }

    /// Returns why it is closed on purpose.
    fn closed(&self) -> Option<Closed> {
        if self.pause.is_none() && self.maintenance.is_none() {
            return None;
        }
        let health_path = self.live.and_then(|live| self.slot(live)).map(|live| live.health.path.clone());
        let maintenance = self.maintenance.as_ref().map(|saved| {
            let SavedMaintenance { message, allow, pass, .. } = saved.clone();
            Arc::new(Maintenance { message: message.into(), allow, pass })
        });
        Some(Closed {
            gate: self.pause.as_ref().map(|pause| Arc::clone(&pause.gate)),
            maintenance,
            // The page itself, where the application is probed at its front door.
            health_path: health_path.filter(|path| path != "/"),
        })
    }

    /// Ends a bake before its time, since something takes its place; to be compiled and published.
    pub(crate) fn end_bake(&mut self) {
        if let Some(back) = self.bake.take().and_then(|bake| self.slot(bake.back)) {
            back.run.end_replays();
        }
    }

    /// Returns what https is to it.
    fn secure(&self) -> Option<routing::secure::Secure> {
        let health_path = self.live.and_then(|live| self.slot(live)).map(|live| live.health.path.clone());
        self.secured.compile(&self.settings, self.compiled.secure.as_deref(), health_path)
    }

    /// Renews what requests see; to be published.
    pub(crate) fn compile(&mut self) {
        // Probes compile it again and again: what did not change is kept.
        let wanted = self.settings.options.as_ref();
        let is_same =
            wanted.map_or(*self.compiled.options == ServiceOptions::default(), |o| *o == *self.compiled.options);
        let (options, edge) = if is_same {
            (Arc::clone(&self.compiled.options), self.compiled.edge.clone())
        } else {
            let options = wanted.cloned().unwrap_or_default();
            let edge = Edge::compile(&options, self.compiled.edge.as_deref());
            (Arc::new(options), edge)
        };
        let other = options.old_assets.as_ref().and_then(|assets| self.other(assets, SystemTime::now())).map(Box::new);
        self.compiled = Arc::new(Compiled {
            name: self.name.clone(),
            live: self.live.and_then(|live| self.slot(live)).map(SlotRun::target),
            back: self.back().map(SlotRun::target),
            other,
            canary: self.compiled_canary().map(Box::new),
            preview: self.compiled_preview().map(Box::new),
            has_signed: self.has_signed,
            closed: self.closed().map(Box::new),
            secure: self.secure().map(Box::new),
            strip_path: self.settings.strip_path,
            options,
            edge,
            waiting: Arc::clone(&self.compiled.waiting),
            rates: Arc::clone(&self.compiled.rates),
            counters: Arc::clone(&self.counters),
        });
    }

    /// Returns what is to be saved.
    pub(crate) fn saved(&self) -> Saved {
        // A slot that was only staged is not saved: after a crash nobody waits for it.
        let keep =
            |slot: Slot| self.slot(slot).filter(|run| run.was_live || self.live == Some(slot)).map(SlotRun::saved);
        Saved {
            name: self.name.clone(),
            generation: self.generation,
            origin: self.origin,
            settings: self.settings.clone(),
            routed: self.routed,
            live: self.live,
            blue: keep(Slot::Blue),
            green: keep(Slot::Green),
            maintenance: self.maintenance.clone(),
            kept_headers: self.kept_headers.clone(),
        }
    }

    /// Returns what will be saved once a slot is live.
    pub(crate) fn saved_after_flip(&self, to: Slot) -> Saved {
        let mut saved = self.saved();
        saved.generation += 1;
        saved.live = Some(to);
        saved.routed = true;
        if let Some(settings) = self.next_settings.as_ref().filter(|_| !self.was_live(to)) {
            saved.settings = settings.clone().or(&saved.settings);
        }
        let slot = self.slot(to).map(SlotRun::saved);
        match to {
            Slot::Blue => saved.blue = slot,
            Slot::Green => saved.green = slot,
        }
        saved
    }

    pub(crate) fn was_live(&self, slot: Slot) -> bool {
        self.slot(slot).is_some_and(|run| run.was_live)
    }

    /// Returns what became of requests on both slots since the switch began.
    pub(crate) fn counts(&self, old: Slot) -> Counts {
        let since = |slot| self.slot(slot).map(|run| run.run.counts().since(run.base)).unwrap_or_default();
        let (old, new) = (since(old), since(old.other()));
        Counts {
            old: old.answered,
            new: new.answered,
            held: old.held + new.held,
            retried: old.retried + new.retried,
            closed: old.closed + new.closed,
            cut: old.cut + new.cut,
            failed: old.failed + new.failed,
            old_assets: old.assets + new.assets,
        }
    }

    pub(crate) fn status(&self, now: Instant) -> ServiceStatus {
        let slot = |slot: Slot| match self.slot(slot) {
            Some(run) => run.status(self.live == Some(slot)),
            None => SlotStatus {
                state: SlotState::Empty,
                endpoints: Vec::new(),
                in_flight: 0,
                long_lived: None,
                image: None,
                deployment: None,
                since: None,
            },
        };
        ServiceStatus {
            name: self.name.clone(),
            generation: self.generation,
            origin: self.origin,
            live: self.live,
            slots: Slots { blue: slot(Slot::Blue), green: slot(Slot::Green) },
            settings: self.settings.clone(),
            lease: self.lease.current(now).map(|lease| lease.holder.clone()),
            paused: self.pause.as_ref().map(|pause| pause.status(now)),
            maintenance: self
                .maintenance
                .as_ref()
                .map(|saved| MaintenanceStatus { since: saved.since.clone(), message: saved.message.clone() }),
            canary: self.canary.as_ref().map(Canary::status),
            preview: self.preview.as_ref().map(|preview| preview.status(now)),
            tls: self.secured.status(self.routed, &self.settings),
            bake: self.bake.as_ref().map(|bake| bake.status(now)),
        }
    }
}
