//! A share of visitors on the idle slot, watched beside the others: where it does far worse they all go to the live slot again.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use config::admin::request::{self, Margins};
use config::admin::response::{CanaryStatus, ServiceStatus};
use config::admin::{AdminError, ErrorCode, Event};
use config::name::{ServiceName, Slot};

use super::judge::{Sample, judge};
use super::{Change, Control, Handle, not_saved, unknown};
use crate::signature::Key;
use crate::upstream::run::RunId;

/// How often the judge looks.
const LOOK: Duration = Duration::from_millis(100);

/// A canary that goes on.
pub(crate) struct Canary {
    pub(super) run: RunId,
    pub(super) slot: Slot,
    pub(super) percent: u8,
    pub(super) key: Key,
    pub(super) deployment: Arc<str>,
    pub(super) margins: Margins,
    /// What was counted of the idle slot and of the live one when it began.
    pub(super) base: (Sample, Sample),
    /// Since a restart of ours nobody is there, until its version is found healthy again.
    pub(super) is_waiting: bool,
}

impl Canary {
    pub(super) fn status(&self) -> CanaryStatus {
        CanaryStatus { slot: self.slot, percent: self.percent, waiting: self.is_waiting }
    }
}

/// Sends a share of visitors to the idle slot; none: they all go to the live one again.
///
/// # Errors
/// Where the idle slot is empty or not healthy, or the change is not allowed.
pub fn canary(
    handle: &Rc<Handle>,
    name: &ServiceName,
    wanted: &request::Canary,
    change: &Change,
) -> Result<ServiceStatus, AdminError> {
    let began = handle.with(|control| control.set_canary(name, wanted, change))?;
    if let Some(run) = began {
        watch(handle, name, run);
    }
    handle.with(|control| control.service(name))
}

/// Judges a canary until it is over.
pub(super) fn watch(handle: &Rc<Handle>, name: &ServiceName, run: RunId) {
    let (handle, name) = (Rc::clone(handle), name.clone());
    super::spawn("watching a canary", async move || {
        let mut tick = tokio::time::interval(LOOK);
        loop {
            tick.tick().await;
            if !handle.with(|control| control.look_at_canary(&name, run)) {
                return;
            }
        }
    });
}

impl Control {
    /// Returns the run where it is new as a canary.
    pub(super) fn set_canary(
        &mut self,
        name: &ServiceName,
        wanted: &request::Canary,
        change: &Change,
    ) -> Result<Option<RunId>, AdminError> {
        self.admit_known(name, change)?;
        if wanted.percent > 100 {
            return Err(AdminError::new(ErrorCode::BadRequest, format!("{} is no share of a hundred", wanted.percent)));
        }
        if wanted.percent == 0 {
            self.keep_shown(name, |service| service.shown(None, service.preview.as_ref()))
                .map_err(|error| not_saved(&error))?;
            self.end_canary(name, None);
            return Ok(None);
        }
        let key = self.store.key(name).map_err(|error| not_saved(&error))?;
        let service = self.services.get_mut(name).ok_or_else(|| unknown(name))?;
        let Some(live) = service.live else {
            return Err(AdminError::new(ErrorCode::EmptySlot, format!("{name} has no live slot to take a share from")));
        };
        let slot = live.other();
        let Some(state) = service.slot(slot) else {
            return Err(AdminError::new(ErrorCode::EmptySlot, format!("{slot} of {name} is empty"))
                .hint(format!("put a version there first: `bgctl switch {name} --no-flip`")));
        };
        if !state.is_healthy() {
            let complaint = state.complaint();
            return Err(AdminError::new(
                ErrorCode::NotHealthy,
                format!("{slot} of {name} is not healthy: {complaint}"),
            ));
        }
        let (run, deployment) = (state.run.id(), state.identity());
        let samples = |slot| Sample::of(&service.counters.sums(slot));
        let base = (samples(slot), samples(live));
        let (percent, margins) = (wanted.percent, wanted.margins);
        let canary = Canary { run, slot, percent, key, deployment, margins, base, is_waiting: false };
        self.keep_shown(name, |service| service.shown(Some(&canary), service.preview.as_ref()))
            .map_err(|error| not_saved(&error))?;
        let service = self.services.get_mut(name).ok_or_else(|| unknown(name))?;
        if let Some(state) = service.slot(slot) {
            state.run.revive();
            state.run.clear_suspicion();
        }
        // What a flip back would go to takes visitors from here on.
        service.end_bake();
        let before = service.canary.replace(canary).filter(|canary| canary.run == run);
        service.compile();
        self.publish();
        self.news.push(Event::Canary { service: name.clone(), slot, percent, reason: None });
        Ok(before.is_none().then_some(run))
    }

    /// Judges a canary; false where it is over.
    pub(super) fn look_at_canary(&mut self, name: &ServiceName, run: RunId) -> bool {
        let Some(service) = self.services.get(name) else { return false };
        let (Some(live), Some(canary)) = (service.live, service.canary.as_ref().filter(|canary| canary.run == run))
        else {
            return false;
        };
        if canary.is_waiting || self.is_given() {
            return true;
        }
        let now = |slot| Sample::of(&service.counters.sums(slot));
        let (new, old) = (now(canary.slot).since(&canary.base.0), now(live).since(&canary.base.1));
        match judge(&old, &new, &canary.margins) {
            None => true,
            Some(reason) => {
                self.end_canary(name, Some(reason));
                false
            }
        }
    }

    /// Ends a canary; all visitors go to the live slot.
    pub(super) fn end_canary(&mut self, name: &ServiceName, reason: Option<String>) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(Canary { slot, .. }) = service.canary.take() else { return };
        service.compile();
        self.forget_shown(name);
        let Some(service) = self.services.get(name) else { return };
        // Whoever looks at it by a preview goes on.
        let run = service.slot(slot).filter(|_| service.preview.is_none()).map(|state| Arc::clone(&state.run));
        self.publish();
        run.iter().for_each(|run| run.drain());
        if let Some(reason) = &reason {
            tracing::warn!(service = %name, %slot, %reason, "the canary was ended");
        }
        self.news.push(Event::Canary { service: name.clone(), slot, percent: 0, reason });
    }

    /// Tells whether a run has a share of the visitors.
    pub(super) fn is_canary(&self, run: RunId) -> bool {
        let is_it = |canary: &Canary| canary.run == run && !canary.is_waiting;
        self.services.values().any(|service| service.canary.as_ref().is_some_and(is_it))
    }
}
