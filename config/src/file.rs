//! `bgproxy.toml` exactly as it is written: texts and numbers with their places, nothing judged yet.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_spanned::Spanned;

/// A text and where it stands.
pub type Text = Spanned<String>;
/// A whole number and where it stands.
pub type Number = Spanned<i64>;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Addresses to listen on.
    pub listen: Option<Spanned<Vec<Text>>>,
    /// Addresses to listen on for TLS.
    pub listen_tls: Option<Spanned<Vec<Text>>>,
    /// The admin socket.
    pub admin: Option<Text>,
    /// The folder of saved state.
    pub state: Option<Text>,
    /// Worker threads.
    pub workers: Option<Number>,
    /// Networks whose forwarded headers are believed.
    pub trusted_proxies: Option<Vec<Text>>,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_protocol: Option<Vec<Text>>,
    /// Where the metrics are served besides the admin socket.
    pub metrics: Option<Text>,
    /// What is shown to clients of TLS.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    /// Limits and time-outs.
    #[serde(default)]
    pub limits: Limits,
    /// What is logged, and where.
    #[serde(default)]
    pub log: Log,
    /// Services, by name.
    #[serde(default)]
    pub services: BTreeMap<Text, Service>,
}

/// `[[certificates]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The file of the certificate, its issuers behind it.
    pub cert: Text,
    /// The file of its key.
    pub key: Text,
}

/// `[limits]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Client connections at once.
    pub connections: Option<Number>,
    /// Those of one client address.
    pub connections_per_address: Option<Number>,
    /// The head of a request.
    pub header_timeout: Option<Text>,
    /// A client connection without a request.
    pub idle_timeout: Option<Text>,
    /// A body in which nothing moves.
    pub body_idle_timeout: Option<Text>,
    /// Connecting to an endpoint.
    pub connect_timeout: Option<Text>,
    /// From the request to the head of its answer.
    pub response_timeout: Option<Text>,
    /// The header fields of one message, in bytes.
    pub header_bytes: Option<Number>,
    /// How many header fields one message has.
    pub header_fields: Option<Number>,
    /// The request target, in bytes.
    pub target_bytes: Option<Number>,
    /// An upstream connection without a request.
    pub upstream_idle: Option<Text>,
    /// Idle upstream connections a worker and address.
    pub upstream_idle_connections: Option<Number>,
    /// How long SIGTERM waits.
    pub shutdown_timeout: Option<Text>,
}

/// `[log]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The least important level that is written.
    pub level: Option<Text>,
    /// `text` or `json`.
    pub format: Option<Text>,
    /// `off`, `combined` or `json`.
    pub access: Option<Text>,
    /// Where access lines go.
    pub access_file: Option<Text>,
    /// Query parameters whose values are not written.
    pub access_redact: Option<Vec<Text>>,
    /// Paths whose requests are not written.
    pub access_exclude: Option<Vec<Text>>,
    /// One of so many requests is written.
    pub access_one_in: Option<Number>,
}

/// `[services.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Hosts.
    #[serde(default)]
    pub domains: Vec<Text>,
    /// Path prefixes.
    #[serde(default)]
    pub paths: Vec<Text>,
    /// Whether the prefix is taken off.
    pub strip_path: Option<Spanned<bool>>,
    /// Where the application listens.
    #[serde(default)]
    pub endpoints: Vec<Text>,
    /// The probe.
    #[serde(default)]
    pub health: Health,
    /// How its requests are served.
    #[serde(default)]
    pub options: Options,
}

/// `[services.NAME.options]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// What is spoken to the application.
    pub protocol: Option<Text>,
    /// Connecting to an endpoint.
    pub connect_timeout: Option<Text>,
    /// From the request to the head of its answer.
    pub response_timeout: Option<Text>,
    /// A body in which nothing moves.
    pub body_idle_timeout: Option<Text>,
    /// The longest body of a request.
    pub request_bytes: Option<Text>,
    /// Whether a request's body is taken whole first.
    pub buffer_requests: Option<bool>,
    /// Whether a visitor stays with an endpoint.
    pub sticky: Option<bool>,
    /// Requests of one client address in a second.
    pub requests_per_second: Option<Number>,
    /// How many may come at once.
    pub burst: Option<Number>,
    /// Whether its requests are in the access log.
    pub access_log: Option<bool>,
    /// Files of HTML, by status.
    #[serde(default)]
    pub error_pages: BTreeMap<Text, Text>,
}

/// `[services.NAME.health]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// False: no probe.
    pub enabled: Option<bool>,
    /// What is asked for.
    pub path: Option<Text>,
    /// Another port.
    pub port: Option<Number>,
    /// The `Host` of the probe.
    pub host: Option<Text>,
    /// More header fields.
    #[serde(default)]
    pub headers: BTreeMap<Text, Text>,
    /// What passes.
    pub status: Option<Text>,
    /// How long one probe may take.
    pub timeout: Option<Text>,
    /// From one probe to the next.
    pub interval: Option<Text>,
    /// Passes in a row.
    pub passes: Option<Number>,
}
