//! What is there and what is wanted become the ordered steps; pure, so that every case is a table in a test.

use config::admin::response::{ServiceStatus, SlotState};
use config::name::Slot;

use super::settings::{PREVIOUS, Settings};
use crate::engine::Instance;

/// What is there: the proxy's truth, and our instances on the engine.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The service, where the proxy knows it.
    pub service: Option<&'a ServiceStatus>,
    /// Its instances.
    pub instances: &'a [Instance],
}

impl Situation<'_> {
    /// Returns the slot that takes new requests: the proxy's word, never a guess from containers.
    pub fn live(&self) -> Option<Slot> {
        self.service.and_then(|service| service.live)
    }

    /// Returns the slot that a new version goes into.
    pub fn idle(&self) -> Slot {
        self.live().map_or(Slot::Blue, Slot::other)
    }

    /// Returns the instance that has a slot's own name.
    pub fn occupant(&self, slot: Slot) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.slot == slot && !instance.kept)
    }

    fn kept(&self, slot: Slot) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.slot == slot && instance.kept)
    }

    fn was_live(&self, slot: Slot) -> bool {
        self.service
            .is_some_and(|service| matches!(service.slots.get(slot).state, SlotState::Warm | SlotState::Draining))
    }

    fn is_draining(&self, slot: Slot) -> bool {
        self.service.is_some_and(|service| service.slots.get(slot).state == SlotState::Draining)
    }

    /// Returns what the next deployment starts from: what the live slot runs with, and the routes in force.
    pub fn settings(&self) -> Settings {
        let live = self.live().and_then(|slot| self.occupant(slot));
        let mut settings = live.map(Settings::of).unwrap_or_default();
        if let Some(service) = self.service {
            settings.routes = service.settings.clone();
        }
        settings
    }
}

/// Something to do before the new version can be staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Waits until the idle slot's last requests are over.
    AwaitDrain(Slot),
    /// Removes what an interrupted run left in the idle slot; it was never live.
    RemoveLeftover(Instance),
    /// Gives the previous version its kept name while the new one is tried.
    Park(Instance),
    /// Gives a kept version its slot's name back.
    Unpark(Instance),
    /// Creates and starts the new version.
    Create,
    /// Starts a version that is there.
    Start,
}

impl Step {
    /// Returns the name that the journal has for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AwaitDrain(_) => "await_drain",
            Self::RemoveLeftover(_) => "remove_leftover",
            Self::Park(_) => "park",
            Self::Unpark(_) => "unpark",
            Self::Create => "create",
            Self::Start => "start",
        }
    }

    /// Returns the step as a sentence.
    pub fn sentence(&self) -> String {
        match self {
            Self::AwaitDrain(slot) => format!("wait for the last requests on {slot}"),
            Self::RemoveLeftover(instance) => format!("remove {}, left by an interrupted run", instance.name),
            Self::Park(instance) => format!("keep {} until the new version serves", instance.name),
            Self::Unpark(instance) => format!("give {} its name back", instance.name),
            Self::Create => "create and start the new version".to_owned(),
            Self::Start => "start the previous version".to_owned(),
        }
    }
}

/// The way from here to a new live version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The slot that is live now.
    pub live: Option<Slot>,
    /// The slot that will be.
    pub slot: Slot,
    /// What is to be done before staging, in order.
    pub steps: Vec<Step>,
    /// The live instance.
    pub old: Option<Instance>,
    /// Kept instances that are of no use once the new version is live.
    pub stale: Vec<Instance>,
}

impl Plan {
    /// Returns the whole way as sentences, for `--dry-run`.
    pub fn sentences(&self, settings: &Settings) -> Vec<String> {
        let mut lines: Vec<String> = settings.before.iter().map(|line| format!("run before: {line}")).collect();
        lines.extend(self.steps.iter().map(Step::sentence));
        lines.push(format!("stage {} and wait until it is healthy", self.slot));
        lines.push(format!("flip to {}", self.slot));
        if let Some(live) = self.live {
            lines.push(format!("drain {live}, then keep it: {}", settings.keep.as_str()));
        }
        lines
    }
}

