//! One file a command: its arguments, whose doc comments are its help, then what it does.

pub mod apply;
mod brought;
pub mod canary;
mod changes;
pub mod check;
pub mod complete;
pub mod completions;
mod compose;
pub mod config;
mod confirm;
pub mod demo;
pub mod demo_uptimer;
pub mod deploy;
mod described;
pub mod doctor;
pub mod down;
mod env_file;
pub mod events;
pub(crate) mod everywhere;
pub mod exec;
pub mod flip;
pub mod history;
pub mod import_nginx;
pub mod init;
pub mod logs;
pub mod maintenance;
pub mod man;
mod missing;
pub mod options;
pub(crate) mod order;
pub mod pause;
pub mod plan;
pub mod preview;
pub(crate) mod proxy_table;
pub mod prune;
pub mod push;
pub mod recover;
mod replace;
pub mod rm;
pub mod rollback;
pub mod rollout;
pub mod route;
mod running;
pub mod scale;
pub mod schema;
pub mod secret;
pub mod status;
pub mod switch;
pub(crate) mod together;
pub mod top;
mod unseen;
pub mod up;
pub mod verify;

use ::config::admin::response::ServiceStatus;
use ::config::name::{EndpointAddr, ServiceName};

pub(crate) use self::described::host as described_host;
use crate::admin::Client;
use crate::error::Error;

/// Returns a service that must be there.
pub(crate) async fn known(client: &mut Client, name: &ServiceName) -> Result<ServiceStatus, Error> {
    client.service(name).await?.ok_or_else(|| no_such_service(name))
}

/// Returns where the live version of a service listens.
pub(crate) fn addresses(service: Option<&ServiceStatus>) -> Vec<EndpointAddr> {
    let live = service.and_then(|service| Some(service.slots.get(service.live?)));
    live.into_iter().flat_map(|slot| &slot.endpoints).map(|endpoint| endpoint.address.clone()).collect()
}

/// Refuses what is about visitors where a service has none: what is live there has no port.
pub(crate) fn has_visitors(service: &ServiceStatus) -> Result<(), Error> {
    let is_worker = service.live.is_some_and(|live| service.slots.get(live).endpoints.is_empty());
    if !is_worker {
        return Ok(());
    }
    Err(Error::usage(format!("{} has no port, so it has no visitors", service.name)))
}

/// Returns the refusal of a name that no service has.
pub(crate) fn no_such_service(name: &ServiceName) -> Error {
    Error::usage(format!("there is no service `{name}`")).hint("`bgctl status` lists the services")
}
