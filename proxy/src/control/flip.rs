//! stage -> healthy -> publish -> drain: what a switch asks of the proxy, in order.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::admin::request;
use config::admin::response::Flipped;
use config::admin::{AdminError, ErrorCode, Event};
use config::name::{HostPattern, ServiceName, Slot};
use config::options::Protocol;
use tokio::sync::mpsc;

use super::service::{Drain, SlotRun};
use super::{Change, Control, Handle, not_saved, now_text, unknown};
use crate::health::{self, Watched};
use crate::upstream::inflight::Progress;
use crate::upstream::resolve::resolve;
use crate::upstream::run::{Run, RunId};
use crate::worker::Resolve;

/// After the drain deadline, what was told to end is waited for so long.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Workers that are busy may hear of so many cuts at once.
const REMEMBERED_CUTS: usize = 64;
/// How often a long call says how far it has got, and keeps its lease.
const PROGRESS: Duration = Duration::from_secs(1);

/// Begins the health checks of restored services, and looks names up anew for workers that could not connect.
pub(crate) fn start(handle: &Rc<Handle>, mut resolver: mpsc::UnboundedReceiver<Resolve>) {
    watch_all(handle);
    let handle = Rc::clone(handle);
    tokio::task::spawn_local(async move {
        while let Some(Resolve { run, endpoint, reply }) = resolver.recv().await {
            let handle = Rc::clone(&handle);
            tokio::task::spawn_local(async move {
                let addresses = resolve(&endpoint).await.unwrap_or_default();
                if !addresses.is_empty() {
                    handle.with(|control| control.resolved(run, &endpoint, &addresses));
                }
                // The request may have ended meanwhile.
                _ = reply.send(addresses);
            });
        }
    });
}

/// Applies the services of the file and begins their health checks. Returns the problems.
pub(super) fn apply_file(handle: &Rc<Handle>, services: &[config::model::FileService]) -> Vec<String> {
    let problems = handle.with(|control| control.apply_file(services));
    watch_all(handle);
    problems
}

/// Begins the health checks of runs that are not watched yet.
pub(crate) fn watch_all(handle: &Rc<Handle>) {
    let all: Vec<Watched> = handle.with(|control| {
        let slots = control.services.values().flat_map(|s| Slot::BOTH.map(|slot| (s, slot)));
        slots.filter_map(|(service, slot)| Some(watched(service, service.slot(slot)?))).flatten().collect()
    });
    for watched in all {
        if handle.with(|control| control.watching.insert((watched.run, watched.endpoint.clone()))) {
            tokio::task::spawn_local(health::watch(Rc::clone(handle), watched));
        }
    }
}