/// Plans a switch.
pub fn switch(situation: &Situation<'_>) -> Plan {
    let slot = situation.idle();
    let mut steps = Vec::new();
    let mut stale: Vec<Instance> = situation.instances.iter().filter(|instance| instance.kept).cloned().collect();
    if situation.is_draining(slot) {
        steps.push(Step::AwaitDrain(slot));
    }
    match (situation.occupant(slot), situation.kept(slot)) {
        // A run was killed while it tried the occupant: the kept one is the previous version.
        (Some(occupant), Some(_)) if !situation.was_live(slot) => steps.push(Step::RemoveLeftover(occupant.clone())),
        (Some(occupant), Some(kept)) => {
            steps.push(Step::RemoveLeftover(kept.clone()));
            stale.retain(|instance| instance.id != kept.id);
            steps.push(Step::Park(occupant.clone()));
        }
        (Some(occupant), None) => steps.push(Step::Park(occupant.clone())),
        (None, _) => {}
    }
    steps.push(Step::Create);
    if let Some(Step::Park(parked)) = steps.iter().find(|step| matches!(step, Step::Park(_))) {
        stale.push(parked.clone());
    }
    Plan {
        live: situation.live(),
        slot,
        steps,
        old: situation.live().and_then(|l| situation.occupant(l)).cloned(),
        stale,
    }
}

/// Plans the flip to what is staged.
pub fn go_on(situation: &Situation<'_>) -> Plan {
    let slot = situation.idle();
    let old = situation.live().and_then(|live| situation.occupant(live)).cloned();
    let stale = situation.instances.iter().filter(|instance| instance.kept).cloned().collect();
    Plan { live: situation.live(), slot, steps: Vec::new(), old, stale }
}

/// The ways back to the previous version, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Back {
    /// It is warm: one flip.
    Flip(Plan),
    /// Its instance is there: start it, then as a switch.
    Revive(Plan, Box<Instance>),
    /// Only its image is known: switch to that.
    Image(String),
    /// There is nothing to go back to.
    Nowhere,
}

/// Plans a rollback.
pub fn rollback(situation: &Situation<'_>) -> Back {
    let Some(live) = situation.live() else { return Back::Nowhere };
    let slot = live.other();
    let old = situation.occupant(live).cloned();
    let stale = situation.instances.iter().filter(|instance| instance.kept && instance.slot == live).cloned().collect();
    let mut plan = Plan { live: Some(live), slot, steps: Vec::new(), old, stale };
    let healthy = situation.service.is_some_and(|service| {
        let endpoints = &service.slots.get(slot).endpoints;
        !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.healthy)
    });
    let occupant = situation.occupant(slot);
    // Addresses that we don't manage have no instance; one that is there must run.
    let runs = occupant.is_none_or(|instance| instance.running);
    if situation.was_live(slot) && healthy && runs {
        return Back::Flip(plan);
    }
    match (occupant, situation.kept(slot)) {
        (Some(leftover), Some(kept)) if !situation.was_live(slot) => {
            plan.steps.push(Step::RemoveLeftover(leftover.clone()));
            plan.steps.push(Step::Unpark(kept.clone()));
            plan.steps.push(Step::Start);
            Back::Revive(plan, Box::new(kept.clone()))
        }
        (Some(occupant), _) => {
            plan.steps.push(Step::Start);
            Back::Revive(plan, Box::new(occupant.clone()))
        }
        (None, Some(kept)) => {
            plan.steps.push(Step::Unpark(kept.clone()));
            plan.steps.push(Step::Start);
            Back::Revive(plan, Box::new(kept.clone()))
        }
        (None, None) => {
            let note = plan.old.as_ref().and_then(|old| old.notes.iter().find(|(name, _)| name == PREVIOUS));
            note.map_or(Back::Nowhere, |(_, image)| Back::Image(image.clone()))
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
