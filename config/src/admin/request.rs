//! The bodies of calls. An unknown field is refused, a missing one has its default.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::defaults;
use crate::health::HealthCheck;
use crate::name::{EndpointAddr, HostPattern, PathPrefix, Slot};
use crate::options::ServiceOptions;

/// The routes of a service, every domain with every path, and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceSettings {
    /// The hosts whose requests the service takes; empty: every host that no other service takes.
    pub domains: Vec<HostPattern>,
    /// The path prefixes it takes; empty: every path.
    pub paths: Vec<PathPrefix>,
    /// Whether the prefix is taken off before the request goes to the application.
    pub strip_path: bool,
    /// How its requests are served; where absent the present options stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<ServiceOptions>,
}

impl ServiceSettings {
    /// Returns these settings with what they leave open taken from others.
    #[must_use]
    pub fn or(self, present: &Self) -> Self {
        Self { options: self.options.or_else(|| present.options.clone()), ..self }
    }
}

/// Puts endpoints into a slot that is not live, and probes them until they are healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stage {
    /// The slot; where absent the idle one.
    pub slot: Option<Slot>,
    /// Where the new version listens; empty: the slot is cleared, and nothing is probed.
    pub endpoints: Vec<EndpointAddr>,
    /// How to probe them.
    pub health: HealthCheck,
    /// Settings that take effect with the flip, together with the endpoints; where absent the present ones stay.
    pub settings: Option<ServiceSettings>,
    /// The image that runs there, for the status.
    pub image: Option<String>,
    /// The deployment's id, for the status.
    pub deployment: Option<String>,
    /// How long to wait for health; the slot stays staged when it is over.
    #[serde(with = "crate::duration")]
    pub deadline: Duration,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            slot: None,
            endpoints: Vec::new(),
            health: HealthCheck::default(),
            settings: None,
            image: None,
            deployment: None,
            deadline: defaults::DEADLINE,
        }
    }
}

/// Takes a service's routes away, waits for the requests under way, and forgets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delete {
    /// How long requests may go on; then what is left is ended.
    #[serde(with = "crate::duration")]
    pub drain: Duration,
}

impl Default for Delete {
    fn default() -> Self {
        Self { drain: defaults::DRAIN }
    }
}

/// Makes a slot live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flip {
    /// The slot; where absent the one that is not live.
    pub to: Option<Slot>,
    /// Flips to a slot that is not healthy too.
    pub force: bool,
    /// How long requests on the old slot may go on; then what is left is ended, and counted.
    #[serde(with = "crate::duration")]
    pub drain: Duration,
}

impl Default for Flip {
    fn default() -> Self {
        Self { to: None, force: false, drain: defaults::DRAIN }
    }
}

/// Waits until nothing is in flight on a slot that was live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// The slot; where absent the one that is not live.
    pub slot: Option<Slot>,
}

/// Takes, keeps or gives back the right to change a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "action", rename_all = "snake_case")]
pub enum Lease {
    /// Takes the lease where it is free.
    Acquire {
        /// Who asks, as in `alice@laptop`.
        who: String,
        /// What for, as in `switch to shop:42`.
        #[serde(default)]
        what: String,
    },
    /// Keeps it for another 15 s; every call under the lease does so too.
    Renew {
        /// The id that `acquire` gave.
        lease: String,
    },
    /// Gives it back.
    Release {
        /// The id that `acquire` gave.
        lease: String,
    },
}
