//! One proxy, its load and its switches, from start to end.

use std::time::{Duration, Instant};

use crate::backend::{Arrival, Backends};
use crate::contender::{Call, Installed, Proxy};
use crate::error::Error;
use crate::load::{Log, Plan, Running};

/// Looks at whether something has happened are this far apart.
const LOOK: Duration = Duration::from_millis(1);
/// A switch has come to rest when the new application has had so many requests of each client, and the old one none.
const QUIET_TURNS: usize = 3;
/// A switch that has not come to rest by then is counted as restless, and the next one begins.
const PATIENCE: Duration = Duration::from_secs(2);
/// The load has begun when so many requests of each client are answered.
const WARM_TURNS: usize = 4;
/// By then it must have.
const WARM: Duration = Duration::from_secs(20);

/// A switch to the other application.
#[derive(Debug, Clone, Copy)]
pub struct Switch {
    /// The application that requests went to before.
    pub old: usize,
    /// The measured call.
    pub call: Call,
    /// Whether it came to rest before the next one began.
    pub rested: bool,
}

/// What was seen of one proxy in one round.
#[derive(Debug)]
pub struct Round {
    /// The switches, in order.
    pub switches: Vec<Switch>,
    /// What the two applications received.
    pub arrivals: [Vec<Arrival>; 2],
    /// What became of the load.
    pub load: Log,
}

/// Starts a proxy and two applications, and switches from one to the other and back under load.
///
/// # Errors
/// Where the proxy does not serve or refuses a call.
///
/// # Cancel safety
/// Dropping it ends the proxy, the load and the applications.
pub async fn run(installed: &Installed, plan: Plan, switches: usize) -> Result<Round, Error> {
    let folder = tempfile::tempdir().map_err(Error::io("make a folder"))?;
    let backends = Backends::start()?;
    let proxy = Proxy::start(installed, folder.path(), backends.addresses()).await?;
    let load = Running::start(proxy.address(), plan)?;
    warm_up(&load, plan).await?;

    let mut done = Vec::with_capacity(switches);
    for count in 0..switches {
        let (old, new) = (count % 2, (count + 1) % 2);
        proxy.prepare(backends.addresses()[new]).await?;
        let call = proxy.switch(new).await?;
        proxy.drained().await?;
        let rested = come_to_rest(&backends, old, plan, call.began).await;
        done.push(Switch { old, call, rested });
    }
    let load = load.stop()?;
    drop(proxy);
    let take = |backend| std::mem::take(&mut *backends.arrivals(backend));
    Ok(Round { switches: done, arrivals: [take(0), take(1)], load })
}

async fn warm_up(load: &Running, plan: Plan) -> Result<(), Error> {
    let deadline = Instant::now() + WARM;
    while load.answered() < WARM_TURNS * plan.clients() {
        if Instant::now() > deadline {
            return Err(Error::Load(format!("only {} answers came in {WARM:?}", load.answered())));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Waits until the new application alone has had every client's requests for a while; false at the deadline.
async fn come_to_rest(backends: &Backends, old: usize, plan: Plan, began: Instant) -> bool {
    let enough = QUIET_TURNS * plan.clients();
    while began.elapsed() < PATIENCE {
        let last_old = backends.arrivals(old).last().map_or(began, |arrival| arrival.at.max(began));
        let alone = backends.arrivals(1 - old).iter().rev().take(enough).take_while(|new| new.at > last_old).count();
        if alone >= enough {
            return true;
        }
        tokio::time::sleep(LOOK).await;
    }
    false
}
