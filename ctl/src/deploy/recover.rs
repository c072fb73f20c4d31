//! What a run left that was killed or interrupted: found in the journal, and finished or undone.

use std::time::Duration;

use config::admin::journal::{Entry, Journal, Outcome, Scale, Work};
use config::admin::request::{Drain, Flip, Stage};
use config::admin::response::{ServiceStatus, SlotState};
use config::name::{EndpointAddr, ServiceName, Slot};
use serde_json::json;

use super::lease::leased;
use super::scale;
use super::settings::{Keep, Settings};
use super::stop_first::serves_again;
use super::undo::clear;
use super::verify;
use crate::admin::{Client, Match};
use crate::context::Context;
use crate::engine::{Engine, Instance, Restart};
use crate::error::Error;

/// A version that runs already is healthy within this, or is told not to be.
const WARM: Duration = Duration::from_secs(10);

/// Something to do about what is left.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// Lets held requests go.
    Resume,
    /// Ends a command that goes before a new version.
    EndOnce,
    /// Waits until the proxy's own watch is over.
    AwaitBake(Slot),
    /// Takes a slot out of the proxy.
    Clear(Slot),
    /// Removes an instance.
    Remove(Instance),
    /// Stops an instance.
    Stop(Instance),
    /// Gives an instance its kept name, or its slot's name back.
    Name(Instance, bool),
    /// Sets the restart policy that fits what is live.
    Restart(Instance, Restart),
    /// Starts an instance.
    Start(Instance),
    /// Waits until a live version that was started again serves.
    AwaitHealth(Vec<Instance>),
    /// Gives the live slot these endpoints.
    Endpoints(Vec<EndpointAddr>),
    /// Makes a slot warm again, with what runs in it.
    Warm(Slot),
}

/// How work stands that was not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// The flip was not done, or taken back: the version before serves.
    Before,
    /// The new version is live.
    After,
    /// It is live, and the old one still has requests in flight.
    Draining,
    /// The live slot has the replicas that it was to have.
    Scaled,
}

/// What is wanted of work that was left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// That it is over: the proxy's watch is waited for.
    End,
    /// The next deployment: it waits for no watch.
    Forward,
    /// The version before: it stays as warm as it is.
    Back,
}

/// What is there.
#[derive(Clone, Copy)]
struct Found<'a> {
    entry: &'a Entry,
    service: Option<&'a ServiceStatus>,
    instances: &'a [Instance],
}

