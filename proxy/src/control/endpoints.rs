//! More endpoints of the live slot, or fewer, without a flip: those that stay take requests all the time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use config::admin::request;
use config::admin::response::Origin;
use config::admin::{AdminError, ErrorCode, Event};
use config::name::{EndpointAddr, ServiceName, Slot};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::slot;
use super::watching::watch_all;
use super::{Change, Control, Handle, unknown};
use crate::upstream::leaving::Leaving;
use crate::upstream::run::RunId;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often it is said how far it has got.
const EVERY: Duration = Duration::from_secs(1);

/// A worker looks twice a second.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// A change of the live slot's endpoints that is under way.
struct Waiting {
    handle: Rc<Handle>,
    name: ServiceName,
    slot: Slot,
    run: RunId,
    lease: Option<String>,
    /// What was taken out, where anything was.
    leaving: Option<Arc<Leaving>>,
}

/// Changes the endpoints of the live slot, and tells how that goes until each is healthy and nothing is under way on those that
/// were taken out.
///
/// # Errors
/// Where nothing is live, the list is not one that can follow the present one, the change is not allowed, or it can't be saved;
/// nothing is changed then.
pub fn endpoints(
    handle: &Rc<Handle>,
    name: &ServiceName,
    wanted: &request::Endpoints,
    change: &Change,
) -> Result<mpsc::Receiver<Event>, AdminError> {
    let (slot, run, leaving) = handle.with(|control| control.set_endpoints(name, &wanted.endpoints, change))?;
    watch_all(handle);
    handle.predecessor.hurry();
    let (sender, receiver) = mpsc::channel(64);
    let (handle, name, lease) = (Rc::clone(handle), name.clone(), change.lease.clone());
    let waiting = Waiting { handle, name, slot, run, lease, leaving };
    tokio::task::spawn_local(waiting.tell(wanted.clone(), sender));
    Ok(receiver)
}

impl Waiting {
    async fn tell(self, wanted: request::Endpoints, sender: mpsc::Sender<Event>) {
        let began = Instant::now();
        let (mut look, mut told) = (tokio::time::interval(LOOK), began);
        loop {
            look.tick().await;
            // Whoever asked has gone: the change stands, and its lease must run out.
            if sender.is_closed() {
                break;
            }
            let state = self.handle.with(|control| control.complaint_of(&self.name, self.run));
            let in_flight = self.leaving.as_ref().map_or(Some(0), |leaving| leaving.in_flight());
            let waited = began.elapsed();
            // Each worker is given the time for a look, and one that is ending is not waited for.
            let is_known = in_flight.is_some() || waited >= wanted.drain + LAST_LOOK;
            // What the process before us has there is not known to us.
            let in_flight = in_flight.filter(|_| !self.handle.predecessor.is_there());
            let has_left = in_flight == Some(0) || (is_known && waited >= wanted.drain);
            let last = match state {
                None => Some(Event::Error(self.gone())),
                Some(None) if has_left => Some(Event::Endpoints {
                    service: self.name.clone(),
                    slot: self.slot,
                    seconds: waited.as_secs_f64(),
                    in_flight: in_flight.unwrap_or_default(),
                }),
                Some(Some(complaint)) if waited >= wanted.deadline => Some(Event::Error(AdminError::new(
                    ErrorCode::NotHealthy,
                    format!("{} of {} did not become healthy in time: {complaint}", self.slot, self.name),
                ))),
                Some(_) => None,
            };
            if let Some(last) = last {
                // Nobody listening is no fault.
                _ = sender.send(last).await;
                break;
            }
            if told.elapsed() >= EVERY {
                told = Instant::now();
                self.handle.with(|control| control.keep_lease(&self.name, self.lease.as_deref()));
                if let Some(in_flight) = in_flight.filter(|count| *count > 0) {
                    let event = Event::Draining { service: self.name.clone(), slot: self.slot, in_flight };
                    _ = sender.send(event).await;
                }
            }
        }
        if let Some(leaving) = &self.leaving {
            self.handle.with(|control| control.ask_no_more(leaving));
        }
    }

