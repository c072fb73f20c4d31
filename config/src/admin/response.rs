//! The bodies of answers. Readers skip fields that they don't know, so that fields can be added.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::request::ServiceSettings;
use crate::certificate::Certificate;
use crate::name::{EndpointAddr, ServiceName, Slot};
use crate::settings::ProxySettings;

/// What answers on the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// `bgproxy`.
    pub program: String,
    /// Its version.
    pub version: String,
    /// The version of the admin protocol.
    pub protocol: u32,
    /// SHA-256 of the program's file, in hex; tells two builds of one version apart.
    pub build: String,
    /// Its process id, in its own namespace.
    pub pid: u32,
    /// It gives its sockets to a successor that uses the same state.
    #[serde(default)]
    pub hands_over: bool,
}

/// A process that serves in the place of the one that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// Its process id, as the one before it sees it.
    pub pid: u32,
}

/// The state of the whole proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program.
    pub version: Version,
    /// When it started, RFC 3339.
    pub started: String,
    /// The addresses it listens on.
    pub listeners: Vec<String>,
    /// The addresses it listens on for TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls_listeners: Vec<String>,
    /// What it shows to clients of TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
    /// Client connections open now.
    pub connections: u64,
    /// Requests answered since the start.
    pub requests: u64,
    /// Saved state that could not be read at the start: its services answer 503.
    pub state_lost: Vec<String>,
    /// What someone should look at: a refused configuration, an older generation of state in use.
    pub warnings: Vec<String>,
    /// Every service.
    pub services: Vec<ServiceStatus>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The hosts that it is for.
    pub names: Vec<String>,
    /// When it ends, RFC 3339.
    pub not_after: String,
    /// SHA-256 of it and its issuers, in hex; empty where the proxy is of a build that tells none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
}

impl From<&Certificate> for CertificateStatus {
    fn from(certificate: &Certificate) -> Self {
        Self {
            names: certificate.names.clone(),
            not_after: humantime::format_rfc3339_seconds(certificate.not_after).to_string(),
            fingerprint: certificate.fingerprint(),
        }
    }
}

/// Every service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// In the order of their names.
    pub services: Vec<ServiceStatus>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: ServiceName,
    /// Counts its changes; sent as `ETag` too.
    pub generation: u64,
    /// Who made it and may change it.
    pub origin: Origin,
    /// The slot that takes new requests.
    pub live: Option<Slot>,
    /// Both slots.
    pub slots: Slots,
    /// Its routes.
    pub settings: ServiceSettings,
    /// Who holds the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseHolder>,
    /// Its requests are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseStatus>,
    /// Its visitors are shown a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<MaintenanceStatus>,
    /// A share of its visitors is on the idle slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryStatus>,
    /// The idle slot is shown to whoever has a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<PreviewStatus>,
    /// Its domains, where certificates come by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<DomainTls>,
    /// The bake that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<BakeStatus>,
}

/// A domain whose certificates come by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainTls {
    /// The domain, with its star where it is a wildcard.
    pub domain: String,
    /// When the certificate ends that is shown for it, RFC 3339; where there is none yet, plain HTTP serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// Why there is none, or none that is newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When the authority is asked next, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseStatus {
    /// Since when, RFC 3339.
    pub since: String,
    /// Requests that wait now.
    pub waiting: u64,
    /// When it is over by itself.
    #[serde(with = "crate::duration")]
    pub left: Duration,
}

/// A pause that began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Requests still in flight on the live slot.
    pub in_flight: u64,
}

/// Maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceStatus {
    /// Since when, RFC 3339.
    pub since: String,
    /// What visitors are told.
    pub message: String,
}

/// A share of visitors on the idle slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStatus {
    /// The idle slot.
    pub slot: Slot,
    /// Of a hundred visitors.
    pub percent: u8,
    /// None of them is there yet: the proxy was restarted, and the version has to be found healthy again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waiting: bool,
}

/// A preview.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewStatus {
    /// The idle slot.
    pub slot: Slot,
    /// How long the last link still holds.
    #[serde(with = "crate::duration")]
    pub left: Duration,
    /// As of a canary.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waiting: bool,
}

