//! A service is closed on purpose, and opened again: pause, resume, maintenance.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::admin::request;
use config::admin::response::{Origin, PauseStatus, Paused, ServiceStatus};
use config::admin::{AdminError, Event};
use config::name::ServiceName;

use super::saved::SavedMaintenance;
use super::{Change, Control, Handle, now_text, unknown};
use crate::routing::closed::Gate;

/// How often a pause looks whether the live slot is idle: a slot that is live rings no bell.
const LOOK: Duration = Duration::from_millis(5);

/// A pause that goes on.
pub(crate) struct Pause {
    pub(super) gate: Arc<Gate>,
    since: String,
    until: Instant,
}

impl Pause {
    pub(super) fn status(&self, now: Instant) -> PauseStatus {
        PauseStatus {
            since: self.since.clone(),
            waiting: self.gate.waiting() as u64,
            left: self.until.saturating_duration_since(now),
        }
    }
}

/// Holds requests from now on, and answers when nothing is in flight on the live slot, or after `drain`.
///
/// # Errors
/// Where the service is unknown or the change not allowed.
///
/// # Cancel safety
/// Dropped, the service is paused all the same.
pub async fn pause(
    handle: &Rc<Handle>,
    name: &ServiceName,
    pause: request::Pause,
    change: &Change,
) -> Result<Paused, AdminError> {
    let gate = handle.with(|control| control.pause(name, &pause, change))?;
    handle.predecessor.hurry();
    tokio::task::spawn_local({
        let (handle, name, gate, lasts) = (Rc::clone(handle), name.clone(), Arc::clone(&gate), pause.lasts);
        async move {
            tokio::time::sleep(lasts).await;
            handle.with(|control| control.open_gate(&name, Some(&gate)));
        }
    });
    let deadline = Instant::now() + pause.drain;
    loop {
        let in_flight = handle.with(|control| control.in_flight_live(name));
        if in_flight == 0 || Instant::now() >= deadline {
            return Ok(Paused { in_flight });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Lets held requests go at once.
///
/// # Errors
/// Where the service is unknown or the change not allowed.
pub fn resume(handle: &Rc<Handle>, name: &ServiceName, change: &Change) -> Result<ServiceStatus, AdminError> {
    handle.with(|control| {
        control.admit_known(name, change)?;
        control.open_gate(name, None);
        control.service(name)
    })
}

impl Control {
    pub(super) fn admit_known(&mut self, name: &ServiceName, change: &Change) -> Result<(), AdminError> {
        if self.services.get(name).is_none_or(|service| service.generation == 0) {
            return Err(unknown(name));
        }
        self.admit(name, change, Origin::Admin)
    }

    pub(super) fn pause(
        &mut self,
        name: &ServiceName,
        pause: &request::Pause,
        change: &Change,
    ) -> Result<Arc<Gate>, AdminError> {
        self.admit_known(name, change)?;
        let service = self.services.get_mut(name).ok_or_else(|| unknown(name))?;
        let gate = Arc::new(Gate::new(pause));
        let until = Instant::now() + pause.lasts;
        let before = service.pause.replace(Pause { gate: Arc::clone(&gate), since: now_text(), until });
        service.compile();
        self.publish();
        // Who waits at the gate before asks again and comes to this one.
        before.into_iter().for_each(|before| before.gate.open());
        self.news.push(Event::Paused { service: name.clone() });
        Ok(gate)
    }

    /// Opens a service that is paused: at this gate, or whichever it is.
    pub(super) fn open_gate(&mut self, name: &ServiceName, gate: Option<&Arc<Gate>>) {
        let Some(service) = self.services.get_mut(name) else { return };
        let is_it = |pause: &mut Pause| gate.is_none_or(|gate| Arc::ptr_eq(gate, &pause.gate));
        let Some(pause) = service.pause.take_if(is_it) else { return };
        service.compile();
        self.publish();
        pause.gate.open();
        self.news.push(Event::Resumed { service: name.clone() });
    }

    fn in_flight_live(&self, name: &ServiceName) -> u64 {
        let live = self.services.get(name).and_then(|service| service.slot(service.live?));
        live.map_or(0, |live| live.run.in_flight())
    }

    /// Shows visitors a page, or no more.
    ///
    /// # Errors
    /// Where the service is unknown, the change not allowed, or it can't be saved; nothing is changed then.
    pub fn maintenance(
        &mut self,
        name: &ServiceName,
        wanted: request::Maintenance,
        change: &Change,
    ) -> Result<ServiceStatus, AdminError> {
        self.admit_known(name, change)?;
        let request::Maintenance { on, message, allow, pass } = wanted;
        let maintenance = on.then(|| SavedMaintenance { message, allow, pass, since: now_text() });
        let service = self.services.get(name).ok_or_else(|| unknown(name))?;
        let mut saved = service.saved();
        saved.generation += 1;
        saved.maintenance.clone_from(&maintenance);
        self.save(&saved)?;
        let service = self.services.get_mut(name).ok_or_else(|| unknown(name))?;
        service.generation = saved.generation;
        service.maintenance = maintenance;
        // What a flip would have put in force was written before this.
        service.prepared = None;
        service.compile();
        self.publish();
        self.news.push(Event::Maintenance { service: name.clone(), on });
        self.service(name)
    }
}
