//! Whom an idle slot is shown to, a share of the visitors or those who have a link, over a restart of ours.
//!
//! What was shown goes on when its version is found healthy again: until then all visitors are on the live slot, as its cookies and
//! links, whose key lasts, name it and no other.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use config::admin::Event;
use config::name::{ServiceName, Slot};

use super::canary::{self, Canary};
use super::judge::Sample;
use super::preview::{self, Preview};
use super::saved::{SavedCanary, SavedShown};
use super::service::Service;
use super::slot::SlotRun;
use super::{Control, Handle};
use crate::upstream::run::Run;

/// Looks after what goes on since before a restart.
pub(super) fn watch_all(handle: &Rc<Handle>) {
    let (canaries, previews) = handle.with(|control| {
        let canary = |service: &Service| Some((service.name.clone(), service.canary.as_ref()?.run));
        let preview = |service: &Service| Some((service.name.clone(), service.preview.as_ref()?.run));
        let canaries: Vec<_> = control.services.values().filter_map(canary).collect();
        let previews: Vec<_> = control.services.values().filter_map(preview).collect();
        (canaries, previews)
    });
    for (name, run) in canaries {
        canary::watch(handle, &name, run);
    }
    for (name, run) in previews {
        preview::watch(handle, &name, run);
    }
}

impl Service {
    /// Returns what is to be kept of the idle slot, were it shown so; `None` where nobody sees it.
    pub(super) fn shown(&self, canary: Option<&Canary>, preview: Option<&Preview>) -> Option<SavedShown> {
        let slot = canary.map(|canary| canary.slot).or(preview.map(|preview| preview.slot))?;
        let state = self.slot(slot)?;
        let ends = |preview: &Preview| SystemTime::now() + preview.until.saturating_duration_since(Instant::now());
        Some(SavedShown {
            slot,
            version: state.saved(),
            was_live: state.was_live,
            next_settings: self.next_settings.clone().filter(|_| !state.was_live),
            canary: canary.map(|canary| SavedCanary { percent: canary.percent, margins: canary.margins }),
            preview: preview.map(|preview| humantime::format_rfc3339_seconds(ends(preview)).to_string()),
        })
    }
}

impl Control {
    /// Keeps what a service will show.
    ///
    /// # Errors
    /// Where the disk refuses; nothing has changed.
    pub(super) fn keep_shown(
        &self,
        name: &ServiceName,
        shown: impl FnOnce(&Service) -> Option<SavedShown>,
    ) -> io::Result<()> {
        let shown = self.services.get(name).and_then(shown);
        self.store.write_shown(name, shown.as_ref())
    }

    /// Keeps what a service still shows, after something of it has ended; where that can't be written nothing is kept, for what
    /// has ended must not come back.
    pub(super) fn forget_shown(&mut self, name: &ServiceName) {
        let kept = self.keep_shown(name, |service| service.shown(service.canary.as_ref(), service.preview.as_ref()));
        let Err(error) = kept.or_else(|_| self.store.write_shown(name, None)) else { return };
        tracing::error!(%error, service = %name, "what its idle slot shows could not be saved");
        self.restored_warnings.push(format!("{name}: an ended canary or preview could not be saved: {error}"));
    }

    /// Takes up what the idle slot showed before, to be seen once its version is healthy.
    pub(super) fn restore_shown(&mut self, service: &mut Service) {
        let name = service.name.clone();
        let shown = match self.store.shown(&name) {
            Ok(None) => return,
            Ok(Some(shown)) => shown,
            Err(why) => return self.is_shown_no_more(&name, &why),
        };
        let SavedShown { slot, version, was_live, next_settings, canary, preview } = shown;
        let until = preview.and_then(|until| humantime::parse_rfc3339(&until).ok());
        let left = until.and_then(|until| until.duration_since(SystemTime::now()).ok());
        // A flip, or the generation before it, may have come between.
        if service.live != Some(slot.other()) || (canary.is_none() && left.is_none()) {
            _ = self.store.write_shown(&name, None);
            return;
        }
        let key = match self.store.key(&name) {
            Ok(key) => key,
            Err(error) => return self.is_shown_no_more(&name, &error.to_string()),
        };
        let run = Run::of_service(slot, self.workers, Arc::clone(&service.counters));
        let state = SlotRun { was_live, ..SlotRun::restored(run, version, false, Instant::now()) };
        // As every idle slot; who sees it is let in with the table that says so.
        state.run.drain();
        let (run, deployment) = (state.run.id(), state.identity());
        *service.slot_mut(slot) = Some(state);
        service.next_settings = next_settings;
        service.canary = canary.map(|SavedCanary { percent, margins }| {
            let (key, deployment, base) = (key.clone(), Arc::clone(&deployment), Default::default());
            Canary { run, slot, percent, key, deployment, margins, base, is_waiting: true }
        });
        service.preview =
            left.map(|left| Preview { run, slot, key, deployment, until: Instant::now() + left, is_waiting: true });
        // One that is not probed is believed to be healthy.
        service.show_again(slot);
    }

    fn is_shown_no_more(&mut self, name: &ServiceName, why: &str) {
        self.restored_warnings.push(format!("{name}: its canary or preview does not go on: {why}"));
    }

    /// Shows the idle slot again, where that waited for its health.
    pub(super) fn show_again(&mut self, name: &ServiceName, slot: Slot) {
        let Some(service) = self.services.get_mut(name) else { return };
        let canary = service.canary.as_ref().filter(|canary| canary.is_waiting).map(|canary| canary.percent);
        if !service.show_again(slot) {
            return;
        }
        service.compile();
        self.publish();
        if let Some(percent) = canary {
            self.news.push(Event::Canary { service: name.clone(), slot, percent, reason: None });
        }
    }
}

impl Service {
    /// Lets in who may see the idle slot; false where nobody waits for that, or it is not healthy.
    fn show_again(&mut self, slot: Slot) -> bool {
        let is_healthy = self.slot(slot).is_some_and(SlotRun::is_healthy);
        let samples = |slot: Slot| Sample::of(&self.counters.sums(slot));
        let base = (samples(slot), samples(slot.other()));
        let canary = self.canary.as_mut().filter(|canary| canary.is_waiting && canary.slot == slot);
        let preview = self.preview.as_mut().filter(|preview| preview.is_waiting && preview.slot == slot);
        if !is_healthy || (canary.is_none() && preview.is_none()) {
            return false;
        }
        if let Some(canary) = canary {
            (canary.base, canary.is_waiting) = (base, false);
        }
        if let Some(preview) = preview {
            preview.is_waiting = false;
        }
        if let Some(state) = self.slot(slot) {
            state.run.revive();
            state.run.clear_suspicion();
        }
        true
    }
}
