//! stage -> healthy -> publish -> drain: what a switch asks of the proxy, in order.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::admin::request;
use config::admin::response::Flipped;
use config::admin::{AdminError, ErrorCode, Event};
use config::name::{ServiceName, Slot};
use tokio::sync::mpsc;

use super::bake::Bake;
use super::draining::{drain_run, end_run};
use super::flip_back;
use super::judge::Sample;
use super::progress::{Awaited, Progressing};
use super::saved::Saved;
use super::slot::{Drain, SlotRun};
use super::watching::watch_all;
use super::{Change, Control, Handle, not_saved, now_text, unknown};
use crate::routing::table::Index;
use crate::upstream::run::{Deadlines, Run, RunId};

/// What is still being sent of old assets when their slot gets another version is waited for so long.
const LAST_ASSETS: Duration = Duration::from_secs(5);

/// Applies the services of the file and begins their health checks. Returns the problems.
pub(super) fn apply_file(handle: &Rc<Handle>, services: &[config::model::FileService]) -> Vec<String> {
    let problems = handle.with(|control| control.apply_file(services));
    watch_all(handle);
    problems
}

/// Puts endpoints into the idle slot, probes them, and tells how that goes until they are healthy or the deadline is over.
///
/// # Errors
/// Where the slot is live, the change is not allowed, or the next state can't be saved; nothing is changed then.
pub async fn stage(
    handle: &Rc<Handle>,
    name: &ServiceName,
    stage: request::Stage,
    change: &Change,
) -> Result<mpsc::Receiver<Event>, AdminError> {
    let (deadline, clears) = (stage.deadline, stage.endpoints.is_empty() && !stage.no_endpoints);
    let events = handle.events.subscribe();
    let before = handle.with(|control| control.run_before(name, &stage));
    let slot = handle.with(|control| control.stage(name, stage, change))?;
    if let Some(gone) = before {
        // Whoever asked may stop it next.
        gone.assets_ended(LAST_ASSETS).await;
    }
    let (sender, receiver) = mpsc::channel(64);
    if !clears {
        watch_all(handle);
    }
    let (lease, awaited) = (change.lease.clone(), Awaited::Health(deadline));
    let progress = Progressing { handle: Rc::clone(handle), name: name.clone(), slot, lease, awaited };
    tokio::task::spawn_local(progress.tell(events, sender));
    Ok(receiver)
}

/// Makes a slot live: rename, publish, mark, in this order. The old slot then drains by itself.
///
/// # Errors
/// Where the slot is not healthy (and not forced), the change is not allowed, or it can't be saved; nothing is changed.
pub fn flip(
    handle: &Rc<Handle>,
    name: &ServiceName,
    flip: &request::Flip,
    change: &Change,
) -> Result<Flipped, AdminError> {
    let deadlines = Deadlines::of(flip);
    let (flipped, old, synced) = handle.with(|control| {
        let (flipped, old) = control.flip(name, flip, change)?;
        Ok::<_, AdminError>((flipped, old, control.store.sync_apart()))
    })?;
    if let Some(run) = handle.with(|control| control.baking_run(name)) {
        let (handle, name) = (Rc::clone(handle), name.clone());
        super::spawn("watching a bake", async move || flip_back::watch(&handle, &name, run).await);
    }
    let (handle, name) = (Rc::clone(handle), name.clone());
    tokio::task::spawn_local(async move {
        // Nobody who waits for the drain stops the old version before the flip is on the disk.
        if let Err(error) = synced.await {
            tracing::error!(%error, service = %name, "the folder of saved state could not be synced");
        }
        if let Some(run) = old {
            drain_run(handle, name, run, deadlines).await;
        }
    });
    Ok(flipped)
}

/// Flips back to the slot that was live before.
///
/// # Errors
/// `nothing_to_roll_back`, and those of [`flip`].
pub fn rollback(
    handle: &Rc<Handle>,
    name: &ServiceName,
    back: &request::Flip,
    change: &Change,
) -> Result<Flipped, AdminError> {
    handle.with(|control| {
        let service = control.services.get(name).ok_or_else(|| unknown(name))?;
        let warm = service.live.is_some() && service.was_live(service.idle());
        warm.then_some(()).ok_or_else(|| {
            AdminError::new(ErrorCode::NothingToRollBack, format!("{name} has no earlier version that is still warm"))
        })
    })?;
    flip(handle, name, back, change)
}

