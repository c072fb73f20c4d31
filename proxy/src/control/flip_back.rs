//! The flip back: the proxy leaves a new slot by itself that fails in its bake.
//!
//! *Dead* is a slot where nothing answers: a worker's failed request, or a probe, raises the suspicion, and one immediate look
//! confirms it. *Bad* is one that does far worse than the slot before it did: see [`super::judge`]. Meanwhile that slot
//! answers what the new one fails, where a request may be repeated.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::admin::Event;
use config::admin::event::Verdict;
use config::admin::request::{self, ServiceSettings};
use config::name::{ServiceName, Slot};
use config::options::Protocol;
use tokio::sync::mpsc;

use super::bake::{Bake, SNAPSHOT};
use super::draining::drain_run;
use super::judge::{Sample, judge};
use super::service::Service;
use super::{Control, Handle, watching};
use crate::health::{self, Found, Watched};
use crate::telemetry::panics;
use crate::upstream::run::{Deadlines, Run, RunId};

/// How often the judge looks.
const LOOK: Duration = Duration::from_millis(100);
/// A suspicion that was not confirmed may be raised again after this.
const SUSPICION: Duration = Duration::from_millis(50);

/// Begins the bake of a flip; `None` where there is nothing to go back to, or none is wanted.
pub(super) fn begin(service: &Service, to: Slot, flip: &request::Flip, settings: &ServiceSettings) -> Option<Bake> {
    let back = service.live.filter(|_| !flip.bake.is_zero())?;
    Some(Bake {
        run: service.slot(to)?.run.id(),
        back,
        until: Instant::now() + flip.bake,
        is_over: false,
        drain: Deadlines::of(flip),
        margins: flip.margins,
        base: Sample::of(&service.counters.sums(to)),
        baseline: service.slot(back)?.lately.baseline(&Sample::of(&service.counters.sums(back))),
        before: service.settings.clone(),
        since: settings.clone(),
    })
}

/// What a look at a bake says.
pub(super) enum Look {
    /// It goes on.
    Again,
    /// It is over: the new slot stays. The run that was kept for replays, and how long they may take.
    Over(Arc<Run>, Duration),
    /// The new slot does far worse.
    Bad(String),
    /// Something else was flipped to or staged meanwhile.
    Gone,
}

/// Looks after a bake until its end.
pub(super) async fn watch(handle: &Rc<Handle>, name: &ServiceName, run: RunId) {
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        match handle.with(|control| control.look_at_bake(name, run, Instant::now())) {
            Look::Again => {}
            Look::Gone => return,
            Look::Bad(reason) => {
                if flip_back(handle, name, run, Verdict::Bad, reason) {
                    return;
                }
                // Where the slot before is not healthy either, it may be in a moment.
            }
            Look::Over(back, deadline) => {
                back.replays_ended(deadline).await;
                handle.with(|control| control.end_bake(name, run));
                return;
            }
        }
    }
}

/// Keeps the figures of live slots, for as long as the process lives.
pub(super) async fn take_snapshots(handle: &Handle) {
    let mut tick = tokio::time::interval(SNAPSHOT);
    loop {
        tick.tick().await;
        handle.with(Control::note_live);
    }
}

/// Looks into what workers report.
pub(super) async fn take_suspects(handle: &Rc<Handle>, suspects: &mut mpsc::UnboundedReceiver<RunId>) {
    while let Some(run) = suspects.recv().await {
        tokio::task::spawn_local(confirm(Rc::clone(handle), run));
    }
}

/// Takes the suspicion of a probe that a run is dead.
pub(crate) fn suspect(handle: &Rc<Handle>, run: RunId) {
    if handle.with(|control| control.is_suspected_first(run)) {
        tokio::task::spawn_local(confirm(Rc::clone(handle), run));
    }
}

/// Looks into a suspicion; where a fault of ours ends that, it may be raised again.
async fn confirm(handle: Rc<Handle>, run: RunId) {
    if panics::contained(look_into(&handle, run)).await.is_err() {
        look_again(&handle, run).await;
    }
}

