//! The link by which a version that waits for its flip is looked at through the service's own domain.

use std::time::Duration;

use config::admin::PREVIEW_PARAMETER;
use config::admin::request;
use config::admin::response::ServiceStatus;
use config::name::{HostPattern, ServiceName, Slot};
use serde::Serialize;

use crate::admin::Client;
use crate::engine::Engine;
use crate::error::{Error, Kind};

/// A link.
#[derive(Debug, Serialize)]
pub(crate) struct Link {
    /// The slot that it shows.
    pub(crate) slot: Slot,
    /// The address.
    pub(crate) url: String,
    /// Until when, RFC 3339.
    pub(crate) expires: String,
}

/// What a link is to be like.
pub(crate) struct Wanted<'a> {
    /// How long it holds.
    pub(crate) lasts: Duration,
    /// Where it leads.
    pub(crate) path: &'a str,
}

/// Makes a link; under the service's lease where somebody holds one.
///
/// # Errors
/// Where no healthy version waits for its flip.
pub(crate) async fn link(
    client: &mut Client,
    engine: Option<&Engine>,
    name: &ServiceName,
    wanted: Wanted<'_>,
) -> Result<Link, Error> {
    let made = client.preview(name, &request::Preview { lasts: wanted.lasts }).await.map_err(|error| {
        // Whatever the reason is, there is no version to be shown.
        let mut error = Error::from(error);
        if error.kind == Kind::Unhealthy {
            error.kind = Kind::NoFlip;
        }
        error
    })?;
    let service = client.service(name).await?;
    let addresses = match engine {
        Some(engine) => engine.addresses().await?,
        None => Vec::new(),
    };
    let place = service.map_or_else(|| name.to_string(), |service| place(&service, &addresses));
    let url = format!("http://{place}{}?{PREVIEW_PARAMETER}={}", wanted.path, made.token);
    Ok(Link { slot: made.slot, url, expires: made.expires })
}

/// Returns host and port by which the service is visited.
fn place(service: &ServiceStatus, addresses: &[String]) -> String {
    let addresses: Vec<&str> = addresses.iter().filter_map(|address| address.strip_prefix("http://")).collect();
    let port = |address: &&str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    let ports: Vec<String> = addresses.iter().filter_map(port).collect();
    let exact = service.settings.domains.iter().find(|domain| matches!(domain, HostPattern::Exact(_)));
    let host = match (exact.or(service.settings.domains.first()), addresses.first()) {
        (Some(domain), _) => domain.to_string().replace('*', "preview"),
        // Any host will do, but one that is no address of anybody.
        (None, Some(address)) => {
            let port = address.strip_prefix("0.0.0.0").or_else(|| address.strip_prefix("[::]"));
            return port.map_or_else(|| (*address).to_owned(), |port| format!("localhost{port}"));
        }
        (None, None) => service.name.to_string(),
    };
    match ports.first() {
        Some(port) if !ports.iter().any(|port| port == "80") => format!("{host}:{port}"),
        _ => host,
    }
}