/// Tells how the drain of a slot goes, until it has ended, and with it the bake where that is asked for.
///
/// # Errors
/// Where the service is unknown or the slot empty.
pub fn drain(
    handle: &Rc<Handle>,
    name: &ServiceName,
    drain: &request::Drain,
    lease: Option<&str>,
) -> Result<mpsc::Receiver<Event>, AdminError> {
    let events = handle.events.subscribe();
    if let Some(flipped_back) = handle.with(|control| control.flipped_back(name, drain)) {
        let (sender, receiver) = mpsc::channel(1);
        // The channel is fresh and takes one.
        _ = sender.try_send(flipped_back);
        return Ok(receiver);
    }
    let (slot, ended) = handle.with(|control| control.drain_state(name, drain.slot))?;
    let is_baking = drain.bake && handle.with(|control| control.is_baking_back(name, slot));
    let (sender, receiver) = mpsc::channel(64);
    let is_drained = ended.is_some();
    if let Some((seconds, counts)) = ended {
        // The channel is fresh and takes one.
        _ = sender.try_send(Event::Drained { service: name.clone(), slot, seconds, counts });
    }
    if !is_drained || is_baking {
        let (lease, awaited) = (lease.map(str::to_owned), Awaited::End { drain: !is_drained, bake: is_baking });
        let progress = Progressing { handle: Rc::clone(handle), name: name.clone(), slot, lease, awaited };
        tokio::task::spawn_local(progress.tell(events, sender));
    }
    Ok(receiver)
}

/// Takes a service's routes away, and answers when nothing is in flight on it any more.
///
/// # Errors
/// Where the change is not allowed or can't be saved; nothing is changed then.
///
/// # Cancel safety
/// The service is gone at once; dropped, it drains by itself.
pub async fn delete(
    handle: &Rc<Handle>,
    name: &ServiceName,
    delete: &request::Delete,
    change: &Change,
) -> Result<(), AdminError> {
    let runs = handle.with(|control| control.delete(name, change))?;
    let draining: Vec<_> = runs
        .into_iter()
        .map(|run| {
            let deadlines = Deadlines { requests: delete.drain, tunnels: delete.drain };
            let handle = Rc::clone(handle);
            tokio::task::spawn_local(async move { end_run(&handle, &run, deadlines).await })
        })
        .collect();
    for run in draining {
        // A drain that panicked has said so; the service is gone all the same.
        drop(run.await);
    }
    Ok(())
}

impl Control {
    /// Returns the run that a staging takes the place of.
    fn run_before(&self, name: &ServiceName, stage: &request::Stage) -> Option<Arc<Run>> {
        let service = self.services.get(name)?;
        let slot = stage.slot.unwrap_or_else(|| service.idle());
        service.slot(slot).map(|state| Arc::clone(&state.run))
    }

    pub(super) fn stage(
        &mut self,
        name: &ServiceName,
        mut stage: request::Stage,
        change: &Change,
    ) -> Result<Slot, AdminError> {
        use config::admin::response::Origin::Admin;
        let made = self.services.get(name).is_some_and(|service| service.generation > 0);
        if !made && stage.settings.is_none() {
            return Err(unknown(name).hint("create it with PUT, or stage it with `settings`"));
        }
        self.admit(name, change, Admin)?;
        if let Some(settings) = &stage.settings {
            self.compile_index(name, Some(settings))?;
        }
        let workers = self.workers;
        let service = self.entry(name, Admin);
        let slot = stage.slot.unwrap_or_else(|| service.idle());
        if service.live == Some(slot) {
            return Err(AdminError::new(ErrorCode::SlotIsLive, format!("{slot} of {name} is live"))
                .hint("stage the other slot, then flip to it"));
        }
        match (stage.endpoints.is_empty(), stage.no_endpoints) {
            (true, false) => return self.clear(name, slot),
            (false, true) => {
                let message = format!("{slot} of {name} can't have endpoints and no endpoints");
                return Err(AdminError::new(ErrorCode::BadRequest, message));
            }
            (true, true) | (false, false) => {}
        }
        let live = service.live.and_then(|live| service.slot(live)?.deployment.as_deref());
        let names = std::mem::take(&mut stage.kept_headers);
        match service.kept_headers.find(names, [stage.deployment.as_deref(), live]) {
            Ok(found) => stage.health.headers.extend(found),
            Err(error) => {
                self.forget_unmade(name);
                return Err(error);
            }
        }
        let mut kept = service.kept_headers.clone();
        kept.keep(stage.deployment.as_deref(), &stage.health.headers);
        let settings = stage.settings.clone();
        let healthy_at_once = !stage.health.enabled || stage.no_endpoints;
        let state = SlotRun::staged(
            Run::of_service(slot, workers, Arc::clone(&service.counters)),
            stage,
            now_text(),
            Instant::now(),
        );
        let before = (service.next_settings.take(), service.slot_mut(slot).replace(state));
        service.next_settings = settings;
        service.generation += 1;
        std::mem::swap(&mut service.kept_headers, &mut kept);
        let next = service.saved_after_flip(slot);
        let prepared = self.store.prepare(&next).map_err(|error| (error, true));
        // The version that visitors see of the idle slot must not come back with a restart in the place of this one.
        let written = prepared.and_then(|()| self.store.write_shown(name, None).map_err(|error| (error, false)));
        if let Err((error, is_as_before)) = written {
            // Refused in words, and nothing has changed.
            let service = self.entry(name, Admin);
            service.prepared.take_if(|_| !is_as_before);
            service.generation -= 1;
            service.next_settings = before.0;
            service.kept_headers = kept;
            *service.slot_mut(slot) = before.1;
            self.forget_unmade(name);
            return Err(not_saved(&error));
        }
        let service = self.entry(name, Admin);
        // What was there is not gone back to any more.
        service.bake = None;
        service.flipped_back = None;
        service.canary = None;
        service.preview = None;
        service.compile();
        service.prepared = Some(next);
        let generation = service.generation;
        if let Some(live) = service.live.and_then(|live| service.slot_mut(live).as_mut()) {
            live.base = live.run.counts();
        }
        self.recompile();
        // Behind the table that names it no more: who is turned away looks there again.
        before.1.iter().for_each(|gone| {
            gone.run.drain();
            gone.run.end_replays();
            gone.run.end_assets();
        });
        self.news.push(Event::Staged { service: name.clone(), slot, generation });
        if healthy_at_once {
            self.news.push(Event::Healthy { service: name.clone(), slot, seconds: 0.0 });
            self.warm_up(name, slot);
        }
        Ok(slot)
    }