fn watched(service: &super::Service, state: &SlotRun) -> Vec<Watched> {
    let settings = service.next_settings.as_ref().unwrap_or(&service.settings);
    let domain = settings.domains.iter().find_map(|domain| match domain {
        HostPattern::Exact(name) => Some(name.clone()),
        HostPattern::Wildcard(_) | HostPattern::Any => None,
    });
    let host = state.health.host.clone().or(domain).unwrap_or_else(|| service.name.to_string());
    let watch = |endpoint: &super::service::EndpointHealth| Watched {
        run: state.run.id(),
        endpoint: endpoint.endpoint.address.clone(),
        check: state.health.clone(),
        host: host.clone(),
        settled: state.was_live,
    };
    state.endpoints.iter().map(watch).collect()
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
    let (deadline, clears) = (stage.deadline, stage.endpoints.is_empty());
    let events = handle.events.subscribe();
    let slot = handle.with(|control| control.stage(name, stage, change))?;
    let (sender, receiver) = mpsc::channel(64);
    if !clears {
        watch_all(handle);
    }
    let progress = Progressing { handle: Rc::clone(handle), name: name.clone(), slot, lease: change.lease.clone() };
    tokio::task::spawn_local(progress.tell(events, sender, Some(deadline)));
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
    let deadline = flip.drain;
    let (flipped, old, synced) = handle.with(|control| {
        let (flipped, old) = control.flip(name, flip, change)?;
        Ok::<_, AdminError>((flipped, old, control.store.sync_apart()))
    })?;
    let (handle, name) = (Rc::clone(handle), name.clone());
    tokio::task::spawn_local(async move {
        // Nobody who waits for the drain stops the old version before the flip is on the disk.
        if let Err(error) = synced.await {
            tracing::error!(%error, service = %name, "the folder of saved state could not be synced");
        }
        if let Some(run) = old {
            drain_run(handle, name, run, deadline).await;
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

/// Tells how the drain of a slot goes, until it has ended.
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
    let (slot, ended) = handle.with(|control| control.drain_state(name, drain.slot))?;
    let (sender, receiver) = mpsc::channel(64);
    match ended {
        Some((seconds, counts)) => {
            // The channel is fresh and takes one.
            _ = sender.try_send(Event::Drained { service: name.clone(), slot, seconds, counts });
        }
        None => {
            let lease = lease.map(str::to_owned);
            let progress = Progressing { handle: Rc::clone(handle), name: name.clone(), slot, lease };
            tokio::task::spawn_local(progress.tell(events, sender, None));
        }
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
            let (handle, deadline) = (Rc::clone(handle), delete.drain);
            tokio::task::spawn_local(async move { end_run(&handle, &run, deadline).await })
        })
        .collect();
    for run in draining {
        // A drain that panicked has said so; the service is gone all the same.
        drop(run.await);
    }
    Ok(())
}

/// Waits for a run that was marked, and tells its end.
async fn drain_run(handle: Rc<Handle>, name: ServiceName, run: Arc<Run>, deadline: Duration) {
    if end_run(&handle, &run, deadline).await != Progress::Superseded {
        handle.with(|control| control.drained(&name, run.id()));
    }
}

/// Waits for a run that was marked; at the deadline ends what is left.
async fn end_run(handle: &Rc<Handle>, run: &Run, deadline: Duration) -> Progress {
    if let Ok(end) = tokio::time::timeout(deadline, run.drained()).await {
        return end;
    }
    run.cut_off();
    handle.with(|control| control.cut(run.id()));
    tokio::time::timeout(LAST_WORDS, run.drained()).await.unwrap_or_else(|_| run.progress())
}

/// A long call, and whom it keeps informed.
struct Progressing {
    handle: Rc<Handle>,
    name: ServiceName,
    slot: Slot,
    lease: Option<String>,
}

impl Progressing {
    /// Passes on what concerns the slot until something ends the call.
    async fn tell(
        self,
        mut events: tokio::sync::broadcast::Receiver<Event>,
        sender: mpsc::Sender<Event>,
        deadline: Option<Duration>,
    ) {
        let deadline = deadline.map(|deadline| tokio::time::Instant::now() + deadline);
        let mut tick = tokio::time::interval(PROGRESS);
        loop {
            let over = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(event) if self.concerns(&event) => event,
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                },
                () = over => Event::Error(self.handle.with(|control| control.not_healthy(&self.name, self.slot))),
                // Whoever asked has gone: then the lease must run out.
                () = sender.closed() => return,
                _ = tick.tick() => {
                    self.handle.with(|control| control.keep_lease(&self.name, self.lease.as_deref()));
                    match self.handle.with(|control| control.in_flight(&self.name, self.slot)) {
                        Some(in_flight) if deadline.is_none() => {
                            Event::Draining { service: self.name.clone(), slot: self.slot, in_flight }
                        }
                        _ => continue,
                    }
                }
            };
            let event = match event {
                // Whoever waited for a drain waits in vain: the slot is live again.
                Event::Flipped { live, .. } if live == self.slot && deadline.is_none() => {
                    Event::Error(AdminError::new(
                        ErrorCode::Superseded,
                        format!("{live} of {} is live again, so it does not drain", self.name),
                    ))
                }
                Event::Flipped { .. } => continue,
                other => other,
            };
            let last = matches!(
                event,
                Event::Healthy { .. }
                    | Event::Drained { .. }
                    | Event::Cleared { .. }
                    | Event::Removed { .. }
                    | Event::Error(_)
            );
            if sender.send(event).await.is_err() || last {
                return;
            }
        }
    }

    fn concerns(&self, event: &Event) -> bool {
        match event {
            Event::Staged { service, slot, .. }
            | Event::Probe { service, slot, .. }
            | Event::Healthy { service, slot, .. }
            | Event::Drained { service, slot, .. }
            | Event::Cleared { service, slot } => *service == self.name && *slot == self.slot,
            Event::Flipped { service, .. } | Event::Removed { service } => *service == self.name,
            Event::Draining { .. }
            | Event::Health { .. }
            | Event::Changed { .. }
            | Event::Reloaded { .. }
            | Event::Error(_) => false,
        }
    }
}

impl Control {
    pub(super) fn stage(
        &mut self,
        name: &ServiceName,
        stage: request::Stage,
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
        if stage.endpoints.is_empty() {
            return self.clear(name, slot);
        }
        let settings = stage.settings.clone();
        let healthy_at_once = !stage.health.enabled;
        let state = SlotRun::staged(
            Run::of_service(slot, workers, Arc::clone(&service.counters)),
            stage,
            now_text(),
            Instant::now(),
        );
        let before = (service.next_settings.take(), service.slot_mut(slot).replace(state));
        service.next_settings = settings;
        service.generation += 1;
        let next = service.saved_after_flip(slot);
        if let Err(error) = self.store.prepare(&next) {
            // Refused in words, and nothing has changed.
            let service = self.entry(name, Admin);
            service.generation -= 1;
            service.next_settings = before.0;
            *service.slot_mut(slot) = before.1;
            self.forget_unmade(name);
            return Err(not_saved(&error));
        }
        let service = self.entry(name, Admin);
        service.prepared = Some(next);
        let generation = service.generation;
        if let Some(live) = service.live.and_then(|live| service.slot_mut(live).as_mut()) {
            live.base = live.run.counts();
        }
        self.recompile();
        self.news.push(Event::Staged { service: name.clone(), slot, generation });
        if healthy_at_once {
            self.news.push(Event::Healthy { service: name.clone(), slot, seconds: 0.0 });
        }
        Ok(slot)
    }