/// Looks at once whether anything answers on a suspected run, and flips back, or ends the canary, where nothing does.
async fn look_into(handle: &Rc<Handle>, run: RunId) {
    let Some((name, watched, protocol)) = handle.with(|control| control.baking(run)) else { return };
    // Without an endpoint it takes no requests, so it can't be dead to them.
    if watched.is_empty() || handle.with(|control| control.is_given()) {
        return look_again(handle, run).await;
    }
    let mut reasons = Vec::new();
    for endpoint in &watched {
        match health::look(endpoint, protocol).await {
            Found::Dead(reason) => reasons.push(format!("{}: {reason}", endpoint.endpoint)),
            found @ (Found::Failing | Found::Well) => {
                if matches!(found, Found::Well) {
                    handle.with(|control| control.note_well(run));
                }
                if let Some(reason) = handle.with(|control| control.judge_bake(&name, run)) {
                    flip_back(handle, &name, run, Verdict::Bad, reason);
                }
                return look_again(handle, run).await;
            }
        }
    }
    let reason = reasons.join("; ");
    if handle.with(|control| control.is_canary(run)) {
        handle.with(|control| control.end_canary(&name, Some(reason)));
    } else if !flip_back(handle, &name, run, Verdict::Dead, reason) {
        look_again(handle, run).await;
    }
}

/// Lets a suspicion be raised again in a moment.
async fn look_again(handle: &Rc<Handle>, run: RunId) {
    tokio::time::sleep(SUSPICION).await;
    handle.with(|control| control.clear_suspicion(run));
}

/// Makes the slot live again that a failed one took the place of; false where that is not healthy either, or is not gone
/// back to any more.
fn flip_back(handle: &Rc<Handle>, name: &ServiceName, run: RunId, verdict: Verdict, reason: String) -> bool {
    let flipped = handle.with(|control| control.flip_back(name, run, verdict, reason));
    let Some((left, deadline)) = flipped else { return false };
    let synced = handle.with(|control| control.store.sync_apart());
    let (handle, name) = (Rc::clone(handle), name.clone());
    tokio::task::spawn_local(async move {
        if let Err(error) = synced.await {
            tracing::error!(%error, service = %name, "the folder of saved state could not be synced");
        }
        drain_run(handle, name, left, deadline).await;
    });
    true
}

/// Returns why the new version of a service that bakes is worse than the one before it, where it is.
fn bad(service: &Service) -> Option<String> {
    let bake = service.bake.as_ref()?;
    let new = Sample::of(&service.counters.sums(service.live?)).since(&bake.base);
    judge(&bake.baseline, &new, &bake.margins)
}

impl Control {
    fn judge_bake(&self, name: &ServiceName, run: RunId) -> Option<String> {
        let is_it = |service: &&Service| service.bake.as_ref().is_some_and(|bake| bake.run == run);
        self.services.get(name).filter(is_it).and_then(bad)
    }

    pub(super) fn look_at_bake(&mut self, name: &ServiceName, run: RunId, now: Instant) -> Look {
        let Some(service) = self.services.get_mut(name) else { return Look::Gone };
        let Some(bake) = service.bake.as_ref().filter(|bake| bake.run == run) else { return Look::Gone };
        // Whether it is dead is being looked into, and says more than that it fails.
        let is_suspected = service.slot(bake.back.other()).is_some_and(|state| state.run.is_suspected());
        if now < bake.until {
            return bad(service).filter(|_| !is_suspected).map_or(Look::Again, Look::Bad);
        }
        let Some(bake) = &mut service.bake else { return Look::Gone };
        bake.is_over = true;
        let (back, drain) = (bake.back, bake.drain.requests);
        let Some(back) = service.slot(back).map(|state| Arc::clone(&state.run)) else { return Look::Gone };
        service.compile();
        self.publish();
        back.end_replays();
        Look::Over(back, drain)
    }

