//! One service of the file: its routes, its endpoints, its probe.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_spanned::Spanned;

use super::{Check, Routes, shorten};
use crate::acme::TlsMode;
use crate::admin::request::ServiceSettings;
use crate::file::{self, Text};
use crate::health::HealthCheck;
use crate::model::FileService;
use crate::name::{PathPrefix, parse_host};

/// How a service is reached, as a file says it.
#[derive(Clone, Copy)]
pub(super) struct Reached<'f> {
    pub(super) domains: &'f [Text],
    pub(super) paths: &'f [Text],
    pub(super) strip_path: Option<&'f Spanned<bool>>,
    pub(super) tls: Option<&'f Text>,
}

impl Check<'_> {
    pub(super) fn service(&mut self, name: &Text, file: file::Service, routes: &mut Routes) -> Option<FileService> {
        let parsed_name = self.word(name, "it becomes a host name: `shop`, `web-2`");
        if file.endpoints.is_empty() {
            let what = format!("service `{}` has no endpoints", shorten(name.get_ref()));
            self.refuse(name.span(), what, "add where it listens: endpoints = [\"127.0.0.1:3000\"]");
        }
        let reached = Reached {
            domains: &file.domains,
            paths: &file.paths,
            strip_path: file.strip_path.as_ref(),
            tls: file.tls.as_ref(),
        };
        if let Some(tls) = file.tls.as_ref().filter(|tls| tls.get_ref() == "auto" && file.domains.is_empty()) {
            self.refuse(
                tls.span(),
                "`tls` has no domain to get a certificate for",
                "add domains = [\"shop.example.com\"]",
            );
        }
        let settings = self.settings(name, reached, Some(file.options), routes);
        let endpoints = file.endpoints.iter().filter_map(|text| self.word(text, "write host:port")).collect();
        let health = self.health(file.health);
        Some(FileService { name: parsed_name?, settings, endpoints, health })
    }

    /// How a service is reached and served, in either file.
    pub(super) fn settings(
        &mut self,
        name: &Text,
        reached: Reached<'_>,
        options: Option<file::Options>,
        routes: &mut Routes,
    ) -> ServiceSettings {
        let Reached { domains, paths, strip_path, tls } = reached;
        if let Some(strip) = strip_path.filter(|strip| *strip.get_ref() && paths.is_empty()) {
            self.refuse(strip.span(), "`strip_path` has no path to strip", "add paths = [\"/api\"]");
        }
        self.claim(name, domains, paths, routes);
        let canonical = options.as_ref().and_then(|options| options.canonical_host.as_ref());
        if let Some((span, Ok(host))) = canonical.map(|text| (text.span(), parse_host(text.get_ref()))) {
            self.canonical_is_own(&span, &host, domains);
        }
        ServiceSettings {
            domains: domains.iter().filter_map(|text| self.word(text, "")).collect(),
            paths: paths.iter().filter_map(|text| self.word(text, "")).collect(),
            no_route: None,
            tls: tls
                .map(|text| self.choice("tls", Some(text.clone()), &[("off", TlsMode::Off), ("auto", TlsMode::Auto)])),
            strip_path: strip_path.is_some_and(|strip| *strip.get_ref()),
            options: options.map(|options| self.options(options)),
        }
    }

    /// Enters a service's routes; one that another service has is a problem with both places.
    fn claim(&mut self, name: &Text, domains: &[Text], paths: &[Text], routes: &mut Routes) {
        let whole = |span: &Range<usize>| vec![(String::new(), span.clone())];
        let or_every = |texts: &[Text]| match texts {
            [] => whole(&name.span()),
            texts => texts.iter().map(|text| (text.get_ref().to_ascii_lowercase(), text.span())).collect(),
        };
        for (domain, domain_span) in or_every(domains) {
            for path in if paths.is_empty() { vec![None] } else { paths.iter().map(Some).collect() } {
                let prefix = match path.map(|text| text.get_ref().parse::<PathPrefix>()) {
                    None => PathPrefix::root(),
                    Some(Ok(prefix)) => prefix,
                    Some(Err(_)) => continue,
                };
                let span = if domains.is_empty() { path.map_or(name.span(), Text::span) } else { domain_span.clone() };
                let key = (domain.clone(), prefix.trimmed().to_owned());
                match routes.get(&key) {
                    Some((owner, other)) if owner != name.get_ref() => {
                        let shown = if domain.is_empty() { "every host" } else { domain.as_str() };
                        let what = format!("`{}` has the same route as `{owner}`: {shown}{prefix}", name.get_ref());
                        let problem = self
                            .source
                            .problem(span, what)
                            .hint("give one of them another domain or path")
                            .also(self.source, other.clone(), "first taken here");
                        self.problems.push(problem);
                    }
                    Some(_) => {}
                    None => {
                        routes.insert(key, (name.get_ref().clone(), span));
                    }
                }
            }
        }
    }

    fn health(&mut self, file: file::Health) -> HealthCheck {
        let default = HealthCheck::default();
        if let Some(path) = file.path.as_ref().filter(|path| !is_probe_path(path.get_ref())) {
            self.refuse(path.span(), "the probe's path can't be asked for", "begin it with `/`, without blanks");
        }
        self.probe_headers(&file.headers);
        let host = file.host.and_then(|text| self.probe_host(text));
        let port = file.port.map(|number| self.number("port", Some(number), 80, 1..=65_535));
        HealthCheck {
            enabled: file.enabled.unwrap_or(default.enabled),
            path: file.path.map_or(default.path, Text::into_inner),
            port: port.and_then(|port| port.try_into().ok()),
            host,
            headers: file.headers.into_iter().map(|(name, value)| (name.into_inner(), value.into_inner())).collect(),
            status: file.status.and_then(|text| self.word(&text, "")).unwrap_or(default.status),
            timeout: self.duration("timeout", file.timeout, default.timeout),
            interval: self.duration("interval", file.interval, default.interval),
            passes: u32::try_from(self.number("passes", file.passes, default.passes as usize, 1..=100)).unwrap_or(1),
        }
    }

    pub(super) fn probe_headers(&mut self, headers: &BTreeMap<Text, Text>) {
        for (name, value) in headers {
            let is_name = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.get_ref().is_empty() || !name.get_ref().bytes().all(is_name) {
                self.refuse(name.span(), format!("`{}` is no header name", shorten(name.get_ref())), "");
            }
            if value.get_ref().bytes().any(|b| b.is_ascii_control() && b != b'\t') {
                self.refuse(value.span(), "a header value holds a control character", "");
            }
        }
    }

    pub(super) fn probe_host(&mut self, text: Text) -> Option<String> {
        if text.get_ref().is_empty() || !text.get_ref().bytes().all(|b| b.is_ascii_graphic()) {
            self.refuse(text.span(), "the probe's host can't stand in a header", "");
        }
        Some(text.into_inner())
    }
}

pub(super) fn is_probe_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}
