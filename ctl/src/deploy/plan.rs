//! What is there and what is wanted become the ordered steps; pure, so that every case is a table in a test.

use config::admin::response::{ServiceStatus, SlotState};
use config::name::Slot;
use config::project::Hooks;

use super::settings::{PREVIOUS, Settings};
use crate::engine::Instance;
use crate::mask;

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

    /// Returns the instances that have a slot's own names, in the order of their numbers.
    pub fn occupants(&self, slot: Slot) -> Vec<Instance> {
        let mut occupants: Vec<Instance> =
            self.instances.iter().filter(|instance| instance.slot == slot && !instance.kept).cloned().collect();
        occupants.sort_by_key(|instance| instance.replica);
        occupants
    }

    /// Returns the first of them: they are all run alike.
    pub fn occupant(&self, slot: Slot) -> Option<&Instance> {
        let occupants = self.instances.iter().filter(|instance| instance.slot == slot && !instance.kept);
        occupants.min_by_key(|instance| instance.replica)
    }

    fn kept(&self, slot: Slot) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.slot == slot && instance.kept)
    }

    /// Returns the version that a slot was left with, whichever of its instances are kept, and what does not belong to it.
    fn sort_out(&self, slot: Slot) -> (Vec<Instance>, Vec<Instance>) {
        let deployment = match (self.occupant(slot), self.kept(slot)) {
            // A run was killed while it tried the occupants: the kept ones are the previous version.
            (Some(_), Some(kept)) if !self.was_live(slot) => &kept.deployment,
            (Some(instance), _) | (None, Some(instance)) => &instance.deployment,
            (None, None) => return (Vec::new(), Vec::new()),
        };
        let mut all: Vec<Instance> = self.instances.iter().filter(|instance| instance.slot == slot).cloned().collect();
        all.sort_by_key(|instance| instance.replica);
        all.into_iter().partition(|instance| instance.deployment == *deployment)
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
        if let Some(slot) = self.live() {
            // What it was deployed with may have been scaled since.
            settings.replicas = u32::try_from(self.occupants(slot).len()).unwrap_or(u32::MAX).max(1);
        }
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
    /// Holds visitors, and stops what runs, since two versions can't run at once.
    StopFirst(Vec<Instance>),
    /// Removes what an interrupted run left in the idle slot; it was never live.
    RemoveLeftover(Instance),
    /// Gives the previous version its kept name while the new one is tried.
    Park(Instance),
    /// Gives a kept version its slot's name back.
    Unpark(Instance),
    /// Creates and starts the new version: so many replicas.
    Create(u32),
    /// Starts a version that is there.
    Start,
}

impl Step {
    /// Returns the name that the journal has for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AwaitDrain(_) => "await_drain",
            Self::StopFirst(_) => "stop_first",
            Self::RemoveLeftover(_) => "remove_leftover",
            Self::Park(_) => "park",
            Self::Unpark(_) => "unpark",
            Self::Create(_) => "create",
            Self::Start => "start",
        }
    }

    /// Returns the step as a sentence.
    pub fn sentence(&self) -> String {
        match self {
            Self::AwaitDrain(slot) => format!("wait for the last requests on {slot}"),
            Self::StopFirst(instances) => {
                let names: Vec<&str> = instances.iter().map(|instance| instance.name.as_str()).collect();
                format!("hold visitors, and stop {} when it has answered what it has", names.join(", "))
            }
            Self::RemoveLeftover(instance) => format!("remove {}, left by an interrupted run", instance.name),
            Self::Park(instance) => format!("keep {} until the new version serves", instance.name),
            Self::Unpark(instance) => format!("give {} its name back", instance.name),
            Self::Create(1) => "create and start the new version".to_owned(),
            Self::Create(replicas) => format!("create and start {replicas} replicas of the new version"),
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
    /// The live instances.
    pub old: Vec<Instance>,
    /// Kept instances that are of no use once the new version is live.
    pub stale: Vec<Instance>,
}

impl Plan {
    /// Tells whether the old version is stopped before the new one starts.
    pub fn stops_first(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::StopFirst(_)))
    }

    /// Returns the whole way as sentences, for `--dry-run`.
    pub fn sentences(&self, settings: &Settings, hooks: &Hooks) -> Vec<String> {
        let mut lines: Vec<String> = self.steps.iter().map(Step::sentence).collect();
        let stopped = self.steps.iter().position(|step| matches!(step, Step::StopFirst(_)));
        let before = settings.before.iter().map(|line| format!("run before: {}", mask::line(line)));
        let at = stopped.map_or(0, |at| at + 1);
        lines.splice(at..at, before);
        lines.push(format!("stage {} and wait until it is healthy", self.slot));
        lines.extend(hooks.before_flip.iter().map(|line| format!("run before the flip: {}", mask::line(line))));
        lines.push(format!("flip to {}", self.slot));
        if let Some(live) = self.live {
            let keep = settings.keep.as_str();
            lines.push(match settings.no_port {
                true => format!("stop {live} by its signal, and keep it: {keep}"),
                false => format!("drain {live}, then keep it: {keep}"),
            });
        }
        lines.extend(hooks.after.iter().map(|line| format!("run after it: {}", mask::line(line))));
        lines
    }
}

