//! From the file to the model: every problem is collected, not the first alone.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::error::{Problem, Source};
use crate::file::{self, File, Number, Text};
use crate::model::{Access, AccessFormat, FileService, Limits, Listen, Log, LogFormat, LogLevel, Model, Workers};
use crate::{duration, paths};

mod options;
mod project;
mod service;

pub use self::project::{Judge, project};

/// What `private` stands for: the networks that no visitor from outside can have.
const PRIVATE: [&str; 8] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];
/// What `cloudflare` stands for: the networks that Cloudflare publishes at cloudflare.com/ips, as of 2026-11. They have not
/// changed since 2021; where they do, the new ones can be listed beside the word.
const CLOUDFLARE: [&str; 22] = [
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];
/// Longer than anybody waits; keeps sums of instants far from their end.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the model that a file means.
///
/// # Errors
/// Every problem of the file, in its order.
pub fn validate(file: File, source: &Source) -> Result<Model, Vec<Problem>> {
    let mut check = Check { source, problems: Vec::new() };
    let model = Model {
        listen: check.listen(file.listen),
        admin: check.path("admin", file.admin, paths::ADMIN_SOCKET),
        state: check.path("state", file.state, paths::STATE_DIR),
        workers: check.workers(file.workers),
        trusted_proxies: check.networks(file.trusted_proxies.unwrap_or_default()),
        proxy_protocol: check.networks(file.proxy_protocol.unwrap_or_default()),
        metrics: file.metrics.and_then(|text| check.word(&text, "write an IP address and a port: 127.0.0.1:9100")),
        limits: check.limits(file.limits),
        log: check.log(file.log),
        services: check.services(file.services),
    };
    check.end(model)
}

/// A route of the file, as the second service that claims it sees it: domain and path as text.
type Routes = BTreeMap<(String, String), (String, Range<usize>)>;

struct Check<'a> {
    source: &'a Source,
    problems: Vec<Problem>,
}

