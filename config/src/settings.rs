//! The proxy's own settings that change while it runs: of `bgproxy.toml`, or of the `[proxy]` table of `bluegreen.toml`.
//!
//! Each is there or left open, so that two makers can share them: what the proxy's own file says is the file's, the rest may
//! come from the admin API.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::acme::AcmeSettings;
use crate::duration;
use crate::name::PathPrefix;
use crate::network::Network;
use crate::webhook::WebhookSettings;

/// What `limits.connections` and `limits.connections_per_address` take.
pub const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;
/// What `log.access_one_in` takes.
pub const ONE_IN: RangeInclusive<usize> = 1..=1_000_000;
/// The longest time-out: longer than anybody waits, and far from where sums of instants end.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The settings, by the keys of the file; `None` is what is left open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxySettings {
    /// Networks whose forwarded headers are believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_proxies: Option<Vec<Network>>,
    /// Networks whose connections begin with a PROXY header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<Vec<Network>>,
    /// `[limits]`.
    #[serde(skip_serializing_if = "LimitSettings::is_empty")]
    pub limits: LimitSettings,
    /// `[log]`.
    #[serde(skip_serializing_if = "LogSettings::is_empty")]
    pub log: LogSettings,
    /// `[webhook]`.
    #[serde(skip_serializing_if = "WebhookSettings::is_empty")]
    pub webhook: WebhookSettings,
    /// `[acme]`.
    #[serde(skip_serializing_if = "AcmeSettings::is_empty")]
    pub acme: AcmeSettings,
}

/// The limits among them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Client connections at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<usize>,
    /// Those of one client address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_address: Option<usize>,
    /// The head of a request.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub header_timeout: Option<Duration>,
    /// A client connection without a request.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// A body in which nothing moves.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub body_idle_timeout: Option<Duration>,
    /// Connecting to an endpoint.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    /// From the request to the head of its answer.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub response_timeout: Option<Duration>,
    /// How long SIGTERM waits.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub shutdown_timeout: Option<Duration>,
}

/// What of the logs is among them: the access log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// The form of a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessFormat>,
    /// The file that lines go to; left open it is stdout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_file: Option<PathBuf>,
    /// Query parameters whose values are not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_redact: Option<Vec<String>>,
    /// Paths whose requests are not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_exclude: Option<Vec<PathPrefix>>,
    /// One of so many requests is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_one_in: Option<u32>,
}

/// What is written of each request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessFormat {
    /// Nothing.
    #[default]
    Off,
    /// The line that Apache and nginx call `combined`.
    Combined,
    /// One JSON object a line.
    Json,
}

impl ProxySettings {
    /// Returns these settings with what they leave open taken from others.
    #[must_use]
    pub fn or(self, below: &Self) -> Self {
        let below = below.clone();
        Self {
            trusted_proxies: self.trusted_proxies.or(below.trusted_proxies),
            proxy_protocol: self.proxy_protocol.or(below.proxy_protocol),
            limits: LimitSettings {
                connections: self.limits.connections.or(below.limits.connections),
                connections_per_address: self.limits.connections_per_address.or(below.limits.connections_per_address),
                header_timeout: self.limits.header_timeout.or(below.limits.header_timeout),
                idle_timeout: self.limits.idle_timeout.or(below.limits.idle_timeout),
                body_idle_timeout: self.limits.body_idle_timeout.or(below.limits.body_idle_timeout),
                connect_timeout: self.limits.connect_timeout.or(below.limits.connect_timeout),
                response_timeout: self.limits.response_timeout.or(below.limits.response_timeout),
                shutdown_timeout: self.limits.shutdown_timeout.or(below.limits.shutdown_timeout),
            },
            log: LogSettings {
                access: self.log.access.or(below.log.access),
                access_file: self.log.access_file.or(below.log.access_file),
                access_redact: self.log.access_redact.or(below.log.access_redact),
                access_exclude: self.log.access_exclude.or(below.log.access_exclude),
                access_one_in: self.log.access_one_in.or(below.log.access_one_in),
            },
            webhook: self.webhook.or(below.webhook),
            acme: self.acme.or(below.acme),
        }
    }