impl Found<'_> {
    fn live(&self) -> Option<Slot> {
        self.service.and_then(|service| service.live)
    }

    fn stand(&self) -> Stand {
        if let Some(scale) = self.entry.work.scale {
            return if self.is_scaled(scale) { Stand::Scaled } else { Stand::Before };
        }
        let slot = self.entry.work.slot;
        let Some(service) = self.service.filter(|service| service.live == Some(slot)) else { return Stand::Before };
        // The slot may be live with the version that was there before the work began.
        if service.slots.get(slot).deployment.as_deref() != Some(&*self.entry.work.deployment) {
            return Stand::Before;
        }
        match service.slots.get(slot.other()).state {
            SlotState::Draining => Stand::Draining,
            _ => Stand::After,
        }
    }

    /// Tells whether the proxy has taken a change of the number of replicas over.
    fn is_scaled(&self, Scale { from, to }: Scale) -> bool {
        let Some(slot) = self.service.map(|service| service.slots.get(self.entry.work.slot)) else { return false };
        let healthy = |instance: &Instance| {
            slot.endpoints.iter().find(|known| known.address == instance.endpoint).map(|known| known.healthy)
        };
        let mut instances = self.occupants(self.entry.work.slot);
        if to > from {
            instances.any(|instance| instance.replica == to)
                && slot.endpoints.iter().all(|known| known.healthy)
                && self.scaled(from).all(|instance| healthy(instance) == Some(true))
        } else {
            instances.filter(|instance| instance.replica > to).all(|instance| healthy(instance).is_none())
        }
    }

    /// Returns the instances of the deployment in its slot whose numbers are greater.
    fn scaled(&self, than: u32) -> impl Iterator<Item = &Instance> {
        let Work { slot, deployment, .. } = &self.entry.work;
        self.occupants(*slot).filter(move |instance| instance.replica > than && instance.deployment == *deployment)
    }

    /// Finishes or undoes a change of the number of replicas.
    fn settle_scale(&self, scale: Scale, actions: &mut Vec<Action>) {
        let Scale { from, to } = scale;
        if self.is_scaled(scale) {
            actions.extend(self.policies());
            for instance in self.scaled(to.max(1)) {
                actions.extend([Action::Stop(instance.clone()), Action::Remove(instance.clone())]);
            }
        } else if to > from {
            let made: Vec<&Instance> = self.scaled(from).collect();
            let slot = self.service.filter(|service| service.live == Some(self.entry.work.slot));
            let slot = slot.map(|service| service.slots.get(self.entry.work.slot));
            let listed: Vec<EndpointAddr> =
                slot.iter().flat_map(|slot| &slot.endpoints).map(|known| known.address.clone()).collect();
            let stay: Vec<EndpointAddr> =
                listed.iter().filter(|address| made.iter().all(|made| made.endpoint != **address)).cloned().collect();
            if stay.len() < listed.len() {
                actions.push(Action::Endpoints(stay));
            }
            actions.extend(made.into_iter().cloned().map(Action::Remove));
        }
    }

    /// Tells whether a self-test was cut off while its second run was live.
    fn is_away(&self) -> bool {
        self.entry.has_begun(verify::STEP) && matches!(self.stand(), Stand::After | Stand::Draining)
    }

    fn occupants(&self, slot: Slot) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |instance| instance.slot == slot && !instance.kept)
    }

    fn kept(&self, slot: Slot) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |instance| instance.slot == slot && instance.kept)
    }

    /// Returns the state of the service in one sentence.
    fn sentence(&self) -> String {
        let Entry { work, began, steps, flipped_back, .. } = self.entry;
        let last =
            steps.last().map_or_else(|| "nothing was done yet".to_owned(), |step| format!("last: {}", step.step));
        let live = match self.live() {
            Some(live) => format!("{live} is live"),
            None => "nothing is live".to_owned(),
        };
        let how = match (flipped_back, self.stand()) {
            (Some(back), _) => format!("the proxy flipped back ({})", back.reason),
            (None, Stand::Before) if work.scale.is_some() => "its replicas are not as wanted".to_owned(),
            (None, Stand::Before) => "it ended before its flip".to_owned(),
            (None, Stand::After) => "it ended after its flip".to_owned(),
            (None, Stand::Scaled) => "its replicas are as wanted".to_owned(),
            (None, Stand::Draining) => "it ended after its flip, and the old version still drains".to_owned(),
        };
        format!("{} by {}, begun {began}, was left open ({last}): {how}, {live}", work.what, work.who)
    }

    /// Returns what is to be done, in order.
    fn actions(&self, aim: Aim) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.is_away() {
            // The slot that was live before is not there to go back to; this one runs the same version.
            return self.policies().collect();
        }
        if let Some(scale) = self.entry.work.scale {
            self.settle_scale(scale, &mut actions);
            return actions;
        }
        let has_stopped = self.entry.has_begun("stop_first");
        let is_held = self.service.is_some_and(|service| service.paused.is_some());
        let resumes = is_held && (has_stopped || self.entry.has_begun("pause"));
        let brings_back = has_stopped && self.stand() == Stand::Before;
        if resumes && !brings_back {
            actions.push(Action::Resume);
        }
        match self.stand() {
            Stand::Before => self.undo(&mut actions),
            Stand::Scaled => {}
            Stand::After | Stand::Draining if aim == Aim::Back => {}
            Stand::After | Stand::Draining => self.finish(&mut actions, aim),
        }
        if brings_back {
            self.bring_back(&mut actions);
            actions.extend(resumes.then_some(Action::Resume));
        }
        actions.extend(self.cooled().map(Action::Warm));
        actions
    }

    /// Returns the slot whose warm version a self-test took out of the proxy and did not put back: its instances still run, as those
    /// of a version that is kept stopped do not.
    fn cooled(&self) -> Option<Slot> {
        let (slot, work) = (self.entry.work.slot, &self.entry.work);
        let service = self.service.filter(|service| service.live == Some(slot.other()))?;
        let is_of_before =
            |instance: &&Instance| instance.slot == slot && instance.running && instance.deployment != work.deployment;
        let before = self.instances.iter().find(is_of_before).filter(|_| self.entry.has_begun(verify::STEP))?;
        // It may have been cut off before anything was put in the place of that version, or after it was put back.
        let status = service.slots.get(slot);
        let is_there = status.state != SlotState::Empty && status.deployment.as_ref() == Some(&before.deployment);
        (!is_there).then_some(slot)
    }

    /// What was there before is there again.
    fn undo(&self, actions: &mut Vec<Action>) {
        let (entry, slot) = (self.entry, self.entry.work.slot);
        actions.extend(self.policies());
        if entry.has_begun("before") || entry.has_begun("before_flip") {
            actions.push(Action::EndOnce);
        }
        let is_staged = self.service.is_some_and(|service| {
            service.live != Some(slot) && service.slots.get(slot).deployment.as_deref() == Some(&*entry.work.deployment)
        });
        if is_staged {
            actions.push(Action::Clear(slot));
        }
        let (tried, others): (Vec<&Instance>, Vec<&Instance>) =
            self.occupants(slot).partition(|instance| instance.deployment == entry.work.deployment);
        // A version that was there before is put back; one that was made for this is removed.
        if entry.has_begun("create") {
            actions.extend(tried.iter().map(|tried| Action::Remove((*tried).clone())));
        } else {
            if entry.has_begun("start") {
                actions.extend(tried.iter().map(|tried| Action::Stop((*tried).clone())));
            }
            if entry.has_begun("unpark") {
                actions.extend(tried.iter().map(|tried| Action::Name((*tried).clone(), true)));
            }
        }
        if entry.has_begun("create") || (entry.has_begun("park") && tried.is_empty()) {
            // Some of it may not have been parked yet.
            let is_previous = |kept: &&Instance| others.iter().all(|other| other.deployment == kept.deployment);
            actions.extend(self.kept(slot).filter(is_previous).map(|kept| Action::Name(kept.clone(), false)));
        }
    }

    /// The old version was stopped before the new one was started.
    fn bring_back(&self, actions: &mut Vec<Action>) {
        let Some(live) = self.live() else { return };
        let stopped: Vec<Instance> = self.occupants(live).filter(|instance| !instance.running).cloned().collect();
        if !stopped.is_empty() {
            actions.extend(stopped.iter().cloned().map(Action::Start));
            actions.push(Action::AwaitHealth(stopped));
        }
    }

    /// What is left to do after the flip.
    fn finish(&self, actions: &mut Vec<Action>, aim: Aim) {
        let slot = self.entry.work.slot;
        actions.extend(self.policies());
        if self.service.is_some_and(|service| service.bake.is_some()) {
            if aim == Aim::Forward {
                return;
            }
            actions.push(Action::AwaitBake(slot.other()));
        }
        if self.stand() == Stand::Draining {
            // Whoever comes when it has drained puts it away.
            return;
        }
        let keep = self.occupants(slot).next().map_or(Keep::Warm, |live| Settings::of(live).keep);
        let old: Vec<&Instance> = self.occupants(slot.other()).collect();
        if !old.is_empty() && keep != Keep::Warm {
            if self.service.is_some_and(|service| service.slots.get(slot.other()).state != SlotState::Empty) {
                actions.push(Action::Clear(slot.other()));
            }
            actions.extend(old.iter().map(|old| Action::Stop((*old).clone())));
            if keep == Keep::None {
                actions.extend(old.iter().map(|old| Action::Remove((*old).clone())));
            }
        }
        actions.extend(self.kept(slot).cloned().map(Action::Remove));
    }

    /// Exactly the live version comes back with a reboot.
    fn policies(&self) -> impl Iterator<Item = Action> {
        let live = self.live();
        self.instances.iter().filter(|instance| !instance.kept).map(move |instance| {
            let restart = if live == Some(instance.slot) { Restart::Always } else { Restart::No };
            Action::Restart(instance.clone(), restart)
        })
    }
}

