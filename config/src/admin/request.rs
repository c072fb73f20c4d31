//! The bodies of calls. An unknown field is refused, a missing one has its default.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::acme::TlsMode;
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
    /// Whether it takes no requests at all: a worker; where absent as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_route: Option<bool>,
    /// Whether certificates for its domains come by themselves; where absent as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// How its requests are served; where absent the present options stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<ServiceOptions>,
}

impl ServiceSettings {
    /// Returns these settings with what they leave open taken from others.
    #[must_use]
    pub fn or(self, present: &Self) -> Self {
        Self {
            options: self.options.or_else(|| present.options.clone()),
            no_route: self.no_route.or(present.no_route),
            tls: self.tls.or(present.tls),
            ..self
        }
    }

    /// Tells whether certificates for its domains come by themselves.
    pub fn is_tls_auto(&self) -> bool {
        self.tls == Some(TlsMode::Auto)
    }

    /// Tells whether it takes requests.
    pub fn is_routed(&self) -> bool {
        self.no_route != Some(true)
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
    /// The version takes no requests and has no endpoints, so that the slot is not cleared, and healthy at once.
    pub no_endpoints: bool,
    /// How to probe them.
    pub health: HealthCheck,
    /// Names of more header fields of the probe, whose values the proxy has: those of this deployment, else of the live one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_headers: Vec<String>,
    /// Settings that take effect with the flip, together with the endpoints; where absent the present ones stay.
    pub settings: Option<ServiceSettings>,
    /// The image that runs there, for the status.
    pub image: Option<String>,
    /// The deployment's id, for the status.
    pub deployment: Option<String>,
    /// It took requests before and was taken out for a while: once healthy the slot is warm, and is gone back to as before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub was_live: bool,
    /// How long to wait for health; the slot stays staged when it is over.
    #[serde(with = "crate::duration")]
    pub deadline: Duration,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            slot: None,
            endpoints: Vec::new(),
            no_endpoints: false,
            health: HealthCheck::default(),
            kept_headers: Vec::new(),
            settings: None,
            image: None,
            deployment: None,
            was_live: false,
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
    /// The same for WebSockets and event streams, which are then closed as they should be; where absent as long as the others.
    #[serde(with = "crate::duration::option", skip_serializing_if = "Option::is_none")]
    pub drain_tunnels: Option<Duration>,
    /// How long the new slot is watched: until then requests that it fails are answered by the old one, and the proxy flips
    /// back by itself where the new slot is dead or worse than the margins allow. Zero: not at all.
    #[serde(with = "crate::duration")]
    pub bake: Duration,
    /// How much worse it may be.
    pub margins: Margins,
}

impl Default for Flip {
    fn default() -> Self {
        Self {
            to: None,
            force: false,
            drain: defaults::DRAIN,
            drain_tunnels: None,
            bake: Duration::ZERO,
            margins: Margins::default(),
        }
    }
}

/// How much worse than the old slot a new one may be in its bake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Margins {
    /// Requests that both must have had before they are compared.
    pub requests: u32,
    /// So many more of a hundred requests may end in a 5xx; 100: errors are not judged.
    pub errors_percent: u8,
    /// A request is slow where it takes so many times what all but the slowest twentieth took before; 0: slowness is not
    /// judged.
    pub slow_factor: u32,
    /// So many more of a hundred requests may be slow.
    pub slow_percent: u8,
}

impl Default for Margins {
    fn default() -> Self {
        Self {
            requests: defaults::JUDGED_REQUESTS,
            errors_percent: defaults::MARGIN_ERRORS,
            slow_factor: defaults::SLOW_FACTOR,
            slow_percent: defaults::MARGIN_SLOW,
        }
    }
}

/// Waits until nothing is in flight on a slot that was live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// The slot; where absent the one that is not live.
    pub slot: Option<Slot>,
    /// Goes on until the bake is over too.
    pub bake: bool,
}

/// Holds requests until `resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pause {
    /// How long a request waits; then it is answered 503.
    #[serde(with = "crate::duration")]
    pub wait: Duration,
    /// How many may wait at once; more are answered 503 at once.
    pub requests: u32,
    /// The pause is over after this, whoever made it.
    #[serde(with = "crate::duration")]
    pub lasts: Duration,
    /// The call answers when nothing is in flight on the live slot, or after this.
    #[serde(with = "crate::duration")]
    pub drain: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            wait: defaults::PAUSE_WAIT,
            requests: defaults::PAUSED_REQUESTS,
            lasts: defaults::PAUSE_LASTS,
            drain: Duration::ZERO,
        }
    }
}

/// Starts another process in the place of the running one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upgrade {
    /// The program; none: the file that the running one was started from, as it is now.
    pub program: Option<PathBuf>,
    /// Its command line; none: that of the running one.
    pub arguments: Option<Vec<String>>,
}

/// Lets held requests go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {}

/// Sends a share of visitors to the idle slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Canary {
    /// Of a hundred visitors; zero: none any more.
    pub percent: u8,
    /// How much worse the idle slot may do than the live one before the proxy ends it.
    pub margins: Margins,
}

/// Shows the version in the idle slot to whoever has a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preview {
    /// How long the link holds.
    #[serde(with = "crate::duration")]
    pub lasts: Duration,
}

impl Default for Preview {
    fn default() -> Self {
        Self { lasts: defaults::PREVIEW }
    }
}

/// Changes the endpoints of the live slot without a flip. Those that stay are the first ones of the present list, in its
/// order: what is added or taken out is at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Endpoints {
    /// All of them from now on.
    pub endpoints: Vec<EndpointAddr>,
    /// How long requests may go on at those that were taken out; then the call answers all the same.
    #[serde(with = "crate::duration")]
    pub drain: Duration,
    /// How long to wait for health; the endpoints stay when it is over.
    #[serde(with = "crate::duration")]
    pub deadline: Duration,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self { endpoints: Vec::new(), drain: defaults::DRAIN, deadline: defaults::DEADLINE }
    }
}

/// Answers 503 with a page, or no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Maintenance {
    /// Whether it begins or ends.
    pub on: bool,
    /// What visitors are told; empty: that the service is under maintenance.
    pub message: String,
    /// Clients that are served all the same.
    pub allow: Vec<IpNet>,
    /// The value of the cookie `bg-pass-NAME` with which a visitor is served all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self { on: true, message: String::new(), allow: Vec::new(), pass: None }
    }
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