    /// Makes a slot warm whose version took requests before it was staged, now that it is healthy: it is what a rollback leads to, and
    /// is kept over a restart.
    pub(super) fn warm_up(&mut self, name: &ServiceName, slot: Slot) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(state) = service.slot_mut(slot).as_mut().filter(|state| state.warms_up) else { return };
        (state.warms_up, state.was_live) = (false, true);
        // As every slot that is not live any more.
        state.run.drain();
        let saved = service.saved();
        if let Err(error) = self.save(&saved) {
            tracing::warn!(%error, service = %name, "the warm version is not there after a restart");
        }
    }

    fn clear(&mut self, name: &ServiceName, slot: Slot) -> Result<Slot, AdminError> {
        let Some(service) = self.services.get(name) else { return Err(unknown(name)) };
        let was_live = service.was_live(slot);
        let mut saved = service.saved();
        saved.generation += 1;
        match slot {
            Slot::Blue => saved.blue = None,
            Slot::Green => saved.green = None,
        }
        // For the generation's sake alone nobody is kept from taking away what failed.
        self.save(&saved).or_else(|error| if was_live { Err(error) } else { Ok(()) })?;
        let Some(service) = self.services.get_mut(name) else { return Err(unknown(name)) };
        service.end_bake();
        service.canary = None;
        service.preview = None;
        let gone = service.slot_mut(slot).take();
        self.forget_shown(name);
        let Some(service) = self.services.get_mut(name) else { return Err(unknown(name)) };
        service.next_settings = None;
        service.prepared = None;
        service.generation = saved.generation;
        service.compile();
        self.publish();
        if let Some(state) = gone {
            state.run.drain();
            state.run.end_assets();
        }
        self.news.push(Event::Cleared { service: name.clone(), slot });
        Ok(slot)
    }

    pub(super) fn flip(
        &mut self,
        name: &ServiceName,
        flip: &request::Flip,
        change: &Change,
    ) -> Result<(Flipped, Option<Arc<Run>>), AdminError> {
        if self.services.get(name).is_none_or(|service| service.generation == 0) {
            return Err(unknown(name));
        }
        self.admit(name, change, config::admin::response::Origin::Admin)?;
        let Some(service) = self.services.get_mut(name) else { return Err(unknown(name)) };
        let to = flip.to.unwrap_or_else(|| service.idle());
        if service.live == Some(to) {
            return Err(AdminError::new(ErrorCode::SlotIsLive, format!("{to} of {name} is live already")));
        }
        let Some(state) = service.slot(to) else {
            return Err(AdminError::new(ErrorCode::EmptySlot, format!("{to} of {name} is empty"))
                .hint("stage endpoints into it first"));
        };
        if !flip.force && !state.is_healthy() {
            let complaint = state.complaint();
            return Err(AdminError::new(ErrorCode::NotHealthy, format!("{to} of {name} is not healthy: {complaint}"))
                .hint("wait for it, or force the flip"));
        }
        let next = service.saved_after_flip(to);
        let settings = next.settings.clone();
        let prepared = service.prepared.as_ref() == Some(&next);
        let index = self.compile_index(name, Some(&settings))?;
        if !prepared {
            self.store.prepare(&next).map_err(|error| not_saved(&error))?;
            self.entry(name, config::admin::response::Origin::Admin).prepared = None;
        }
        self.store.commit(name).map_err(|error| not_saved(&error))?;
        let bake = self.services.get(name).and_then(|service| flip_back::begin(service, to, flip, &settings));
        let (flipped, old) = self.publish_flip(name, to, index, next, bake);
        let Flipped { live, old: before, flip_micros, .. } = flipped;
        self.news.push(Event::Flipped { service: name.clone(), live, old: before, flip_micros });
        Ok((flipped, old))
    }

    /// The flip itself; nothing in it can fail.
    pub(super) fn publish_flip(
        &mut self,
        name: &ServiceName,
        to: Slot,
        index: Arc<Index>,
        next: Saved,
        bake: Option<Bake>,
    ) -> (Flipped, Option<Arc<Run>>) {
        let service = self.services.get_mut(name).expect("whoever flips a service has found it");
        let old = service.live;
        let back = service.was_live(to);
        service.canary = None;
        service.preview = None;
        service.flipped_back = None;
        let now = Sample::of(&service.counters.sums(to));
        if let Some(state) = service.slot_mut(to) {
            // A run that still drains takes requests again; whoever waited for it is told.
            state.run.revive();
            state.run.clear_suspicion();
            state.run.is_well();
            (state.warms_up, state.was_live) = (false, true);
            state.drain = None;
            state.since = now_text();
            state.lately.note(now);
        }
        if back {
            for state in [&mut service.blue, &mut service.green].into_iter().flatten() {
                state.base = state.run.counts();
            }
        }
        service.flips += 1;
        service.live = Some(to);
        service.settings = next.settings;
        service.routed = true;
        service.generation = next.generation;
        service.next_settings = None;
        service.prepared = None;
        service.bake = bake;
        service.compile();
        let old_run = old.and_then(|old| service.slot(old)).map(|state| Arc::clone(&state.run));
        let to_run = service.slot(to).map(|state| Arc::clone(&state.run));
        if let Some(run) = old_run.as_ref().filter(|_| service.bake.is_some()) {
            run.begin_replays();
        }
        self.index = index;
        self.found_again(name);
        let table = self.table();

        let began = Instant::now();
        self.live.publish(table);
        if let Some(run) = &old_run {
            run.drain();
        }
        // Only now: a request that the version failed which is left is let in by the one word or by the other.
        to_run.iter().for_each(|run| run.end_replays());
        let flip_micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);

        let in_flight = old_run.as_ref().map_or(0, |run| run.in_flight());
        if let Some(state) = old.and_then(|old| self.services.get_mut(name)?.slot_mut(old).as_mut()) {
            state.drain = Some(Drain { began, ended: None });
            state.since = now_text();
        }
        // Behind the flip, as it may wait for the disk: should it come too late, what is live says that it is over.
        self.forget_shown(name);
        (Flipped { live: to, old, flip_micros, in_flight, generation: next.generation }, old_run)
    }

    /// Returns the run whose bake began just now.
    fn baking_run(&self, name: &ServiceName) -> Option<RunId> {
        let service = self.services.get(name).filter(|service| service.bake.is_some())?;
        service.live.and_then(|live| service.slot(live)).map(|state| state.run.id())
    }

    /// Returns the flip back that ended the bake which is asked for.
    pub(super) fn flipped_back(&self, name: &ServiceName, drain: &request::Drain) -> Option<Event> {
        let service = self.services.get(name).filter(|service| drain.bake && service.live == drain.slot)?;
        service.flipped_back.clone()
    }

    fn is_baking_back(&self, name: &ServiceName, slot: Slot) -> bool {
        let bake = self.services.get(name).and_then(|service| service.bake.as_ref());
        bake.is_some_and(|bake| bake.back == slot)
    }

    fn drain_state(
        &mut self,
        name: &ServiceName,
        slot: Option<Slot>,
    ) -> Result<(Slot, Option<(f64, config::admin::response::Counts)>), AdminError> {
        let service = self.services.get(name).ok_or_else(|| unknown(name))?;
        let slot = slot.unwrap_or_else(|| service.idle());
        if service.live == Some(slot) {
            return Err(AdminError::new(
                ErrorCode::SlotIsLive,
                format!("{slot} of {name} is live, so it does not drain"),
            ));
        }
        let counts = service.counts(slot);
        match service.slot(slot).map(|state| &state.drain) {
            Some(Some(Drain { ended: None, .. })) => Ok((slot, None)),
            Some(Some(Drain { ended: Some((seconds, _)), .. })) => Ok((slot, Some((*seconds, counts)))),
            // Nothing was ever live there: nothing is in flight.
            Some(None) | None => Ok((slot, Some((0.0, counts)))),
        }
    }
}
