//! `bgproxy.toml` exactly as it is written: texts and numbers with their places, nothing judged yet.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_spanned::Spanned;

use crate::edge::file::{
    Access, BasicAuth, Compress, HeaderChanges, OldAssets, OneOrMore, RateLimit, Redirect, Rewrite, StaticFiles, Switch,
};

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
    /// Who is told when the proxy acted alone.
    #[serde(default)]
    pub webhook: Webhook,
    /// Where certificates come from that nobody brings.
    #[serde(default)]
    pub acme: Acme,
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

/// `[webhook]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where it is sent.
    pub url: Option<Text>,
    /// What signs it.
    pub secret: Option<Text>,
    /// A file of certificates that are believed besides those of the public authorities.
    pub ca: Option<Text>,
}

/// `[acme]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// Whom the authority writes to.
    pub email: Option<Text>,
    /// The authority.
    pub directory: Option<Text>,
    /// Let's Encrypt's authority for trials.
    pub staging: Option<Spanned<bool>>,
    /// The name of the key that binds the account to another one.
    pub eab_key_id: Option<Text>,
    /// That key.
    pub eab_hmac: Option<Text>,
    /// The file that it stands in.
    pub eab_hmac_file: Option<Text>,
    /// A file of certificates that are believed besides those of the public authorities.
    pub ca: Option<Text>,
    /// The program that writes records of DNS, and its arguments.
    pub dns_hook: Option<Spanned<Vec<Text>>>,
    /// In which order ways to prove a domain are tried.
    pub challenges: Option<Spanned<Vec<Text>>>,
    /// Whether visitors of plain HTTP are led to https.
    pub redirect: Option<bool>,
    /// Who is asked whether a host that no service names may have a certificate.
    pub on_demand: Option<Text>,
    /// How many such hosts are given one in an hour.
    pub on_demand_per_hour: Option<Spanned<u32>>,
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
    /// `auto` or `off`.
    pub tls: Option<Text>,
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
    /// Whether visitors of plain HTTP are led to https.
    pub https_redirect: Option<bool>,
    /// How long a browser is to remember that there is https.
    pub hsts: Option<Text>,
    /// Whether that is so of subdomains too.
    pub hsts_subdomains: Option<Spanned<bool>>,
    /// The file of the authority that issued clients' certificates.
    pub client_ca: Option<Text>,
    /// Files of HTML, by status.
    #[serde(default)]
    pub error_pages: BTreeMap<Text, Text>,
    /// Requests that are sent to another address.
    pub redirects: Option<Spanned<OneOrMore<Redirect>>>,
    /// The one host that visitors are to see.
    pub canonical_host: Option<Text>,
    /// Other paths for the application.
    pub rewrite: Option<Spanned<OneOrMore<Rewrite>>>,
    /// Changes of requests.
    pub request_headers: Option<Spanned<HeaderChanges>>,
    /// Changes of answers.
    pub response_headers: Option<Spanned<HeaderChanges>>,
    /// Whether answers have the usual fields for safety.
    pub security_headers: Option<bool>,
    /// Which networks may come.
    pub access: Option<Spanned<OneOrMore<Access>>>,
    /// Who may come with a password.
    pub basic_auth: Option<Spanned<OneOrMore<BasicAuth>>>,
    /// How many requests of one client are taken.
    pub rate_limits: Option<Spanned<OneOrMore<RateLimit>>>,
    /// Which answers are compressed.
    pub compress: Option<Spanned<Switch<Compress>>>,
    /// Folders whose files are served.
    pub r#static: Option<Spanned<OneOrMore<StaticFiles>>>,
    /// What the old version is asked for.
    pub old_assets: Option<Spanned<OldAssets>>,
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
