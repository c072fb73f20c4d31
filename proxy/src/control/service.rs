//! One service as control knows it: two slots, which is live, and what was measured since the last staging.

use std::sync::Arc;
use std::time::Instant;

use config::admin::request::{ServiceSettings, Stage};
use config::admin::response::{Counts, EndpointStatus, Origin, ServiceStatus, SlotState, SlotStatus, Slots};
use config::health::HealthCheck;
use config::name::{EndpointAddr, ServiceName, Slot};

use super::lease::Holder;
use super::store::{Saved, SavedSlot};
use crate::health::Streak;
use crate::routing::table::{Endpoint, Service as Compiled, Target};
use crate::telemetry::counters::ServiceCounters;
use crate::upstream::inflight::Progress;
use crate::upstream::run::{Run, RunCounts};

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
    pub(crate) since: String,
    pub(crate) staged: Instant,
    /// It took requests once, so it may be rolled back to.
    pub(crate) was_live: bool,
    /// Its counters when the switch began that is under way or was last.
    pub(crate) base: RunCounts,
    /// When it stopped being live, and how its drain ended.
    pub(crate) drain: Option<Drain>,
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
            since,
            staged: now,
            was_live: false,
            base: RunCounts::default(),
            drain: None,
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
            since: saved.since,
            staged: now,
            was_live: true,
            base: RunCounts::default(),
            drain: None,
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.endpoints.iter().all(|endpoint| endpoint.endpoint.healthy)
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

    fn saved(&self) -> SavedSlot {
        SavedSlot {
            endpoints: self.endpoints.iter().map(|endpoint| endpoint.endpoint.address.clone()).collect(),
            health: self.health.clone(),
            image: self.image.clone(),
            deployment: self.deployment.clone(),
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
            image: self.image.clone(),
            deployment: self.deployment.clone(),
            since: Some(self.since.clone()),
        }
    }
}

fn endpoints(addresses: Vec<EndpointAddr>, healthy: bool) -> Vec<EndpointHealth> {
    addresses
        .into_iter()
        .map(|address| EndpointHealth { endpoint: Endpoint::new(address, healthy), streak: Streak::new(healthy) })
        .collect()
}

impl Service {
    pub(crate) fn new(name: ServiceName, origin: Origin, workers: usize) -> Self {
        Self {
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

    /// Renews what requests see; to be published.
    pub(crate) fn compile(&mut self) {
        self.compiled = Arc::new(Compiled {
            name: self.name.clone(),
            live: self.live.and_then(|live| self.slot(live)).map(SlotRun::target),
            strip_path: self.settings.strip_path,
            options: self.settings.options.clone().map(Arc::new).unwrap_or_default(),
            waiting: Arc::clone(&self.compiled.waiting),
            rates: Arc::clone(&self.compiled.rates),
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
            live: self.live,
            blue: keep(Slot::Blue),
            green: keep(Slot::Green),
        }
    }

    /// Returns what will be saved once a slot is live.
    pub(crate) fn saved_after_flip(&self, to: Slot) -> Saved {
        let mut saved = self.saved();
        saved.generation += 1;
        saved.live = Some(to);
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
            closed: 0,
            cut: old.cut + new.cut,
            failed: old.failed + new.failed,
        }
    }

    pub(crate) fn status(&self, now: Instant) -> ServiceStatus {
        let slot = |slot: Slot| match self.slot(slot) {
            Some(run) => run.status(self.live == Some(slot)),
            None => SlotStatus {
                state: SlotState::Empty,
                endpoints: Vec::new(),
                in_flight: 0,
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
        }
    }
}
