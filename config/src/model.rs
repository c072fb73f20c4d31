//! The validated configuration of the proxy: every value present, every word parsed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::acme::AcmeSettings;
use crate::admin::request::ServiceSettings;
use crate::certificate::Certificate;
use crate::error::Problem;
use crate::health::HealthCheck;
use crate::name::{EndpointAddr, PathPrefix, ServiceName};
use crate::network::Network;
use crate::settings::{LimitSettings, LogSettings, ProxySettings};
use crate::webhook::WebhookSettings;
use crate::{defaults, paths};

pub use crate::settings::AccessFormat;

/// What `bgproxy.toml` means; the default is what no file at all means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Where to listen.
    pub listen: Listen,
    /// Where to listen for TLS; by default only where there is a certificate.
    pub listen_tls: Listen,
    /// What is shown to clients of TLS, in the order of the file.
    pub certificates: Vec<Certificate>,
    /// What someone should look at, and what is served all the same.
    pub complaints: Vec<Problem>,
    /// The admin socket.
    pub admin: PathBuf,
    /// The folder of saved state.
    pub state: PathBuf,
    /// Worker threads.
    pub workers: Workers,
    /// Networks whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<Network>,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<Network>,
    /// Where the metrics are served besides the admin socket.
    pub metrics: Option<SocketAddr>,
    /// Limits and time-outs.
    pub limits: Limits,
    /// What is logged, and where.
    pub log: Log,
    /// Who is told when the proxy acted alone.
    pub webhook: WebhookSettings,
    /// Where certificates come from that nobody brings.
    pub acme: AcmeSettings,
    /// What the file itself says of all that changes while the proxy runs; the fields above are what it means.
    pub settings: ProxySettings,
    /// The file's services, in the order of their names.
    pub services: Vec<FileService>,
    /// The files that it names and that were read with it, and what tells their contents from others.
    pub files: Vec<(PathBuf, u64)>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            listen: Listen::Default,
            listen_tls: Listen::Default,
            certificates: Vec::new(),
            complaints: Vec::new(),
            admin: paths::ADMIN_SOCKET.into(),
            state: paths::STATE_DIR.into(),
            workers: Workers::PerCore,
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            metrics: None,
            limits: Limits::default(),
            log: Log::default(),
            webhook: WebhookSettings::default(),
            acme: AcmeSettings::default(),
            settings: ProxySettings::default(),
            services: Vec::new(),
            files: Vec::new(),
        }
    }
}

impl Model {
    /// Returns the configuration with what the file leaves open taken from a table, and the default where neither says it.
    #[must_use]
    pub fn with(&self, table: &ProxySettings) -> Self {
        let ProxySettings { trusted_proxies, proxy_protocol, limits, log, webhook, acme } =
            self.settings.clone().or(table);
        let (default, access) = (Limits::default(), Access::default());
        Self {
            trusted_proxies: trusted_proxies.unwrap_or_default(),
            proxy_protocol: proxy_protocol.unwrap_or_default(),
            limits: Limits {
                connections: limits.connections.unwrap_or(default.connections),
                connections_per_address: limits.connections_per_address,
                header_timeout: limits.header_timeout.unwrap_or(default.header_timeout),
                idle_timeout: limits.idle_timeout.unwrap_or(default.idle_timeout),
                body_idle_timeout: limits.body_idle_timeout.unwrap_or(default.body_idle_timeout),
                connect_timeout: limits.connect_timeout.unwrap_or(default.connect_timeout),
                response_timeout: limits.response_timeout.unwrap_or(default.response_timeout),
                shutdown_timeout: limits.shutdown_timeout.unwrap_or(default.shutdown_timeout),
                ..self.limits.clone()
            },
            log: Log {
                access: Access {
                    format: log.access.unwrap_or_default(),
                    file: log.access_file,
                    redact: log.access_redact.unwrap_or_default(),
                    exclude: log.access_exclude.unwrap_or_default(),
                    one_in: log.access_one_in.unwrap_or(access.one_in),
                },
                ..self.log.clone()
            },
            webhook,
            acme,
            ..self.clone()
        }
    }