    fn gone(&self) -> AdminError {
        let message = format!("{} of {} has another version now", self.slot, self.name);
        AdminError::new(ErrorCode::Superseded, message)
    }
}

impl Control {
    /// Publishes the live slot with other endpoints; those that stay keep their places, and all that is known of them.
    pub(super) fn set_endpoints(
        &mut self,
        name: &ServiceName,
        wanted: &[EndpointAddr],
        change: &Change,
    ) -> Result<(Slot, RunId, Option<Arc<Leaving>>), AdminError> {
        if self.services.get(name).is_none_or(|service| service.generation == 0) {
            return Err(unknown(name));
        }
        self.admit(name, change, Origin::Admin)?;
        let service = self.services.get(name).ok_or_else(|| unknown(name))?;
        let Some((slot, state)) = service.live.and_then(|live| Some((live, service.slot(live)?))) else {
            return Err(AdminError::new(ErrorCode::EmptySlot, format!("{name} has no live slot"))
                .hint("stage endpoints and flip to them"));
        };
        let present: Vec<&EndpointAddr> = state.endpoints.iter().map(|known| &known.endpoint.address).collect();
        let stay = present.iter().zip(wanted).take_while(|(present, wanted)| **present == *wanted).count();
        check(&present, wanted, stay).map_err(|why| AdminError::new(ErrorCode::BadRequest, why))?;
        let run = state.run.id();
        let is_fewer = stay < present.len();

        let mut saved = service.saved();
        saved.generation += 1;
        let saved_slot = match slot {
            Slot::Blue => saved.blue.as_mut(),
            Slot::Green => saved.green.as_mut(),
        };
        saved_slot.into_iter().for_each(|saved| wanted.clone_into(&mut saved.endpoints));
        self.save(&saved)?;
        let service = self.services.get_mut(name).ok_or_else(|| unknown(name))?;
        service.generation = saved.generation;
        // What a flip would put in force still had the endpoints of before.
        service.prepared = None;
        if let Some(state) = service.slot_mut(slot) {
            state.endpoints.truncate(stay);
            state.endpoints.extend(slot::endpoints(wanted[stay..].to_vec(), !state.health.enabled));
        }
        service.compile();
        self.publish();
        self.news.push(Event::Changed { service: name.clone(), generation: saved.generation });
        // Asked only now: every later request sees the list without them.
        let leaving = is_fewer.then(|| Arc::new(Leaving::new(run, stay, self.workers)));
        if let (Some(shared), Some(leaving)) = (&self.shared, &leaving) {
            shared.leaving.send_modify(|asked| asked.push(Arc::clone(leaving)));
        }
        Ok((slot, run, leaving))
    }

    /// Returns what the endpoints of a live run lack; the outer `None`: it is not live any more.
    fn complaint_of(&self, name: &ServiceName, run: RunId) -> Option<Option<String>> {
        let service = self.services.get(name)?;
        let state = service.slot(service.live?).filter(|state| state.run.id() == run)?;
        Some((!state.is_healthy()).then(|| state.complaint()))
    }

    fn ask_no_more(&self, over: &Arc<Leaving>) {
        if let Some(shared) = &self.shared {
            shared.leaving.send_modify(|asked| asked.retain(|asked| !Arc::ptr_eq(asked, over)));
        }
    }
}

/// Tells why a list can't follow the present one, of which so many endpoints stay.
fn check(present: &[&EndpointAddr], wanted: &[EndpointAddr], stay: usize) -> Result<(), String> {
    let (new, gone) = (&wanted[stay..], &present[stay..]);
    if wanted.is_empty() {
        return Err("a live slot has at least one endpoint".to_owned());
    }
    if let Some(moved) = new.iter().find(|new| gone.contains(new)) {
        return Err(format!("{moved} has another place: endpoints are added and taken out at the end of the list"));
    }
    let is_twice = |(at, address): &(usize, &EndpointAddr)| wanted[..*at].contains(address);
    match wanted.iter().enumerate().find(is_twice) {
        Some((_, twice)) => Err(format!("{twice} is there twice")),
        None => Ok(()),
    }
}
