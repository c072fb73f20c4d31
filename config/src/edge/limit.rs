//! How many requests of one client are taken.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Consistent, Fault, FieldName};
use crate::name::PathPrefix;

/// A limit; of several each counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// So many in the time of `per`, in the long run; where absent only those at once are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<NonZeroU32>,
    /// The time.
    #[serde(with = "crate::duration")]
    pub per: Duration,
    /// How many may come at once before that counts; where absent as many as in that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<NonZeroU32>,
    /// How many may be under way at once, WebSockets too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<NonZeroU32>,
    /// Who is one client.
    pub by: LimitBy,
    /// The paths whose requests count; where absent all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathPrefix>,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { requests: None, per: Self::PER, burst: None, connections: None, by: LimitBy::default(), path: None }
    }
}

impl RateLimit {
    /// The time where none is given.
    pub const PER: Duration = Duration::from_secs(1);
    /// The longest time.
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// Returns the time from one request to the next, in the long run, in nanoseconds.
    pub fn step(&self) -> Option<u64> {
        let requests = u128::from(self.requests?.get());
        u64::try_from(self.per.as_nanos() / requests).ok().filter(|step| *step > 0)
    }
}

impl Consistent for RateLimit {
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.requests.is_none() && self.connections.is_none() {
            let hint = "add requests = 10 and per = \"1s\", or connections = 20";
            faults.push(Fault::new("path", "the limit has no number", hint));
        }
        if self.requests.is_none() && self.burst.is_some() {
            faults.push(Fault::new("burst", "`burst` has no rate that it could exceed", "add requests = 10"));
        }
        if self.per.is_zero() || self.per > Self::LONGEST {
            faults.push(Fault::new("per", "the time of a rate is longer than a day, or none", "write 1s, 1m or 1h"));
        } else if self.requests.is_some() && self.step().is_none_or(|step| step < 1000) {
            faults.push(Fault::new("requests", "the rate is more than a million in a second", "leave it out"));
        }
        faults
    }
}

/// Who is one client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LimitBy {
    /// An address; of IPv6 its /64.
    #[default]
    Address,
    /// A value of this field; of requests that have none the address.
    Header(FieldName),
}

impl FromStr for LimitBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "address" => Ok(Self::Address),
            Some(("header", name)) => Ok(Self::Header(name.trim().parse()?)),
            _ => Err(format!("`{}` is nothing that clients are told apart by", super::shorten(text))),
        }
    }
}

impl fmt::Display for LimitBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("address"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

super::serde_as_text!(LimitBy);
