//! What is probed, and what becomes of what the probes find.

use std::rc::Rc;
use std::time::Instant;

use config::admin::Event;
use config::name::{EndpointAddr, HostPattern, ServiceName, Slot};
use config::options::Protocol;
use tokio::sync::mpsc;

use super::service::Service;
use super::slot::{EndpointHealth, SlotRun};
use super::{Control, Handle};
use crate::health::{self, Outcome, Watched};
use crate::upstream::resolve::resolve;
use crate::upstream::run::RunId;
use crate::upstream::socket::Address;
use crate::worker::Resolve;

/// Looks names up anew for workers that could not connect.
pub(super) async fn take_resolves(handle: &Rc<Handle>, resolves: &mut mpsc::UnboundedReceiver<Resolve>) {
    while let Some(Resolve { run, endpoint, reply }) = resolves.recv().await {
        let handle = Rc::clone(handle);
        tokio::task::spawn_local(async move {
            let addresses = resolve(&endpoint).await.unwrap_or_default();
            if !addresses.is_empty() {
                handle.with(|control| control.resolved(run, &endpoint, &addresses));
            }
            // The request may have ended meanwhile.
            _ = reply.send(addresses);
        });
    }
}

/// Begins the health checks of runs that are not watched yet.
pub(crate) fn watch_all(handle: &Rc<Handle>) {
    let all: Vec<Watched> = handle.with(|control| {
        let slots = control.services.values().flat_map(|s| Slot::BOTH.map(|slot| (s, slot)));
        slots.filter_map(|(service, slot)| Some(watched(service, service.slot(slot)?))).flatten().collect()
    });
    for mut watched in all {
        if handle.with(|control| control.watching.insert((watched.run, watched.endpoint.clone()))) {
            let handle = Rc::clone(handle);
            super::spawn("probing", async move || health::watch(&handle, &mut watched).await);
        }
    }
}

pub(super) fn watched(service: &Service, state: &SlotRun) -> Vec<Watched> {
    let settings = service.next_settings.as_ref().unwrap_or(&service.settings);
    let domain = settings.domains.iter().find_map(|domain| match domain {
        HostPattern::Exact(name) => Some(name.clone()),
        HostPattern::Wildcard(_) | HostPattern::Any => None,
    });
    let host = state.health.host.clone().or(domain).unwrap_or_else(|| service.name.to_string());
    let watch = |endpoint: &EndpointHealth| Watched {
        run: state.run.id(),
        endpoint: endpoint.endpoint.address.clone(),
        check: state.health.clone(),
        host: host.clone(),
        settled: state.was_live,
    };
    state.endpoints.iter().map(watch).collect()
}

/// What a probe found.
pub(crate) struct Probed {
    /// Of which run.
    pub(crate) run: RunId,
    /// Which endpoint.
    pub(crate) endpoint: EndpointAddr,
    /// What its name resolved to; `None`: not asked, or no answer.
    pub(crate) addresses: Option<Vec<Address>>,
    /// The outcome.
    pub(crate) outcome: Outcome,
}