impl Check<'_> {
    /// Returns what a file means, where nothing is wrong with it.
    fn end<T>(self, meaning: T) -> Result<T, Vec<Problem>> {
        let mut problems = self.problems;
        if problems.is_empty() {
            return Ok(meaning);
        }
        problems.sort_by_key(|problem| problem.place.position.map(|at| (at.line, at.column)));
        Err(problems)
    }

    fn refuse(&mut self, span: Range<usize>, what: impl Into<String>, hint: &str) {
        self.problems.push(self.source.problem(span, what).hint(hint));
    }

    /// Parses a word; a refused one is reported and left out.
    fn word<T: FromStr<Err: Display>>(&mut self, text: &Text, hint: &str) -> Option<T> {
        text.get_ref().parse().map_err(|error: T::Err| self.refuse(text.span(), error.to_string(), hint)).ok()
    }

    fn listen(&mut self, listen: Option<serde_spanned::Spanned<Vec<Text>>>) -> Listen {
        let Some(listen) = listen else { return Listen::Default };
        if listen.get_ref().is_empty() {
            self.refuse(listen.span(), "`listen` names no address", "leave it out for port 80 of every address");
        }
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for text in listen.get_ref() {
            match text.get_ref().parse::<SocketAddr>() {
                Ok(address) if addresses.contains(&address) && address.port() != 0 => {
                    self.refuse(text.span(), format!("`{address}` is listed twice"), "");
                }
                Ok(address) => addresses.push(address),
                Err(_) => self.refuse(
                    text.span(),
                    format!("`{}` is not an address to listen on", shorten(text.get_ref())),
                    "write an IP address and a port: 0.0.0.0:80, [::]:80, 127.0.0.1:8080",
                ),
            }
        }
        Listen::Asked(addresses)
    }

    fn path(&mut self, key: &str, text: Option<Text>, default: &str) -> PathBuf {
        let Some(text) = text else { return default.into() };
        if !text.get_ref().starts_with('/') {
            self.refuse(text.span(), format!("`{key}` is not an absolute path"), "begin it with `/`");
        }
        text.into_inner().into()
    }

    fn workers(&mut self, number: Option<Number>) -> Workers {
        let count = number.map(|number| self.number("workers", Some(number), 1, 1..=1024));
        count.and_then(NonZeroUsize::new).map_or(Workers::PerCore, Workers::Count)
    }

    fn networks(&mut self, texts: Vec<Text>) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for text in texts {
            let word = text.get_ref().as_str();
            if word == "private" {
                networks.extend(PRIVATE.iter().filter_map(|network| network.parse::<IpNet>().ok()));
            } else if word == "cloudflare" {
                networks.extend(CLOUDFLARE.iter().filter_map(|network| network.parse::<IpNet>().ok()));
            } else if let Ok(network) = word.parse::<IpNet>() {
                networks.push(network.trunc());
            } else if let Ok(address) = word.parse::<std::net::IpAddr>() {
                networks.push(address.into());
            } else {
                let what = format!("`{}` is not a network", shorten(word));
                self.refuse(
                    text.span(),
                    what,
                    "write 10.0.0.0/8, 2001:db8::/32, a single address, private, or cloudflare",
                );
            }
        }
        networks
    }

    fn limits(&mut self, file: file::Limits) -> Limits {
        let default = Limits::default();
        Limits {
            connections: self.number("connections", file.connections, default.connections, 1..=1_000_000),
            connections_per_address: file
                .connections_per_address
                .map(|number| self.number("connections_per_address", Some(number), 1, 1..=1_000_000)),
            header_timeout: self.duration("header_timeout", file.header_timeout, default.header_timeout),
            idle_timeout: self.duration("idle_timeout", file.idle_timeout, default.idle_timeout),
            body_idle_timeout: self.duration("body_idle_timeout", file.body_idle_timeout, default.body_idle_timeout),
            connect_timeout: self.duration("connect_timeout", file.connect_timeout, default.connect_timeout),
            response_timeout: self.duration("response_timeout", file.response_timeout, default.response_timeout),
            // The server's buffer has 8 KiB at least; beyond 1 MiB a client could buy memory with one request.
            header_bytes: self.number("header_bytes", file.header_bytes, default.header_bytes, 8192..=1024 * 1024),
            header_fields: self.number("header_fields", file.header_fields, default.header_fields, 16..=4096),
            // The longest target that the HTTP library takes is 65,534 bytes.
            target_bytes: self.number("target_bytes", file.target_bytes, default.target_bytes, 256..=65_534),
            upstream_idle: self.duration("upstream_idle", file.upstream_idle, default.upstream_idle),
            upstream_idle_connections: self.number(
                "upstream_idle_connections",
                file.upstream_idle_connections,
                default.upstream_idle_connections,
                0..=65_535,
            ),
            shutdown_timeout: self.duration("shutdown_timeout", file.shutdown_timeout, default.shutdown_timeout),
        }
    }

    fn number(&mut self, key: &str, number: Option<Number>, default: usize, range: RangeInclusive<usize>) -> usize {
        let Some(number) = number else { return default };
        match usize::try_from(*number.get_ref()) {
            Ok(value) if range.contains(&value) => value,
            _ => {
                let what = format!("`{key}` is {}", number.get_ref());
                let hint = format!("it goes from {} to {}", range.start(), range.end());
                self.refuse(number.span(), what, &hint);
                default
            }
        }
    }

    fn duration(&mut self, key: &str, text: Option<Text>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        let hint = format!("write 200ms, 30s or 1m; the default is {}", duration::format(default));
        match duration::parse(text.get_ref()) {
            Ok(value) if value.is_zero() => {
                self.refuse(text.span(), format!("`{key}` is zero, so that nothing would ever be in time"), &hint);
            }
            Ok(value) if value > LONGEST => {
                self.refuse(text.span(), format!("`{key}` is longer than a day"), &hint);
            }
            Ok(value) => return value,
            Err(_) => {
                let what = format!("`{}` is not a duration", shorten(text.get_ref()));
                self.refuse(text.span(), what, &hint);
            }
        }
        default
    }

    fn log(&mut self, file: file::Log) -> Log {
        Log {
            level: self.choice(
                "level",
                file.level,
                &[
                    ("error", LogLevel::Error),
                    ("warn", LogLevel::Warn),
                    ("info", LogLevel::Info),
                    ("debug", LogLevel::Debug),
                    ("trace", LogLevel::Trace),
                ],
            ),
            format: self.choice("format", file.format, &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
            access: Access {
                format: self.choice(
                    "access",
                    file.access,
                    &[("off", AccessFormat::Off), ("combined", AccessFormat::Combined), ("json", AccessFormat::Json)],
                ),
                file: file.access_file.map(|text| self.path("access_file", Some(text), "")),
                redact: file.access_redact.into_iter().map(Text::into_inner).collect(),
                exclude: file.access_exclude.iter().filter_map(|text| self.word(text, "")).collect(),
                one_in: u32::try_from(self.number("access_one_in", file.access_one_in, 1, 1..=1_000_000)).unwrap_or(1),
            },
        }
    }

    fn choice<T: Copy + Default>(&mut self, key: &str, text: Option<Text>, choices: &[(&str, T)]) -> T {
        let Some(text) = text else { return T::default() };
        if let Some((_, value)) = choices.iter().find(|(word, _)| word == text.get_ref()) {
            return *value;
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let what = format!("`{}` is no {key}", shorten(text.get_ref()));
        self.refuse(text.span(), what, &format!("one of {}", words.join(", ")));
        T::default()
    }

    fn services(&mut self, services: BTreeMap<Text, file::Service>) -> Vec<FileService> {
        // In the order of the file, so that "already taken" is said of the later of two.
        let mut services: Vec<_> = services.into_iter().collect();
        services.sort_by_key(|(name, _)| name.span().start);
        let mut routes = Routes::new();
        let mut valid: Vec<_> =
            services.into_iter().filter_map(|(name, service)| self.service(&name, service, &mut routes)).collect();
        valid.sort_by(|a, b| a.name.cmp(&b.name));
        valid
    }
}

/// A message shows the beginning of what was written, however long that is.
fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}
