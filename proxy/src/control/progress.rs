//! Long calls: whoever asked is told how it goes, line by line, until something ends the call.

use std::rc::Rc;
use std::time::{Duration, Instant};

use config::admin::{AdminError, ErrorCode, Event};
use config::name::{ServiceName, Slot};
use tokio::sync::{broadcast, mpsc};

use super::slot::SlotRun;
use super::{Control, Handle};

/// How often a long call says how far it has got, and keeps its lease.
const EVERY: Duration = Duration::from_secs(1);

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// A staged slot's health, for so long.
    Health(Duration),
    /// The end of a drain, of the bake, or of both.
    End {
        /// Whether the drain is under way.
        drain: bool,
        /// Whether the bake is under way, and waited for.
        bake: bool,
    },
}

/// A long call, and whom it keeps informed.
pub(super) struct Progressing {
    pub(super) handle: Rc<Handle>,
    pub(super) name: ServiceName,
    pub(super) slot: Slot,
    pub(super) lease: Option<String>,
    pub(super) awaited: Awaited,
}

impl Progressing {
    /// Passes on what concerns the call until something ends it.
    pub(super) async fn tell(mut self, mut events: broadcast::Receiver<Event>, sender: mpsc::Sender<Event>) {
        let deadline = match self.awaited {
            Awaited::Health(deadline) => Some(tokio::time::Instant::now() + deadline),
            Awaited::End { .. } => None,
        };
        let mut tick = tokio::time::interval(EVERY);
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
                    Ok(event) => event,
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = over => Event::Error(self.handle.with(|control| control.not_healthy(&self.name, self.slot))),
                // Whoever asked has gone: then the lease must run out.
                () = sender.closed() => return,
                _ = tick.tick() => match self.tick() {
                    Some(event) => event,
                    None => continue,
                },
            };
            let Some((event, is_last)) = self.take(event) else { continue };
            if sender.send(event).await.is_err() || is_last {
                return;
            }
        }
    }

    fn tick(&self) -> Option<Event> {
        let in_flight = self.handle.with(|control| {
            control.keep_lease(&self.name, self.lease.as_deref());
            control.in_flight(&self.name, self.slot)
        })?;
        let draining = matches!(self.awaited, Awaited::End { drain: true, .. });
        draining.then(|| Event::Draining { service: self.name.clone(), slot: self.slot, in_flight })
    }

    /// Returns an event that concerns the call, as it is told, and whether it is the last; `None`: it does not concern it.
    fn take(&mut self, event: Event) -> Option<(Event, bool)> {
        let is_ours = |service: &ServiceName, slot: Slot| *service == self.name && slot == self.slot;
        match (&event, &mut self.awaited) {
            (Event::Staged { service, slot, .. } | Event::Probe { service, slot, .. }, Awaited::Health(_))
                if is_ours(service, *slot) =>
            {
                Some((event, false))
            }
            (Event::Healthy { service, slot, .. }, Awaited::Health(_)) if is_ours(service, *slot) => {
                Some((event, true))
            }
            (Event::Drained { service, slot, .. }, Awaited::End { drain, bake }) if is_ours(service, *slot) => {
                *drain = false;
                Some((event, !*bake))
            }
            (Event::Baked { service, live, .. }, Awaited::End { drain, bake: bake @ true })
                if is_ours(service, live.other()) =>
            {
                *bake = false;
                Some((event, !*drain))
            }
            (Event::FlippedBack { service, live, .. }, Awaited::End { bake, .. }) if is_ours(service, *live) => {
                let is_awaited = *bake;
                Some((if is_awaited { event } else { self.superseded() }, true))
            }
            // Whoever waited for a drain waits in vain: the slot is live again.
            (Event::Flipped { service, live, .. }, Awaited::End { .. }) if is_ours(service, *live) => {
                Some((self.superseded(), true))
            }
            (Event::Cleared { service, slot }, _) if is_ours(service, *slot) => Some((event, true)),
            (Event::Removed { service }, _) if *service == self.name => Some((event, true)),
            (Event::Draining { .. } | Event::Error(_), _) => Some((event.clone(), matches!(event, Event::Error(_)))),
            _ => None,
        }
    }

    fn superseded(&self) -> Event {
        let message = format!("{} of {} is live again, so it does not drain", self.slot, self.name);
        Event::Error(AdminError::new(ErrorCode::Superseded, message))
    }
}

impl Control {
    fn not_healthy(&self, name: &ServiceName, slot: Slot) -> AdminError {
        let complaint = self.services.get(name).and_then(|service| service.slot(slot)).map(SlotRun::complaint);
        let complaint = complaint.unwrap_or_else(|| "it was cleared".to_owned());
        AdminError::new(ErrorCode::NotHealthy, format!("{slot} of {name} did not become healthy in time: {complaint}"))
    }

    pub(super) fn keep_lease(&mut self, name: &ServiceName, lease: Option<&str>) {
        if let (Some(service), Some(lease)) = (self.services.get_mut(name), lease) {
            // Someone else's lease ends the call at its next change, not here.
            _ = service.lease.check(Some(lease), Instant::now());
        }
    }

    fn in_flight(&self, name: &ServiceName, slot: Slot) -> Option<u64> {
        self.services.get(name)?.slot(slot).map(|state| state.run.in_flight())
    }
}