    fn clear(&mut self, name: &ServiceName, slot: Slot) -> Result<Slot, AdminError> {
        let Some(service) = self.services.get_mut(name) else { return Err(unknown(name)) };
        let gone = service.slot_mut(slot).take();
        service.next_settings = None;
        service.prepared = None;
        service.generation += 1;
        service.compile();
        let saved = service.saved();
        if gone.as_ref().is_some_and(|state| state.was_live) {
            self.save(&saved)?;
        }
        if let Some(state) = gone {
            state.run.drain();
        }
        self.publish();
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
        let prepared = service.prepared.take().as_ref() == Some(&next);
        let index = self.compile_index(name, Some(&settings))?;
        if !prepared {
            self.store.prepare(&next).map_err(|error| not_saved(&error))?;
        }
        self.store.commit(name).map_err(|error| not_saved(&error))?;
        Ok(self.publish_flip(name, to, index, next))
    }

    /// The flip itself; nothing in it can fail.
    fn publish_flip(
        &mut self,
        name: &ServiceName,
        to: Slot,
        index: Arc<crate::routing::table::Index>,
        next: super::store::Saved,
    ) -> (Flipped, Option<Arc<Run>>) {
        let service = self.services.get_mut(name).expect("whoever flips a service has found it");
        let old = service.live;
        let back = service.was_live(to);
        if let Some(state) = service.slot_mut(to) {
            // A run that still drains takes requests again; whoever waited for it is told.
            state.run.revive();
            state.was_live = true;
            state.drain = None;
            state.since = now_text();
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
        service.compile();
        let old_run = old.and_then(|old| service.slot(old)).map(|state| Arc::clone(&state.run));
        self.index = index;
        self.found_again(name);
        let table = self.table();

        let began = Instant::now();
        self.live.publish(table);
        if let Some(run) = &old_run {
            run.drain();
        }
        let flip_micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);

        let in_flight = old_run.as_ref().map_or(0, |run| run.in_flight());
        if let Some(state) = old.and_then(|old| self.services.get_mut(name)?.slot_mut(old).as_mut()) {
            state.drain = Some(Drain { began, ended: None });
            state.since = now_text();
        }
        self.news.push(Event::Flipped { service: name.clone(), live: to, old, flip_micros });
        (Flipped { live: to, old, flip_micros, in_flight, generation: next.generation }, old_run)
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

    fn not_healthy(&self, name: &ServiceName, slot: Slot) -> AdminError {
        let complaint = self.services.get(name).and_then(|service| service.slot(slot)).map(SlotRun::complaint);
        let complaint = complaint.unwrap_or_else(|| "it was cleared".to_owned());
        AdminError::new(ErrorCode::NotHealthy, format!("{slot} of {name} did not become healthy in time: {complaint}"))
    }

    fn keep_lease(&mut self, name: &ServiceName, lease: Option<&str>) {
        if let (Some(service), Some(lease)) = (self.services.get_mut(name), lease) {
            // Someone else's lease ends the call at its next change, not here.
            _ = service.lease.check(Some(lease), Instant::now());
        }
    }

    fn in_flight(&self, name: &ServiceName, slot: Slot) -> Option<u64> {
        self.services.get(name)?.slot(slot).map(|state| state.run.in_flight())
    }

    /// Tells what to speak to a run that is probed; `None` where nobody waits for its probes, and it is watched no more.
    pub(crate) fn watched_protocol(&mut self, watched: &Watched) -> Option<Protocol> {
        let Some((name, slot)) = self.find_run(watched.run) else {
            self.watching.remove(&(watched.run, watched.endpoint.clone()));
            return None;
        };
        let service = self.services.get(&name)?;
        let next = service.next_settings.as_ref().filter(|_| !service.was_live(slot));
        let options = next.and_then(|next| next.options.as_ref()).or(service.settings.options.as_ref());
        Some(options.map(|options| options.protocol).unwrap_or_default())
    }

    /// Tells whether a run takes or took requests.
    pub(crate) fn is_settled(&self, run: RunId) -> bool {
        self.find_run(run).is_some_and(|(name, slot)| self.services.get(&name).is_some_and(|s| s.was_live(slot)))
    }

    /// Makes every worker end what is left of a run.
    fn cut(&self, cut: RunId) {
        if let Some(shared) = &self.shared {
            shared.cut.send_modify(|runs| {
                if runs.len() == REMEMBERED_CUTS {
                    runs.remove(0);
                }
                runs.push(cut);
            });
        }
    }
}