/// Whoever finds work that was left open: its place, and the proxy under the service's lease.
pub struct Finder<'a> {
    /// Options and printer.
    pub context: &'a Context<'a>,
    /// The proxy.
    pub client: &'a mut Client,
    /// The engine, where instances are run by one.
    pub engine: Option<&'a Engine>,
    /// The service.
    pub service: &'a ServiceName,
}

impl Finder<'_> {
    /// Says in one sentence what was left open, and finishes or undoes it; `None` where nothing was.
    ///
    /// # Errors
    /// Those of the proxy and of the engine; what was not done is found again.
    pub async fn settle(&mut self, aim: Aim) -> Result<Option<Stand>, Error> {
        let Some(history) = self.client.history(self.service).await? else { return Ok(None) };
        let Some(entry) = history.open() else { return Ok(None) };
        let mut service = self.client.service(self.service).await?;
        let instances = match self.engine {
            Some(engine) => engine.instances(Some(self.service)).await?,
            None => Vec::new(),
        };
        let found = Found { entry, service: service.as_ref(), instances: &instances };
        self.context.ui.say(&found.sentence());
        if found.is_away() {
            self.lead_home(entry.work.slot.other()).await?;
            service = self.client.service(self.service).await?;
        }
        let found = Found { entry, service: service.as_ref(), instances: &instances };
        let stand = found.stand();
        for action in found.actions(aim) {
            self.act(action, &entry.work.deployment).await?;
        }
        let outcome = match (stand, &entry.flipped_back) {
            // Whoever comes when it has drained ends it.
            (Stand::Draining, _) if aim == Aim::End => return Ok(Some(stand)),
            (Stand::After | Stand::Draining | Stand::Scaled, _) => Outcome::Done,
            (Stand::Before, Some(_)) => Outcome::FlippedBack,
            (Stand::Before, None) => Outcome::Undone,
        };
        let report = json!({ "event": "report", "service": self.service, "recovered": true });
        let line = Journal::End { id: entry.work.id.clone(), outcome, report: Box::new(report), log: None };
        self.client.journal(self.service, &line).await?;
        Ok(Some(stand))
    }

    /// Flips back from the second run of a self-test, and waits until it has nothing in flight. A slot that is not healthy is not
    /// flipped to: then the second run stays, and that is told.
    async fn lead_home(&mut self, home: Slot) -> Result<(), Error> {
        let ui = self.context.ui;
        let flip = Flip { to: Some(home), ..Flip::default() };
        if let Err(error) = self.client.flip(self.service, Match::Any, &flip).await {
            ui.warn(&format!("{} stays live: {error}", home.other()));
            return Ok(());
        }
        ui.say(&format!("{home} is live again; waiting for the last requests on {}", home.other()));
        let mut events = self.client.drain(self.service, &Drain { slot: Some(home.other()), bake: false }).await?;
        while events.next().await?.is_some() {}
        Ok(())
    }

    /// Puts what runs in a slot into the proxy again, as what was live before. What can't be gone back to at once is told.
    async fn warm(&mut self, slot: Slot, engine: &Engine) -> Result<(), Error> {
        let ui = self.context.ui;
        // By the names that they have now.
        let instances = engine.instances(Some(self.service)).await?;
        let of_slot = instances.iter().filter(|instance| instance.slot == slot && !instance.kept && instance.running);
        let Some(stage) = verify::warm_again(slot, &of_slot.collect::<Vec<_>>()) else { return Ok(()) };
        let stage = Stage { deadline: WARM, ..stage };
        match verify::put_back(self.client, self.service, &stage).await {
            Ok(()) => ui.say(&format!("{slot} is warm again: `bgctl rollback {}` makes it live", self.service)),
            Err(error) => ui.warn(&format!("what was warm on {slot} is not there again: {error}")),
        }
        Ok(())
    }

    async fn act(&mut self, action: Action, deployment: &str) -> Result<(), Error> {
        let ui = self.context.ui;
        match (action, self.engine) {
            (Action::Resume, _) => {
                ui.say("letting held requests go");
                self.client.resume(self.service).await?;
            }
            (Action::AwaitBake(slot), _) => {
                let mut events = self.client.drain(self.service, &Drain { slot: Some(slot), bake: true }).await?;
                while let Some(event) = events.next().await? {
                    ui.progress(&format!("{} is still being watched", slot.other()));
                    ui.event(&event);
                }
            }
            (Action::Clear(slot), _) => {
                ui.say(&format!("clearing {slot}"));
                clear(self.client, self.service, slot).await?;
            }
            (Action::EndOnce, Some(engine)) => engine.end_once(self.service).await?,
            (Action::Remove(instance), Some(engine)) => {
                ui.say(&format!("removing {}", instance.name));
                leased(self.client, engine.remove(&instance)).await?;
            }
            (Action::Stop(instance), Some(engine)) => {
                if instance.running {
                    ui.say(&format!("stopping {}", instance.name));
                }
                let grace = Settings::of(&instance).stop_grace;
                leased(self.client, engine.stop(&instance, grace)).await?;
            }
            (Action::Name(instance, kept), Some(engine)) => {
                let named = engine.set_kept(&instance, kept).await?;
                ui.say(&format!("{} is {} again", instance.name, named.name));
            }
            (Action::Start(instance), Some(engine)) => {
                ui.say(&format!("starting {} again", instance.name));
                leased(self.client, engine.start(&instance)).await?;
            }
            (Action::AwaitHealth(live), _) => {
                if let Err(error) = serves_again(self.client, self.service, &live, deployment).await {
                    ui.warn(&format!("the old version runs again, but does not serve: {error}"));
                }
            }
            (Action::Endpoints(endpoints), _) => {
                ui.say("taking replicas that were not finished out of the live slot");
                scale::set(self.client, self.service, endpoints).await?;
            }
            (Action::Warm(slot), Some(engine)) => self.warm(slot, engine).await?,
            (Action::Restart(instance, restart), Some(engine)) => engine.set_restart(&instance, restart).await?,
            (_, None) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
