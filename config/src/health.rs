//! How an endpoint is probed, and what counts as a pass.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::defaults;

/// The probe of a slot's endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// False: the endpoints count as healthy without a probe (`--no-health`).
    pub enabled: bool,
    /// The path and query that are asked for.
    pub path: String,
    /// Another port than the endpoint's own.
    pub port: Option<u16>,
    /// The `Host` of the probe; where absent the service's first domain, else its name.
    pub host: Option<String>,
    /// More header fields, in order.
    pub headers: Vec<(String, String)>,
    /// The statuses that pass.
    pub status: StatusRange,
    /// How long one probe may take, connecting included.
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// The time from the start of one probe to the start of the next.
    #[serde(with = "crate::duration")]
    pub interval: Duration,
    /// How many passes in a row make an endpoint healthy.
    pub passes: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            enabled: true,
            path: defaults::HEALTH_PATH.to_owned(),
            port: None,
            host: None,
            headers: Vec::new(),
            status: StatusRange::default(),
            timeout: defaults::HEALTH_TIMEOUT,
            interval: defaults::HEALTH_INTERVAL,
            passes: defaults::HEALTH_PASSES,
        }
    }
}

/// An inclusive range of statuses: `200-399`, or one: `204`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// Tells whether a status is in the range.
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl Default for StatusRange {
    fn default() -> Self {
        Self { first: 200, last: 399 }
    }
}

impl FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = first.trim().parse().ok().zip(last.trim().parse().ok());
        match range {
            Some((first, last)) if (100..=599).contains(&first) && (first..=599).contains(&last) => {
                Ok(Self { first, last })
            }
            _ => Err(format!("`{text}` is not a status such as 200 or a range such as 200-399")),
        }
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_inclusive_and_refuses_nonsense() {
        let range: StatusRange = "200-399".parse().unwrap();
        assert!(range.contains(200) && range.contains(399) && !range.contains(400));
        assert_eq!("204".parse::<StatusRange>().unwrap().to_string(), "204");
        for bad in ["", "399-200", "20", "200-", "600", "abc"] {
            assert!(bad.parse::<StatusRange>().is_err(), "{bad}");
        }
    }
}
