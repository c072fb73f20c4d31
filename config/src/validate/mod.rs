//! From the file to the model: every problem is collected, not the first alone.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Problem, Source};
use crate::file::{self, File, Number, Text};
use crate::model::{FileService, Limits, Listen, LogFormat, LogLevel, Model, Workers};
use crate::network::Network;
use crate::settings::{AccessFormat, CONNECTIONS, LONGEST, LimitSettings, LogSettings, ONE_IN, ProxySettings};
use crate::webhook::WebhookSettings;
use crate::{duration, paths};

mod acme;
mod certificate;
mod edge;
mod options;
mod project;
mod service;
mod together;

pub use self::project::{Judge, Look, project};

/// Returns the model that a file means.
///
/// # Errors
/// Every problem of the file, in its order.
pub fn validate(file: File, source: &Source) -> Result<Model, Vec<Problem>> {
    let mut check = Check { source, problems: Vec::new(), complaints: Vec::new(), files: Vec::new() };
    let hot = Hot {
        trusted_proxies: file.trusted_proxies,
        proxy_protocol: file.proxy_protocol,
        webhook: file.webhook,
        acme: file.acme,
    };
    let (limits, level, format) = (check.restart_limits(&file.limits), file.log.level.clone(), file.log.format.clone());
    let mut model = Model {
        listen: check.listen("listen", file.listen, 80),
        listen_tls: check.listen("listen_tls", file.listen_tls, 443),
        certificates: check.certificates(&file.certificates),
        admin: check.path("admin", file.admin, paths::ADMIN_SOCKET),
        state: check.path("state", file.state, paths::STATE_DIR),
        workers: check.workers(file.workers),
        metrics: file.metrics.and_then(|text| check.word(&text, "write an IP address and a port: 127.0.0.1:9100")),
        settings: check.proxy_settings(hot, file.limits, file.log),
        limits,
        services: check.services(file.services),
        ..Model::default()
    };
    model.log.level = check.choice(
        "level",
        level,
        &[
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ],
    );
    model.log.format = check.choice("format", format, &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let mut model = model.with(&ProxySettings::default());
    model.files = std::mem::take(&mut check.files);
    model.complaints = std::mem::take(&mut check.complaints);
    check.end(model)
}

/// What of the top level changes while the proxy runs.
struct Hot {
    trusted_proxies: Option<Vec<Text>>,
    proxy_protocol: Option<Vec<Text>>,
    webhook: file::Webhook,
    acme: file::Acme,
}

/// A route of the file, as the second service that claims it sees it: domain and path as text.
type Routes = BTreeMap<(String, String), (String, Range<usize>)>;

struct Check<'a> {
    source: &'a Source,
    problems: Vec<Problem>,
    /// What is no reason to refuse the file.
    complaints: Vec<Problem>,
    /// What was read besides, with its content.
    files: Vec<(PathBuf, u64)>,
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

    fn listen(&mut self, key: &str, listen: Option<serde_spanned::Spanned<Vec<Text>>>, port: u16) -> Listen {
        let Some(listen) = listen else { return Listen::Default };
        if listen.get_ref().is_empty() {
            let hint = format!("leave it out for port {port} of every address");
            self.refuse(listen.span(), format!("`{key}` names no address"), &hint);
        }
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for text in listen.get_ref() {
            match text.get_ref().parse::<SocketAddr>() {
                Ok(address) if addresses.contains(&address) && address.port() != 0 => {
                    self.refuse(text.span(), format!("`{address}` is listed twice"), "");
                }
                Ok(address) => addresses.push(address),
                Err(_) => {
                    let what = format!("`{}` is not an address to listen on", shorten(text.get_ref()));
                    let hint =
                        format!("write an IP address and a port: 0.0.0.0:{port}, [::]:{port}, 127.0.0.1:8{port:0>3}");
                    self.refuse(text.span(), what, &hint);
                }
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

    /// What changes while the proxy runs, in either file.
    fn proxy_settings(&mut self, hot: Hot, limits: file::Limits, log: file::Log) -> ProxySettings {
        ProxySettings {
            trusted_proxies: hot.trusted_proxies.map(|texts| self.networks(&texts)),
            proxy_protocol: hot.proxy_protocol.map(|texts| self.networks(&texts)),
            limits: self.limits(limits),
            log: self.access_log(log),
            webhook: self.webhook(hot.webhook),
            acme: self.acme(hot.acme),
        }
    }

    fn webhook(&mut self, file: file::Webhook) -> WebhookSettings {
        if let (None, Some(without)) = (&file.url, file.secret.as_ref().or(file.ca.as_ref())) {
            // Not what it is: it may be the secret.
            self.refuse(without.span(), "nobody is told by this webhook", "add url = \"https://...\" beside it");
        }
        WebhookSettings {
            url: file.url.and_then(|text| self.word(&text, "write https://hooks.example.com/bluegreen")),
            secret: file.secret.and_then(|text| self.word(&text, "leave it out where nothing is to be signed")),
            ca: file.ca.map(|text| self.path("ca", Some(text), "")),
        }
    }

    fn networks(&mut self, texts: &[Text]) -> Vec<Network> {
        let hint = "write 10.0.0.0/8, 2001:db8::/32, a single address, private, or cloudflare";
        texts.iter().filter_map(|text| self.word(text, hint)).collect()
    }

    fn limits(&mut self, file: file::Limits) -> LimitSettings {
        let default = Limits::default();
        let mut time =
            |key: &str, text: Option<Text>, default| text.map(|text| self.duration(key, Some(text), default));
        let header_timeout = time("header_timeout", file.header_timeout, default.header_timeout);
        let idle_timeout = time("idle_timeout", file.idle_timeout, default.idle_timeout);
        let body_idle_timeout = time("body_idle_timeout", file.body_idle_timeout, default.body_idle_timeout);
        let connect_timeout = time("connect_timeout", file.connect_timeout, default.connect_timeout);
        let response_timeout = time("response_timeout", file.response_timeout, default.response_timeout);
        let shutdown_timeout = time("shutdown_timeout", file.shutdown_timeout, default.shutdown_timeout);
        let mut count =
            |key: &str, number: Option<Number>| number.map(|number| self.number(key, Some(number), 1, CONNECTIONS));
        LimitSettings {
            connections: count("connections", file.connections),
            connections_per_address: count("connections_per_address", file.connections_per_address),
            header_timeout,
            idle_timeout,
            body_idle_timeout,
            connect_timeout,
            response_timeout,
            shutdown_timeout,
        }
    }

    /// The limits that are given to each worker's parser and pool when it starts.
    fn restart_limits(&mut self, file: &file::Limits) -> Limits {
        let default = Limits::default();
        let (fields, idle) = (file.header_fields.clone(), file.upstream_idle.clone());
        Limits {
            // The server's buffer has 8 KiB at least; beyond 1 MiB a client could buy memory with one request.
            header_bytes: self.number(
                "header_bytes",
                file.header_bytes.clone(),
                default.header_bytes,
                8192..=1024 * 1024,
            ),
            header_fields: self.number("header_fields", fields, default.header_fields, 16..=4096),
            // The longest target that the HTTP library takes is 65,534 bytes.
            target_bytes: self.number("target_bytes", file.target_bytes.clone(), default.target_bytes, 256..=65_534),
            upstream_idle: self.duration("upstream_idle", idle, default.upstream_idle),
            upstream_idle_connections: self.number(
                "upstream_idle_connections",
                file.upstream_idle_connections.clone(),
                default.upstream_idle_connections,
                0..=65_535,
            ),
            ..default
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

    fn access_log(&mut self, file: file::Log) -> LogSettings {
        let formats = [("off", AccessFormat::Off), ("combined", AccessFormat::Combined), ("json", AccessFormat::Json)];
        let texts = |texts: Vec<Text>| texts.into_iter().map(Text::into_inner).collect();
        let one_in = file.access_one_in.map(|number| self.number("access_one_in", Some(number), 1, ONE_IN));
        LogSettings {
            access: file.access.map(|text| self.choice("access", Some(text), &formats)),
            access_file: file.access_file.map(|text| self.path("access_file", Some(text), "")),
            access_redact: file.access_redact.map(texts),
            access_exclude: file
                .access_exclude
                .map(|texts| texts.iter().filter_map(|text| self.word(text, "")).collect()),
            access_one_in: one_in.and_then(|number| number.try_into().ok()),
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