    /// Returns what is in force of all that changes while the proxy runs; open is left what has no default.
    pub fn in_force(&self) -> ProxySettings {
        let (limits, access) = (&self.limits, &self.log.access);
        ProxySettings {
            trusted_proxies: Some(self.trusted_proxies.clone()),
            proxy_protocol: Some(self.proxy_protocol.clone()),
            limits: LimitSettings {
                connections: Some(limits.connections),
                connections_per_address: limits.connections_per_address,
                header_timeout: Some(limits.header_timeout),
                idle_timeout: Some(limits.idle_timeout),
                body_idle_timeout: Some(limits.body_idle_timeout),
                connect_timeout: Some(limits.connect_timeout),
                response_timeout: Some(limits.response_timeout),
                shutdown_timeout: Some(limits.shutdown_timeout),
            },
            log: LogSettings {
                access: Some(access.format),
                access_file: access.file.clone(),
                access_redact: Some(access.redact.clone()),
                access_exclude: Some(access.exclude.clone()),
                access_one_in: Some(access.one_in),
            },
            webhook: self.webhook.clone(),
            acme: self.acme.clone(),
        }
    }
}

/// Where to listen. That nobody asked matters: a host without IPv6 is then a warning, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// The usual port of every address, IPv6 where there is any.
    Default,
    /// These addresses, each of which must work.
    Asked(Vec<SocketAddr>),
}

impl Listen {
    /// Returns the addresses, IPv4 first, given the usual port.
    pub fn addresses(&self, port: u16) -> Vec<SocketAddr> {
        match self {
            Self::Default => vec![
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
                SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
            ],
            Self::Asked(addresses) => addresses.clone(),
        }
    }
}

/// Worker threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One a core.
    PerCore,
    /// So many.
    Count(NonZeroUsize),
}

impl Workers {
    /// Returns the number of threads on this machine.
    pub fn count(self) -> usize {
        match self {
            Self::PerCore => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            Self::Count(count) => count.get(),
        }
    }
}

/// Limits and time-outs; their reasons stand in [`defaults`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once, all workers together.
    pub connections: usize,
    /// Those of one client address; `None`: as many as there are.
    pub connections_per_address: Option<usize>,
    /// The complete head of a request, from its first byte.
    pub header_timeout: Duration,
    /// A client connection without a request.
    pub idle_timeout: Duration,
    /// A body in which nothing moves.
    pub body_idle_timeout: Duration,
    /// Connecting to an endpoint.
    pub connect_timeout: Duration,
    /// From the whole request sent to the head of the answer.
    pub response_timeout: Duration,
    /// The header fields of one message, in bytes.
    pub header_bytes: usize,
    /// Header fields in one message.
    pub header_fields: usize,
    /// The request target, in bytes.
    pub target_bytes: usize,
    /// An upstream connection without a request.
    pub upstream_idle: Duration,
    /// Idle upstream connections a worker keeps for each address.
    pub upstream_idle_connections: usize,
    /// How long SIGTERM waits for requests in flight.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: defaults::CONNECTIONS,
            connections_per_address: None,
            header_timeout: defaults::HEADER_TIMEOUT,
            idle_timeout: defaults::IDLE_TIMEOUT,
            body_idle_timeout: defaults::BODY_IDLE_TIMEOUT,
            connect_timeout: defaults::CONNECT_TIMEOUT,
            response_timeout: defaults::RESPONSE_TIMEOUT,
            header_bytes: defaults::HEADER_BYTES,
            header_fields: defaults::HEADER_FIELDS,
            target_bytes: defaults::TARGET_BYTES,
            upstream_idle: defaults::UPSTREAM_IDLE,
            upstream_idle_connections: defaults::UPSTREAM_IDLE_CONNECTIONS,
            shutdown_timeout: defaults::SHUTDOWN,
        }
    }
}

/// What is logged, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// The least important level of the proxy's own log, which goes to stderr.
    pub level: LogLevel,
    /// Its form.
    pub format: LogFormat,
    /// The access log.
    pub access: Access,
}

/// What is written of requests, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The form of a line.
    pub format: AccessFormat,
    /// The file that lines go to; `None`: stdout.
    pub file: Option<PathBuf>,
    /// Query parameters whose values are not written.
    pub redact: Vec<String>,
    /// Paths whose requests are not written.
    pub exclude: Vec<PathPrefix>,
    /// One of so many requests is written; what failed always is.
    pub one_in: u32,
}

impl Default for Access {
    fn default() -> Self {
        Self { format: AccessFormat::default(), file: None, redact: Vec::new(), exclude: Vec::new(), one_in: 1 }
    }
}

/// How much the proxy says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// We broke a promise.
    Error,
    /// Someone should look.
    Warn,
    /// What an operator wants to find later.
    #[default]
    Info,
    /// Clients that misbehave, too.
    Debug,
    /// Everything.
    Trace,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A service of the file; its endpoints are given to its live slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileService {
    /// Its name.
    pub name: ServiceName,
    /// Its routes.
    pub settings: ServiceSettings,
    /// Where the application listens; at least one.
    pub endpoints: Vec<EndpointAddr>,
    /// How they are probed.
    pub health: HealthCheck,
}
