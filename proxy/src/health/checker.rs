//! Probes the endpoints of one slot run for as long as it is in its slot.

use std::io;
use std::rc::Rc;

use config::defaults;
use config::health::HealthCheck;
use config::name::EndpointAddr;
use config::options::Protocol;
use tokio::time::{Duration, Instant};

use super::{Outcome, probe};
use crate::control::{Handle, Probed, suspect};
use crate::upstream::resolve::resolve;
use crate::upstream::run::RunId;
use crate::upstream::socket::{Address, Socket};

/// A live endpoint that fails is looked at again after this.
const UNHEALTHY: Duration = Duration::from_secs(1);
/// While a suspected endpoint is silent, its name is looked up again after this.
const NAME: Duration = Duration::from_millis(20);

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
    /// Whether it has been live before, and its bake is over: then it is probed at leisure.
    pub(crate) settled: bool,
}

/// Probes an endpoint once, where it is to be probed, and returns what its name resolved to as well.
///
/// # Cancel safety
/// Dropping it closes the connection of the probe.
async fn ask(watched: &Watched, protocol: Protocol) -> (Outcome, Option<Vec<Address>>) {
    let addresses = resolve(&watched.endpoint).await;
    let port = watched.check.port.unwrap_or(watched.endpoint.port());
    let outcome = match &addresses {
        _ if !watched.check.enabled => Outcome::Passed("not probed".to_owned()),
        Err(error) => Outcome::Dead(format!("{} has no address: {error}", watched.endpoint.host())),
        Ok(addresses) => probe::probe(&addresses[0].with_port(port), &watched.host, &watched.check, protocol).await,
    };
    (outcome, addresses.ok())
}

/// What one look at a suspected endpoint found.
pub(crate) enum Found {
    /// Nothing at all answers, and why.
    Dead(String),
    /// It fails, or is silent, and is there.
    Failing,
    /// It passed its probe.
    Well,
}

/// Looks once whether anything answers, on the port of the requests and of the probes.
///
/// # Cancel safety
/// Dropping it closes what it opened.
pub(crate) async fn look(watched: &Watched, protocol: Protocol) -> Found {
    tokio::select! {
        biased;
        found = connect_and_ask(watched, protocol) => found,
        reason = loses_address(&watched.endpoint) => Found::Dead(reason),
    }
}

async fn connect_and_ask(watched: &Watched, protocol: Protocol) -> Found {
    let address = match resolve(&watched.endpoint).await {
        Ok(addresses) => addresses[0].clone(),
        Err(error) => return Found::Dead(no_address(&error)),
    };
    match Socket::connect(&address, watched.check.timeout).await {
        Err(error) if error.kind() != io::ErrorKind::TimedOut => return Found::Dead(probe::words(&error)),
        _ => {}
    }
    match ask(watched, protocol).await.0 {
        Outcome::Dead(words) => Found::Dead(words),
        Outcome::Failed(_) => Found::Failing,
        Outcome::Passed(_) => Found::Well,
    }
}

/// Waits until a name has no address any more: a container that the engine has put away refuses nothing, it is silent.
async fn loses_address(endpoint: &EndpointAddr) -> String {
    loop {
        tokio::time::sleep(NAME).await;
        if let Err(error) = resolve(endpoint).await {
            return no_address(&error);
        }
    }
}

fn no_address(error: &io::Error) -> String {
    format!("it has no address: {error}")
}

/// Probes an endpoint again and again; ends when its run has left its slot.
pub(crate) async fn watch(handle: &Rc<Handle>, watched: &mut Watched) {
    let mut due = Instant::now();
    // Looked at before each probe: an address that was given to someone else is none of ours.
    while let Some(protocol) = handle.with(|control| control.watched_protocol(watched)) {
        let (outcome, addresses) = ask(watched, protocol).await;
        if let Outcome::Dead(_) = outcome {
            suspect(handle, watched.run);
        }
        let passed = outcome.passed();
        let (run, endpoint) = (watched.run, watched.endpoint.clone());
        let known = handle.with(|control| {
            watched.settled = control.is_settled(run);
            control.probed(Probed { run, endpoint, addresses, outcome })
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
