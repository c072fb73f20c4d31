//! A version that waits for its flip, shown to whoever has a link, until the link ends, it is flipped to, or another is staged.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::admin::response::{self, PreviewStatus};
use config::admin::{AdminError, ErrorCode, request};
use config::name::{ServiceName, Slot};

use super::{Change, Control, Handle, not_saved, unknown};
use crate::routing::preview::token;
use crate::signature::Key;
use crate::upstream::run::RunId;

/// A link holds no longer than this.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// A preview that goes on.
pub(crate) struct Preview {
    pub(super) run: RunId,
    pub(super) slot: Slot,
    pub(super) key: Key,
    pub(super) deployment: Arc<str>,
    /// The end of the link that holds longest.
    pub(super) until: Instant,
    /// Since a restart of ours nobody sees it, until it is found healthy again.
    pub(super) is_waiting: bool,
}

impl Preview {
    pub(super) fn status(&self, now: Instant) -> PreviewStatus {
        let left = self.until.saturating_duration_since(now);
        PreviewStatus { slot: self.slot, left, waiting: self.is_waiting }
    }
}

/// Lets whoever has the token that it returns see the version in the idle slot.
///
/// # Errors
/// Where no healthy version waits there for its flip, nothing is live, or the change is not allowed.
pub fn preview(
    handle: &Rc<Handle>,
    name: &ServiceName,
    wanted: &request::Preview,
    change: &Change,
) -> Result<response::Preview, AdminError> {
    let (link, run) = handle.with(|control| control.set_preview(name, wanted, change))?;
    if let Some(run) = run {
        watch(handle, name, run);
    }
    Ok(link)
}

/// Ends a preview with its last link.
pub(super) fn watch(handle: &Rc<Handle>, name: &ServiceName, run: RunId) {
    let (handle, name) = (Rc::clone(handle), name.clone());
    super::spawn("waiting for a preview's end", async move || {
        while let Some(until) = handle.with(|control| control.preview_ends(&name, run)) {
            tokio::time::sleep_until(until.into()).await;
        }
    });
}

impl Control {
    /// Returns the link, and the run where it was not shown before.
    fn set_preview(
        &mut self,
        name: &ServiceName,
        wanted: &request::Preview,
        change: &Change,
    ) -> Result<(response::Preview, Option<RunId>), AdminError> {
        self.admit_known(name, change)?;
        if wanted.lasts.is_zero() || wanted.lasts > LONGEST {
            let longest = config::duration::format(LONGEST);
            return Err(AdminError::new(
                ErrorCode::BadRequest,
                format!("a preview lasts up to {longest}, and not no time"),
            ));
        }
        let key = self.store.key(name).map_err(|error| not_saved(&error))?;
        let service = self.services.get_mut(name).ok_or_else(|| unknown(name))?;
        let Some(live) = service.live else {
            return Err(AdminError::new(
                ErrorCode::EmptySlot,
                format!("{name} has no live slot, so no link leads to it"),
            ));
        };
        let slot = live.other();
        let Some(state) = service.slot(slot).filter(|state| !state.was_live) else {
            return Err(AdminError::new(
                ErrorCode::EmptySlot,
                format!("{slot} of {name} has no version that waits for its flip"),
            )
            .hint(format!("put one there: `bgctl switch {name} --no-flip`")));
        };
        if !state.is_healthy() {
            let complaint = state.complaint();
            let message = format!("{slot} of {name} is not healthy: {complaint}");
            return Err(AdminError::new(ErrorCode::NotHealthy, message));
        }
        let (run, deployment) = (state.run.id(), state.identity());
        let expires = SystemTime::now() + wanted.lasts;
        let link = response::Preview {
            slot,
            token: token(&key, name, &deployment, expires),
            expires: humantime::format_rfc3339_seconds(expires).to_string(),
        };
        let until = Instant::now() + wanted.lasts;
        let known = service.preview.as_ref().filter(|preview| preview.run == run);
        let until = known.map_or(until, |known| until.max(known.until));
        let preview = Preview { run, slot, key, deployment, until, is_waiting: false };
        self.keep_shown(name, |service| service.shown(service.canary.as_ref(), Some(&preview)))
            .map_err(|error| not_saved(&error))?;
        let service = self.services.get_mut(name).ok_or_else(|| unknown(name))?;
        // A canary that was ended has marked it.
        service.slot(slot).iter().for_each(|state| state.run.revive());
        service.has_signed = true;
        let before = service.preview.replace(preview).filter(|preview| preview.run == run);
        service.compile();
        self.publish();
        Ok((link, before.is_none().then_some(run)))
    }

    /// Ends a preview whose last link has ended; returns when that will be, where it goes on.
    fn preview_ends(&mut self, name: &ServiceName, run: RunId) -> Option<Instant> {
        let service = self.services.get_mut(name)?;
        let preview = service.preview.as_ref().filter(|preview| preview.run == run)?;
        if preview.until > Instant::now() {
            return Some(preview.until);
        }
        service.preview = None;
        service.compile();
        self.forget_shown(name);
        self.publish();
        None
    }
}
