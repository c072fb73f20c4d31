//! What is in a slot: a version as control knows it, its endpoints and their probes, and the drain it was left with.

use std::sync::Arc;
use std::time::Instant;

use config::admin::request::Stage;
use config::admin::response::{Counts, EndpointStatus, LongLived, SlotState, SlotStatus};
use config::health::HealthCheck;
use config::name::EndpointAddr;

use super::bake::Lately;
use super::saved::SavedSlot;
use crate::health::Streak;
use crate::routing::table::{Endpoint, Target};
use crate::upstream::inflight::Progress;
use crate::upstream::run::{Run, RunCounts};

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

    pub(super) fn target(&self) -> Target {
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

    pub(super) fn status(&self, live: bool) -> SlotStatus {
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
