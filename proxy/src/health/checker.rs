//! Probes the endpoints of one slot run for as long as it is in its slot.

use std::rc::Rc;

use config::defaults;
use config::health::HealthCheck;
use config::name::EndpointAddr;
use tokio::time::{Duration, Instant};

use super::{Outcome, probe};
use crate::control::{Handle, Probed};
use crate::upstream::resolve::resolve;
use crate::upstream::run::RunId;

/// A live endpoint that fails is looked at again after this.
const UNHEALTHY: Duration = Duration::from_secs(1);

/// What is probed.
pub(crate) struct Watched {
    /// The run.
    pub(crate) run: RunId,
    /// Its endpoint.
    pub(crate) endpoint: EndpointAddr,
    /// How.
    pub(crate) check: HealthCheck,
    /// The `Host` of the probe.
    pub(crate) host: String,
    /// Whether it has been live before: then it is probed at leisure.
    pub(crate) settled: bool,
}

/// Probes an endpoint again and again; ends when its run has left its slot.
pub(crate) async fn watch(handle: Rc<Handle>, mut watched: Watched) {
    let probed = match watched.check.port {
        Some(port) => watched.endpoint.with_port(port),
        None => watched.endpoint.clone(),
    };
    let mut due = Instant::now();
    // Looked at before each probe: an address that was given to someone else is none of ours.
    while let Some(protocol) = handle.with(|control| control.watched_protocol(&watched)) {
        let addresses = resolve(&watched.endpoint).await;
        let outcome = match &addresses {
            _ if !watched.check.enabled => Outcome::Passed("not probed".to_owned()),
            Err(error) => Outcome::Failed(format!("{} has no address: {error}", watched.endpoint.host())),
            Ok(addresses) => {
                let address = addresses[0].with_port(probed.port());
                probe::probe(&address, &watched.host, &watched.check, protocol).await
            }
        };
        let passed = outcome.passed();
        let (run, endpoint) = (watched.run, watched.endpoint.clone());
        let known = handle.with(|control| {
            watched.settled |= control.is_settled(run);
            control.probed(Probed { run, endpoint, addresses: addresses.ok(), outcome })
        });
        let Some(healthy) = known else { continue };
        let interval = match (watched.settled || !watched.check.enabled, passed) {
            (true, true) if healthy => defaults::LIVE_HEALTH_INTERVAL,
            (true, false) => UNHEALTHY,
            // Someone may wait for it: a new version, or a warm one that a restart must find anew.
            (true | false, _) => watched.check.interval,
        };
        due = (due + interval).max(Instant::now());
        tokio::time::sleep_until(due).await;
    }
}