    /// Ends a bake whose last replay has its answer.
    pub(super) fn end_bake(&mut self, name: &ServiceName, run: RunId) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(bake) = service.bake.take_if(|bake| bake.run == run) else { return };
        let counts = service.counts(bake.back);
        self.news.push(Event::Baked { service: name.clone(), live: bake.back.other(), counts });
    }

    fn note_live(&mut self) {
        for service in self.services.values_mut() {
            let Some(live) = service.live else { continue };
            let now = Sample::of(&service.counters.sums(live));
            if let Some(state) = service.slot_mut(live) {
                state.lately.note(now);
            }
        }
    }

    /// Tells whether a run that bakes is suspected for the first time.
    fn is_suspected_first(&self, run: RunId) -> bool {
        let is_watched = self.is_baking(run) || self.is_canary(run);
        let (Some((name, slot)), true) = (self.find_run(run), is_watched) else { return false };
        self.services.get(&name).and_then(|service| service.slot(slot)).is_some_and(|state| state.run.suspect())
    }

    fn clear_suspicion(&self, run: RunId) {
        self.run(run).iter().for_each(|run| run.clear_suspicion());
    }

    fn note_well(&self, run: RunId) {
        self.run(run).iter().for_each(|run| run.is_well());
    }

    fn run(&self, run: RunId) -> Option<Arc<Run>> {
        let (name, slot) = self.find_run(run)?;
        self.services.get(&name)?.slot(slot).map(|state| Arc::clone(&state.run))
    }

    /// Tells whether a run is in its bake.
    pub(super) fn is_baking(&self, run: RunId) -> bool {
        let is_it = |bake: &Bake| bake.run == run && bake.is_under_way();
        self.services.values().any(|service| service.bake.as_ref().is_some_and(is_it))
    }

    /// Returns what to look at of a run that bakes.
    fn baking(&self, run: RunId) -> Option<(ServiceName, Vec<Watched>, Protocol)> {
        let (name, slot) = self.find_run(run).filter(|_| self.is_baking(run) || self.is_canary(run))?;
        let service = self.services.get(&name)?;
        let protocol = service.settings.options.as_ref().map(|options| options.protocol).unwrap_or_default();
        Some((name, watching::watched(service, service.slot(slot)?), protocol))
    }

    /// Flips back, where the run still bakes and the slot before it is not known to be worse. Returns the run that was left
    /// and how long its requests may go on.
    pub(super) fn flip_back(
        &mut self,
        name: &ServiceName,
        run: RunId,
        verdict: Verdict,
        reason: String,
    ) -> Option<(Arc<Run>, Deadlines)> {
        let service = self.services.get(name)?;
        let bake = service.bake.as_ref().filter(|bake| bake.run == run && bake.is_under_way())?;
        let (to, deadline) = (bake.back, bake.drain);
        if !service.slot(to)?.is_healthy() {
            tracing::error!(service = %name, %reason, "the new version fails, and the one before it is not healthy either");
            return None;
        }
        let mut next = service.saved_after_flip(to);
        // What was put in force with the flip goes with it; what someone changed since then is theirs.
        if service.settings == bake.since {
            next.settings = bake.before.clone();
        }
        let index = match self.compile_index(name, Some(&next.settings)) {
            Ok(index) => index,
            // Another service took a route that this version had: the others go on being served.
            Err(error) => {
                tracing::warn!(service = %name, %error, "the routes of before are not all free any more");
                next.settings = service.settings.clone();
                Arc::clone(&self.index)
            }
        };
        // Visitors first: where the disk refuses it, the flip back stands until the next change is saved.
        if let Err(error) = self.store.prepare(&next).and_then(|()| self.store.commit(name)) {
            tracing::error!(%error, service = %name, "the flip back could not be saved");
            self.restored_warnings.push(format!("{name} was flipped back and that could not be saved: {error}"));
        }
        let counts = self.services.get(name)?.counts(to);
        let (flipped, left) = self.publish_flip(name, to, index, next, None);
        let failing_micros = left.as_ref().filter(|_| verdict == Verdict::Dead).and_then(|run| run.failing_for());
        let failing_micros = failing_micros.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        tracing::warn!(service = %name, live = %to, left = %to.other(), %reason, "flipped back in the bake");
        let told = reason.clone();
        let flipped_back = Event::FlippedBack {
            service: name.clone(),
            live: to,
            left: to.other(),
            verdict,
            reason,
            flip_micros: flipped.flip_micros,
            failing_micros,
            counts,
        };
        self.note_flip_back(name, verdict, &told, counts);
        // Whoever asks a moment later how the bake goes is told too.
        self.services.get_mut(name)?.flipped_back = Some(flipped_back.clone());
        self.news.push(flipped_back);
        left.map(|left| (left, deadline))
    }
}
