//! One call, or one blow, for control and for the model.

use std::time::Duration;

use config::admin::event::Verdict;
use config::admin::journal::{Journal, Outcome as End, StepState, Work};
use config::admin::request::{Canary, Drain, Flip, Lease, Maintenance, Pause, Stage};
use config::defaults;
use config::health::HealthCheck;
use proptest::prelude::*;

use super::model::{Held, Version};
use super::*;
use crate::control::flip_back::Look;
use crate::health::Outcome;

impl Pair {
    /// The change that a call is made under, and whether it is refused for that alone.
    fn change(&self, manner: Manner) -> (Change, bool) {
        let held = self.model.lease.as_ref().filter(|lease| lease.is_fresh).map(|lease| lease.id.clone());
        let generation = self.generation();
        match manner {
            Manner::Rightly => (Change { if_match: IfMatch::Generation(generation), lease: held }, false),
            Manner::Stale => (Change { if_match: IfMatch::Generation(generation + 1), lease: held }, true),
            Manner::Strange => {
                let is_refused = held.is_some();
                (Change { if_match: IfMatch::Any, lease: Some("somebody's".to_owned()) }, is_refused)
            }
        }
    }

    /// Does it to both, and compares what each says of it.
    pub(super) fn take(&mut self, call: Call, manner: Manner) -> Result<(), TestCaseError> {
        let (change, is_refused) = self.change(manner);
        let Self { control, shop, model, .. } = self;
        let may_write = !is_refused && !model.is_full;
        match call {
            Call::Put => {
                let done = control.put(shop, settings("shop.test"), &change).is_ok();
                prop_assert_eq!(done, may_write);
                if done {
                    (model.exists, model.now.routed) = (true, true);
                    model.save();
                }
            }
            Call::Stage { slot, probed } => {
                let port = 1000 + model.number();
                let stage = Stage {
                    slot: Some(slot),
                    endpoints: vec![format!("127.0.0.1:{port}").parse().unwrap()],
                    health: HealthCheck { enabled: probed, ..HealthCheck::default() },
                    settings: Some(settings("shop.test")),
                    ..Stage::default()
                };
                let done = control.stage(shop, stage, &change).is_ok();
                prop_assert_eq!(done, may_write && model.now.live != Some(slot));
                if done {
                    (model.exists, model.bake, model.canary, model.is_changed) = (true, None, None, true);
                    model.shown = None;
                    let version = Version {
                        port,
                        probed,
                        was_live: false,
                        healthy: !probed,
                        passes: 0,
                        failures: 0,
                        second: None,
                    };
                    model.now.slots.insert(slot, version);
                    model.prepare();
                    model.prepared = Some(slot);
                }
                if !is_refused {
                    model.forget_unmade();
                }
            }
            Call::Clear(slot) => {
                let stage = Stage { slot: Some(slot), ..Stage::default() };
                let done = control.stage(shop, stage, &change).is_ok();
                let was_live = model.now.slots.get(&slot).is_some_and(|version| version.was_live);
                let may = !(is_refused || was_live && model.is_full);
                prop_assert_eq!(done, may && model.exists && model.now.live != Some(slot));
                if done {
                    model.now.slots.remove(&slot);
                    (model.bake, model.canary, model.prepared, model.is_changed) = (None, None, None, true);
                    model.shown = None;
                    // What was only staged is taken away on a full disk too.
                    if model.is_full { model.is_ahead = true } else { model.save() }
                }
            }
            Call::Probe { slot, outcome } => return self.probe(slot, outcome),
            Call::Flip { to, force, bake } => {
                let duration = if bake { Duration::from_secs(10) } else { Duration::ZERO };
                let flip = Flip { to: Some(to), force, bake: duration, ..Flip::default() };
                let was_healthy = control.service(shop).is_ok_and(|status| {
                    let endpoints = &status.slots.get(to).endpoints;
                    !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.healthy)
                });
                let flipped = control.flip(shop, &flip, &change).ok();
                // S8, said without the model.
                prop_assert!(flipped.is_none() || force || was_healthy);
                let version = model.now.slots.get(&to);
                let may = model.now.live != Some(to) && version.is_some_and(|version| version.is_healthy() || force);
                // F8: what was staged is flipped to on a full disk too.
                let may = may && !is_refused && (!model.is_full || model.prepared == Some(to));
                prop_assert_eq!(flipped.is_some(), may);
                if let Some((flipped, old)) = flipped {
                    prop_assert_eq!((flipped.old, old.map(|old| old.slot())), (model.now.live, model.now.live));
                    model.flip(to, bake);
                    model.save();
                }
            }
            Call::Endpoints { second } => {
                let version = model.now.live.and_then(|live| model.now.slots.get_mut(&live));
                let port = version.as_ref().map_or(1, |version| version.port);
                let ports = [port, SECOND];
                let wanted = &ports[..if second { 2 } else { 1 }];
                let wanted: Vec<EndpointAddr> =
                    wanted.iter().map(|port| format!("127.0.0.1:{port}").parse().unwrap()).collect();
                let done = control.set_endpoints(shop, &wanted, &change).is_ok();
                prop_assert_eq!(done, may_write && version.is_some());
                if let Some(version) = version.filter(|_| done) {
                    version.second = second.then(|| version.second.unwrap_or(!version.probed));
                    model.save();
                }
            }
            Call::FlipBack => {
                let Some(run) = self.model.now.live.and_then(|live| self.run_of(live)) else { return Ok(()) };
                let (control, model) = (&mut self.control, &mut self.model);
                let done = control.flip_back(&self.shop, run.id(), Verdict::Dead, "died".to_owned()).is_some();
                let back = model.bake.filter(|back| model.now.slots[back].is_healthy());
                prop_assert_eq!(done, back.is_some());
                if let Some(back) = back {
                    model.flip(back, false);
                    // Visitors first: it stands on a full disk too.
                    if model.is_full {
                        model.is_ahead = true
                    } else {
                        model.save()
                    }
                    model.note_flip_back();
                    let drain = Drain { slot: Some(back), bake: true };
                    prop_assert!(control.flipped_back(&self.shop, &drain).is_some(), "whoever asks is told");
                }
            }
            Call::EndBake => {
                let Some(run) = self.model.now.live.and_then(|live| self.run_of(live)) else { return Ok(()) };
                let later = Instant::now() + Duration::from_secs(60);
                let look = self.control.look_at_bake(&self.shop, run.id(), later);
                prop_assert_eq!(matches!(look, Look::Over(..)), self.model.bake.is_some());
                self.control.end_bake(&self.shop, run.id());
                self.model.bake = None;
            }
            Call::Canary(on) => {
                let wanted = Canary { percent: if on { 10 } else { 0 }, ..Canary::default() };
                let done = control.set_canary(shop, &wanted, &change).is_ok();
                let idle = model.now.live.map(Slot::other);
                let healthy = idle.filter(|idle| model.now.slots.get(idle).is_some_and(Version::is_healthy));
                prop_assert_eq!(done, !is_refused && model.exists && (!on || may_write && healthy.is_some()));
                if done {
                    model.canary = healthy.filter(|_| on);
                    model.is_waiting = false;
                    model.shown = model.canary.map(|slot| (slot, model.now.slots[&slot].clone()));
                    model.bake.take_if(|_| on);
                }
            }
            Call::CanaryFails => {
                control.end_canary(shop, Some("it does far worse".to_owned()));
                (model.canary, model.shown) = (None, None);
            }
            Call::Pause => {
                let gate = control.pause(shop, &Pause::default(), &change).ok();
                prop_assert_eq!(gate.is_some(), !is_refused && model.exists);
                model.paused |= gate.is_some();
                self.gates.extend(gate);
            }
            Call::Resume => {
                control.open_gate(shop, None);
                model.paused = false;
            }
            Call::PauseEnds => {
                let Some(gate) = self.gates.first() else { return Ok(()) };
                control.open_gate(shop, Some(gate));
                // A later pause goes on.
                model.paused &= self.gates.len() > 1;
            }
            Call::Maintenance(on) => {
                let done = control.maintenance(shop, Maintenance { on, ..Maintenance::default() }, &change).is_ok();
                prop_assert_eq!(done, may_write && model.exists);
                if done {
                    model.now.maintenance = on;
                    model.save();
                }
            }
            Call::Lease(leasing) => return self.lease(leasing, manner),
            Call::Silence => {
                if let Some(service) = control.services.get_mut(shop) {
                    service.lease.age(defaults::LEASE);
                }
                model.lease.iter_mut().for_each(|lease| lease.is_fresh = false);
            }
            Call::Journal(noting) => return self.note(noting, manner),
            Call::Delete => {
                let known = control.services.contains_key(shop) || !control.state_lost().is_empty();
                let may = known && !is_refused;
                prop_assert_eq!(control.delete(shop, &change).is_ok(), may);
                if may {
                    model.forget();
                }
            }
            Call::Disk { full } => (control.store.is_full, model.is_full) = (full, full),
            Call::Kill { .. } | Call::Tear | Call::TearJournal => return self.kill(call),
        }
        Ok(())
    }

    fn probe(&mut self, slot: Slot, outcome: Found) -> Result<(), TestCaseError> {
        let Some(run) = self.run_of(slot) else { return Ok(()) };
        let endpoint = format!("127.0.0.1:{}", self.model.now.slots[&slot].port).parse().unwrap();
        let words = "words".to_owned();
        let found = match outcome {
            Found::Good => Outcome::Passed(words),
            Found::Bad => Outcome::Failed(words),
            Found::Nothing => Outcome::Dead(words),
        };
        let healthy = self.control.probed(Probed { run: run.id(), endpoint, addresses: None, outcome: found });
        self.model.probe(slot, outcome);
        prop_assert_eq!(healthy, Some(self.model.now.slots[&slot].healthy));
        Ok(())
    }

    fn lease(&mut self, leasing: Leasing, manner: Manner) -> Result<(), TestCaseError> {
        let Self { control, shop, model, .. } = self;
        let held = model.lease.clone();
        let is_own = manner != Manner::Strange && held.is_some();
        let id = held.as_ref().filter(|_| is_own).map_or_else(|| "somebody's".to_owned(), |held| held.id.clone());
        match leasing {
            Leasing::Acquire => {
                let acquire = Lease::Acquire { who: "alice@laptop".to_owned(), what: String::new() };
                let given = control.lease(shop, acquire).ok();
                prop_assert_eq!(given.is_some(), !model.is_held(), "two hold the lease");
                if let Some(given) = given {
                    prop_assert!(held.is_none_or(|held| held.id != given.lease));
                    model.keep_lease(Some(Held { id: given.lease, is_fresh: true }));
                }
            }
            Leasing::Renew => {
                prop_assert_eq!(control.lease(shop, Lease::Renew { lease: id }).is_ok(), is_own);
                model.lease.iter_mut().filter(|_| is_own).for_each(|lease| lease.is_fresh = true);
            }
            Leasing::Release => {
                control.lease(shop, Lease::Release { lease: id }).unwrap();
                if is_own {
                    model.keep_lease(None);
                }
            }
        }
        model.forget_unmade();
        Ok(())
    }

    fn note(&mut self, noting: Noting, manner: Manner) -> Result<(), TestCaseError> {
        let (change, _) = self.change(manner);
        let Self { control, shop, model, .. } = self;
        let id = model.journal.first().map_or_else(|| "nobody's".to_owned(), |noted| noted.id.clone());
        let may = !model.is_full && (manner != Manner::Strange || !model.is_held());
        let is_open = model.journal.first().is_some_and(|noted| noted.is_open);
        let (line, may) = match noting {
            Noting::Begin => (Journal::Begin { work: work(model.number()) }, may),
            Noting::Step => (Journal::Step { id, step: "create".to_owned(), state: StepState::Begun }, may && is_open),
            Noting::End => {
                let report = Box::new(serde_json::Value::Null);
                (Journal::End { id, outcome: End::Done, report, log: None }, may && is_open)
            }
        };
        let begun = match &line {
            Journal::Begin { work } => Some(work.id.clone()),
            Journal::Step { .. } | Journal::End { .. } => None,
        };
        prop_assert_eq!(control.journal(shop, line, change.lease.as_deref()).is_ok(), may);
        if may {
            match (noting, begun) {
                (Noting::Step, _) => {
                    // Begun again, it is the same step.
                    model.journal[0].steps = 1;
                }
                (Noting::Begin, Some(id)) => {
                    model.journal.iter_mut().for_each(|noted| noted.is_open = false);
                    model.journal.insert(0, Noted { id, steps: 0, is_open: true, flipped_back: false });
                }
                (Noting::Begin | Noting::End, _) => model.journal[0].is_open = false,
            }
            model.write_journal();
        }
        Ok(())
    }

    fn kill(&mut self, call: Call) -> Result<(), TestCaseError> {
        let mut found = self.model.json.clone();
        match call {
            Call::Tear => {
                if self.model.json.is_none() {
                    return Ok(());
                }
                self.damage("json");
                found.clone_from(&self.model.previous);
            }
            Call::TearJournal => {
                if !self.file("journal").exists() {
                    return Ok(());
                }
                self.damage("journal");
                self.model.journal_kept.clear();
            }
            Call::Kill { writing: true } => {
                for kind in ["tmp", "next.tmp", "journal.tmp", "log.tmp"] {
                    std::fs::write(self.file(kind), "bluegreen-state 1 half a").unwrap();
                }
            }
            _ => {}
        }
        self.reopen();
        self.model.restart(found);
        if matches!(call, Call::Tear) {
            let lost = self.control.state_lost();
            prop_assert_eq!(lost.is_empty(), self.model.exists, "{:?}", lost);
            if !self.model.exists {
                // Lost for good; the file that can't be read is in its place until the service is made anew.
                std::fs::remove_file(self.file("json")).unwrap();
            }
        }
        Ok(())
    }

    /// Cuts a file in half where it stands.
    fn damage(&self, kind: &str) {
        let file = std::fs::File::options().write(true).open(self.file(kind)).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    }
}

fn work(number: u16) -> Work {
    Work {
        id: number.to_string(),
        deployment: number.to_string(),
        what: "switch to shop:42".to_owned(),
        who: "alice@laptop".to_owned(),
        note: None,
        slot: Slot::Blue,
        image: None,
        image_id: None,
        revision: None,
        old_image: None,
        with: Vec::new(),
        scale: None,
    }
}