impl Control {
    /// Takes a probe's outcome, and returns whether the endpoint is healthy now; `None` where the run is gone and nobody
    /// need probe it any more.
    pub(crate) fn probed(&mut self, probe: Probed) -> Option<bool> {
        let Probed { run, endpoint: address, addresses, outcome } = probe;
        let (name, slot) = self.find_run(run)?;
        let service = self.services.get_mut(&name)?;
        let is_live = service.live == Some(slot);
        let state = service.slot_mut(slot).as_mut()?;
        let was_ready = state.is_healthy();
        let (passes, staged, was_live) = (state.health.passes, state.staged, state.was_live);
        let endpoint = state.endpoints.iter_mut().find(|known| known.endpoint.address == address)?;
        let told = endpoint.streak.outcome() != outcome.words();
        let before = endpoint.endpoint.clone();
        endpoint.endpoint.healthy = endpoint.streak.take(&outcome, passes);
        endpoint.endpoint.unhealthy_since = match (before.healthy, endpoint.endpoint.healthy) {
            (_, true) => None,
            (true, false) => Some(Instant::now()),
            (false, false) => before.unhealthy_since,
        };
        if let Some(addresses) = addresses {
            endpoint.endpoint.addresses = addresses;
        }
        let changed = endpoint.endpoint != before;
        let healthy = endpoint.endpoint.healthy;
        let words = outcome.words().to_owned();
        let is_ready = state.is_healthy();
        let service_name = name.clone();
        if told && !was_live {
            let passed = outcome.passed();
            self.news.push(Event::Probe {
                service: service_name.clone(),
                slot,
                address: address.clone(),
                passed,
                outcome: words.clone(),
            });
        }
        if was_live && before.healthy != healthy {
            self.news.push(Event::Health { service: service_name.clone(), slot, address, healthy, outcome: words });
        }
        if is_ready && !was_ready && !was_live {
            self.news.push(Event::Healthy { service: service_name, slot, seconds: staged.elapsed().as_secs_f64() });
        }
        if is_ready && !was_ready {
            self.warm_up(&name, slot);
            self.show_again(&name, slot);
        }
        let is_other = self.services.get(&name).is_some_and(|service| service.is_other(run));
        let has_visitors = is_live || is_other || self.is_canary(run);
        if changed && has_visitors {
            if let Some(service) = self.services.get_mut(&name) {
                service.compile();
            }
            self.publish();
        }
        Some(healthy)
    }

    pub(super) fn find_run(&self, run: RunId) -> Option<(ServiceName, Slot)> {
        self.services.values().find_map(|service| {
            let holds = |slot: &Slot| service.slot(*slot).is_some_and(|known| known.run.id() == run);
            Slot::BOTH.into_iter().find(holds).map(|slot| (service.name.clone(), slot))
        })
    }

    /// Keeps new addresses of an endpoint that was looked up because it could not be connected to.
    pub(crate) fn resolved(&mut self, run: RunId, address: &EndpointAddr, addresses: &[Address]) {
        let Some((name, slot)) = self.find_run(run) else { return };
        let Some(service) = self.services.get_mut(&name) else { return };
        let endpoints = service.slot_mut(slot).as_mut().map(|state| &mut state.endpoints);
        for known in endpoints.into_iter().flatten().filter(|known| known.endpoint.address == *address) {
            known.endpoint.addresses = addresses.to_vec();
        }
        service.compile();
        self.publish();
    }

    /// Tells what to speak to a run that is probed; `None` where nobody waits for its probes, and it is watched no more.
    pub(crate) fn watched_protocol(&mut self, watched: &Watched) -> Option<Protocol> {
        let found = self.find_run(watched.run).filter(|(name, slot)| {
            let state = self.services.get(name).and_then(|service| service.slot(*slot));
            // It may have been taken out of its run.
            state.is_some_and(|state| state.endpoints.iter().any(|known| known.endpoint.address == watched.endpoint))
        });
        let Some((name, slot)) = found else {
            self.watching.remove(&(watched.run, watched.endpoint.clone()));
            return None;
        };
        let service = self.services.get(&name)?;
        let next = service.next_settings.as_ref().filter(|_| !service.was_live(slot));
        let options = next.and_then(|next| next.options.as_ref()).or(service.settings.options.as_ref());
        Some(options.map(|options| options.protocol).unwrap_or_default())
    }

    /// Tells whether a run takes or took requests, and is not in its bake.
    pub(crate) fn is_settled(&self, run: RunId) -> bool {
        !self.is_baking(run)
            && !self.is_canary(run)
            && self.find_run(run).is_some_and(|(name, slot)| self.services.get(&name).is_some_and(|s| s.was_live(slot)))
    }
}