/// A link to a preview: any address of the service, with the token as its parameter `bg_preview`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The slot that it shows.
    pub slot: Slot,
    /// What makes it a link.
    pub token: String,
    /// Until when it holds, RFC 3339.
    pub expires: String,
}

/// A bake under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BakeStatus {
    /// The slot that is gone back to where the live one fails.
    pub back: Slot,
    /// How much of it is left.
    #[serde(with = "crate::duration")]
    pub left: Duration,
}

/// The proxy's own settings, those that change while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// Counts the changes by the admin API.
    pub generation: u64,
    /// What the admin API has set.
    pub settings: ProxySettings,
    /// The keys that stand in `bgproxy.toml`, which are changed there alone.
    pub file: Vec<String>,
    /// All that is in force.
    pub in_force: ProxySettings,
}

/// Who made a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// `bgproxy.toml`.
    File,
    /// The admin API.
    Admin,
}

/// Both slots of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// `BLUE`.
    pub blue: SlotStatus,
    /// `GREEN`.
    pub green: SlotStatus,
}

impl Slots {
    /// Returns one of the two.
    pub fn get(&self, slot: Slot) -> &SlotStatus {
        match slot {
            Slot::Blue => &self.blue,
            Slot::Green => &self.green,
        }
    }
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// What it is doing.
    pub state: SlotState,
    /// Where its version listens.
    pub endpoints: Vec<EndpointStatus>,
    /// Requests and tunnels on it now.
    pub in_flight: u64,
    /// Of these, WebSockets and event streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_lived: Option<LongLived>,
    /// The image that runs there.
    pub image: Option<String>,
    /// The deployment's id.
    pub deployment: Option<String>,
    /// When it came into its present state of being live, warm or staged, RFC 3339.
    pub since: Option<String>,
}

/// WebSockets and event streams on a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongLived {
    /// How many.
    pub count: u64,
    /// How old the oldest is.
    #[serde(with = "crate::duration")]
    pub oldest: Duration,
}

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Nothing is in it.
    Empty,
    /// Being probed; never healthy yet.
    Starting,
    /// Healthy and never live: it may be flipped to.
    Ready,
    /// Probed, and failing.
    Unhealthy,
    /// It takes new requests.
    Live,
    /// It was live and still has requests in flight.
    Draining,
    /// It was live, has nothing in flight, and may be flipped back to.
    Warm,
}

impl SlotState {
    /// Returns the word that JSON carries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unhealthy => "unhealthy",
            Self::Live => "live",
            Self::Draining => "draining",
            Self::Warm => "warm",
        }
    }
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Its name and port, as staged.
    pub address: EndpointAddr,
    /// The last verdict of its probe.
    pub healthy: bool,
    /// Why it is not healthy: the last probe's outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A flip that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flipped {
    /// The slot that is live now.
    pub live: Slot,
    /// The slot that was live before.
    pub old: Option<Slot>,
    /// From just before the new table was published until the old slot was marked, in microseconds.
    pub flip_micros: u64,
    /// Requests in flight on the old slot at that moment.
    pub in_flight: u64,
    /// The service's generation now.
    pub generation: u64,
}

/// A lease that was given, kept or given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its id, for the `bluegreen-lease` header; empty once given back.
    pub lease: String,
    /// It ends this long after the last call under it.
    #[serde(with = "crate::duration")]
    pub expires_in: Duration,
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseHolder {
    /// As in `alice@laptop`.
    pub who: String,
    /// What for.
    pub what: String,
    /// Since when, RFC 3339.
    pub since: String,
}

/// What became of requests between a staging and the end of a drain; counted by the proxy, not assumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Answered by the old slot, since the new one was staged.
    pub old: u64,
    /// Answered by the new slot, since it was staged.
    pub new: u64,
    /// Held back for a while.
    pub held: u64,
    /// Sent a second time, on a fresh connection or to the other slot.
    pub retried: u64,
    /// WebSockets and event streams ended politely at the drain deadline.
    pub closed: u64,
    /// Answers truncated or dropped at the drain deadline.
    pub cut: u64,
    /// Answered by an error that we made.
    pub failed: u64,
    /// Old assets that the one slot answered because the other lacks them.
    #[serde(default)]
    pub old_assets: u64,
}
