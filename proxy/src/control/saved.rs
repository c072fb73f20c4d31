//! What is saved, as it stands in the files.

use config::admin::request::{Margins, ServiceSettings};
use config::admin::response::{LeaseHolder, Origin};
use config::health::HealthCheck;
use config::name::{EndpointAddr, ServiceName, Slot};
use config::settings::ProxySettings;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::kept_headers::KeptHeaders;

/// What is saved of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Its name.
    pub name: ServiceName,
    /// Counts its changes.
    pub generation: u64,
    /// Who made it.
    pub origin: Origin,
    /// Its routes.
    pub settings: ServiceSettings,
    /// They are in force; not before the first flip of one that was only staged.
    #[serde(default = "routed")]
    pub routed: bool,
    /// The slot that takes new requests.
    pub live: Option<Slot>,
    /// `BLUE`.
    pub blue: Option<SavedSlot>,
    /// `GREEN`.
    pub green: Option<SavedSlot>,
    /// Its visitors are shown a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<SavedMaintenance>,
    /// Header fields of the probes of its deployments.
    #[serde(default, skip_serializing_if = "KeptHeaders::is_empty")]
    pub kept_headers: KeptHeaders,
}

fn routed() -> bool {
    true
}

/// What is saved of maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMaintenance {
    /// What visitors are told.
    pub message: String,
    /// Clients that are served all the same.
    pub allow: Vec<IpNet>,
    /// The cookie with which a visitor is served all the same.
    pub pass: Option<String>,
    /// RFC 3339.
    pub since: String,
}

/// What is saved of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLease {
    /// Its id.
    pub id: String,
    /// Who holds it.
    pub holder: LeaseHolder,
}

/// What is saved of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSlot {
    /// Where its version listens.
    pub endpoints: Vec<EndpointAddr>,
    /// How it is probed.
    pub health: HealthCheck,
    /// The image.
    pub image: Option<String>,
    /// The deployment's id.
    pub deployment: Option<String>,
    /// Tells this staging from every other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub staging: String,
    /// RFC 3339.
    pub since: String,
}

/// What is saved of an idle slot that visitors see, as a canary or by a link. It has a file of its own, which whatever changes that
/// slot takes away, so that no other version is ever taken for it; that works on a full disk too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedShown {
    /// The slot.
    pub slot: Slot,
    /// What is in it.
    pub version: SavedSlot,
    /// It took all requests once.
    pub was_live: bool,
    /// Take effect with the next flip to it.
    pub next_settings: Option<ServiceSettings>,
    /// Its share of the visitors.
    pub canary: Option<SavedCanary>,
    /// The end of the last link, RFC 3339.
    pub preview: Option<String>,
}

/// What is saved of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCanary {
    /// Of a hundred visitors.
    pub percent: u8,
    /// How much worse than the live slot it may be.
    pub margins: Margins,
}

/// What is saved of the proxy itself: what the admin API set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedProxy {
    /// Counts its changes.
    pub generation: u64,
    /// Its settings.
    pub settings: ProxySettings,
}
