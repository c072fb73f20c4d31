//! Where requests are sent: a run of a slot, and where its instances listen.

use std::sync::Arc;
use std::time::Instant;

use config::name::EndpointAddr;
use sha2::{Digest, Sha256};

use crate::upstream::resolve::literal;
use crate::upstream::run::Run;
use crate::upstream::socket::Address;

/// A run and where it listens.
#[derive(Clone)]
pub struct Target {
    /// The run, which counts what is in flight.
    pub run: Arc<Run>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// The slot that was live before, while visitors may have its pages open.
#[derive(Clone)]
pub struct Other {
    /// Where it listens.
    pub target: Target,
    /// Until when it is asked.
    pub until: Instant,
}

/// Where one instance of a version listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// As it was staged.
    pub address: EndpointAddr,
    /// What its name resolves to, as far as is known.
    pub addresses: Vec<Address>,
    /// The last verdict of its probe.
    pub healthy: bool,
    /// Since when it is not healthy, where it was before.
    pub unhealthy_since: Option<Instant>,
    /// What a visitor's cookie calls it.
    pub mark: Arc<str>,
}

impl Endpoint {
    /// Returns an endpoint whose name is yet to be resolved, unless it is an address.
    pub fn new(address: EndpointAddr, healthy: bool) -> Self {
        let digest = Sha256::digest(address.to_string().as_bytes());
        let mark: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let addresses = literal(&address).into_iter().collect();
        Self { address, addresses, healthy, unhealthy_since: None, mark: mark.into() }
    }

    /// Tells whether its name must be resolved.
    pub fn is_name(&self) -> bool {
        literal(&self.address).is_none()
    }
}
