//! One file a command: its arguments, whose doc comments are its help, then what it does.

pub mod apply;
pub mod canary;
mod changes;
pub mod check;
pub mod complete;
pub mod completions;
mod compose;
pub mod config;
pub mod demo;
pub mod demo_uptimer;
pub mod deploy;
mod described;
pub mod doctor;
pub mod down;
pub mod events;
pub(crate) mod everywhere;
pub mod exec;
pub mod flip;
pub mod history;
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
pub mod route;
pub mod scale;
pub mod schema;
pub mod secret;
pub mod status;
pub mod switch;
pub mod top;
pub mod up;
pub mod verify;

use ::config::admin::response::ServiceStatus;
use ::config::name::ServiceName;

pub(crate) use self::described::host as described_host;
use crate::admin::Client;
use crate::error::Error;

/// Returns a service that must be there.
pub(crate) async fn known(client: &mut Client, name: &ServiceName) -> Result<ServiceStatus, Error> {
    client.service(name).await?.ok_or_else(|| no_such_service(name))
}

/// Returns the refusal of a name that no service has.
pub(crate) fn no_such_service(name: &ServiceName) -> Error {
    Error::usage(format!("there is no service `{name}`")).hint("`bgctl status` lists the services")
}