/// Plans a switch.
pub fn switch(situation: &Situation<'_>, settings: &Settings) -> Plan {
    let slot = situation.idle();
    let mut steps = Vec::new();
    if situation.is_draining(slot) {
        steps.push(Step::AwaitDrain(slot));
    }
    let (previous, leftovers) = situation.sort_out(slot);
    if settings.stop_first {
        steps.extend(stop_first(situation.instances.iter().filter(|instance| !leftovers.contains(instance))));
    }
    let parked = previous.into_iter().filter(|instance| !instance.kept);
    let parked: Vec<Instance> = parked.collect();
    let kept = situation.instances.iter().filter(|instance| instance.kept && !leftovers.contains(instance));
    let stale = kept.chain(&parked).cloned().collect();
    steps.extend(leftovers.into_iter().map(Step::RemoveLeftover));
    steps.extend(parked.into_iter().map(Step::Park));
    steps.push(Step::Create(settings.replicas));
    let live = situation.live();
    Plan { live, slot, steps, old: live.map(|live| situation.occupants(live)).unwrap_or_default(), stale }
}

/// Returns the step that stops those that run; none where none does.
fn stop_first<'a>(instances: impl Iterator<Item = &'a Instance>) -> Option<Step> {
    let running: Vec<Instance> = instances.filter(|instance| instance.running).cloned().collect();
    (!running.is_empty()).then_some(Step::StopFirst(running))
}

/// Plans the flip to what is staged.
pub fn go_on(situation: &Situation<'_>) -> Plan {
    let (live, slot) = (situation.live(), situation.idle());
    let old = live.map(|live| situation.occupants(live)).unwrap_or_default();
    let stale = situation.instances.iter().filter(|instance| instance.kept).cloned().collect();
    Plan { live, slot, steps: Vec::new(), old, stale }
}

/// The ways back to the previous version, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Back {
    /// It is warm: one flip.
    Flip(Plan),
    /// Its instances are there: start them, then as a switch.
    Revive(Plan, Vec<Instance>),
    /// Only its image is known: switch to that.
    Image(String),
    /// There is nothing to go back to.
    Nowhere,
}

/// Plans a rollback.
pub fn rollback(situation: &Situation<'_>) -> Back {
    let Some(live) = situation.live() else { return Back::Nowhere };
    let slot = live.other();
    let old = situation.occupants(live);
    let stale = situation.instances.iter().filter(|instance| instance.kept && instance.slot == live).cloned().collect();
    let mut plan = Plan { live: Some(live), slot, steps: Vec::new(), old, stale };
    let healthy = situation.service.is_some_and(|service| {
        let endpoints = &service.slots.get(slot).endpoints;
        !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.healthy)
    });
    let (previous, leftovers) = situation.sort_out(slot);
    // Addresses that we don't manage have no instance; those that are there must run.
    let runs = previous.iter().all(|instance| instance.running && !instance.kept);
    if situation.was_live(slot) && healthy && runs {
        return Back::Flip(plan);
    }
    if previous.is_empty() {
        let live = situation.occupant(live);
        let note = live.and_then(|live| live.notes.iter().find(|(name, _)| name == PREVIOUS));
        return note.map_or(Back::Nowhere, |(_, image)| Back::Image(image.clone()));
    }
    let can_not = |instance: &Instance| Settings::of(instance).stop_first;
    if plan.old.iter().chain(&previous).any(can_not) {
        plan.steps.extend(stop_first(plan.old.iter()));
    }
    let in_the_way = leftovers.into_iter().filter(|instance| !instance.kept);
    plan.steps.extend(in_the_way.map(Step::RemoveLeftover));
    plan.steps.extend(previous.iter().filter(|instance| instance.kept).cloned().map(Step::Unpark));
    plan.steps.push(Step::Start);
    Back::Revive(plan, previous)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