    /// Returns what is there, by its key: `limits.connections`.
    pub fn keys(&self) -> BTreeMap<String, Value> {
        let mut keys = BTreeMap::new();
        if let Ok(Value::Object(fields)) = serde_json::to_value(self) {
            for (name, value) in fields {
                match value {
                    Value::Object(table) => {
                        keys.extend(table.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
                    }
                    value => drop(keys.insert(name, value)),
                }
            }
        }
        keys
    }

    /// Checks what no type does; a file is checked with the places.
    ///
    /// # Errors
    /// The first thing that is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let LimitSettings {
            connections,
            connections_per_address,
            header_timeout,
            idle_timeout,
            body_idle_timeout,
            connect_timeout,
            response_timeout,
            shutdown_timeout,
        } = &self.limits;
        let one_in = self.log.access_one_in.map(|number| number as usize);
        for (key, number, range) in [
            ("limits.connections", *connections, CONNECTIONS),
            ("limits.connections_per_address", *connections_per_address, CONNECTIONS),
            ("log.access_one_in", one_in, ONE_IN),
        ] {
            if let Some(number) = number.filter(|number| !range.contains(number)) {
                return Err(format!("`{key}` is {number}: it goes from {} to {}", range.start(), range.end()));
            }
        }
        for (key, time) in [
            ("limits.header_timeout", header_timeout),
            ("limits.idle_timeout", idle_timeout),
            ("limits.body_idle_timeout", body_idle_timeout),
            ("limits.connect_timeout", connect_timeout),
            ("limits.response_timeout", response_timeout),
            ("limits.shutdown_timeout", shutdown_timeout),
        ] {
            if time.is_some_and(|time| time > LONGEST) {
                return Err(format!("`{key}` is longer than a day"));
            }
        }
        for (key, file) in [
            ("log.access_file", &self.log.access_file),
            ("webhook.ca", &self.webhook.ca),
            ("acme.ca", &self.acme.ca),
            ("acme.eab_hmac_file", &self.acme.eab_hmac_file),
        ] {
            if file.as_ref().is_some_and(|file| !file.is_absolute()) {
                return Err(format!("`{key}` is not an absolute path"));
            }
        }
        self.acme.contradiction().map_or(Ok(()), |wrong| Err(wrong.what.to_owned()))
    }
}

impl LimitSettings {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl LogSettings {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ProxySettings {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_left_open_is_not_there_and_is_taken_from_below() {
        let table = read(r#"{"log":{"access":"json"},"limits":{"idle_timeout":"5s"}}"#);
        assert_eq!(table.keys().keys().collect::<Vec<_>>(), ["limits.idle_timeout", "log.access"]);
        assert_eq!(serde_json::to_string(&ProxySettings::default()).unwrap(), "{}");
        let below = read(r#"{"trusted_proxies":["private"],"log":{"access":"off","access_one_in":7}}"#);
        let both = table.or(&below);
        assert_eq!(
            both,
            read(
                r#"{"trusted_proxies":["private"],"limits":{"idle_timeout":"5s"},"log":{"access":"json","access_one_in":7}}"#
            )
        );
        assert_eq!(both.clone().or(&below), both);
        assert_eq!(ProxySettings::default().or(&below), below);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_its_key() {
        for (text, wanted) in [
            (r#"{"limits":{"connections":0}}"#, "`limits.connections` is 0: it goes from 1 to 1000000"),
            (r#"{"limits":{"idle_timeout":"2days"}}"#, "`limits.idle_timeout` is longer than a day"),
            (r#"{"log":{"access_file":"access.log"}}"#, "`log.access_file` is not an absolute path"),
            (r#"{"webhook":{"ca":"ca.pem"}}"#, "`webhook.ca` is not an absolute path"),
            (r#"{"log":{"access_one_in":0}}"#, "`log.access_one_in` is 0: it goes from 1 to 1000000"),
        ] {
            assert_eq!(read(text).check().unwrap_err(), wanted);
        }
        assert_eq!(read(r#"{"limits":{"connections":9},"log":{"access_file":"/a"}}"#).check(), Ok(()));
        for wrong in [r#"{"listen":[]}"#, r#"{"limits":{"header_bytes":9000}}"#, r#"{"limits":{"idle_timeout":"0s"}}"#]
        {
            assert!(serde_json::from_str::<ProxySettings>(wrong).is_err(), "{wrong}");
        }
    }
}
