//! The options of one service of the file.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use super::{Check, shorten};
use crate::error;
use crate::file::{self, Number, Text};
use crate::options::{Protocol, ServiceOptions, StatusPattern};
use crate::size;

impl Check<'_> {
    pub(super) fn options(&mut self, mut file: file::Options) -> ServiceOptions {
        let default = ServiceOptions::default();
        if let Some(burst) = file.burst.as_ref().filter(|_| file.requests_per_second.is_none()) {
            self.refuse(burst.span(), "`burst` has no rate that it could exceed", "add requests_per_second = 10");
        }
        let edge = self.edge(default.clone(), &mut file);
        ServiceOptions {
            protocol: self.choice("protocol", file.protocol, &[("http1", Protocol::Http1), ("h2c", Protocol::H2c)]),
            connect_timeout: self.timeout("connect_timeout", file.connect_timeout),
            response_timeout: self.timeout("response_timeout", file.response_timeout),
            body_idle_timeout: self.timeout("body_idle_timeout", file.body_idle_timeout),
            request_bytes: file.request_bytes.and_then(|text| self.size(&text)),
            buffer_requests: file.buffer_requests.unwrap_or(default.buffer_requests),
            sticky: file.sticky.unwrap_or(default.sticky),
            requests_per_second: self.rate("requests_per_second", file.requests_per_second),
            burst: self.rate("burst", file.burst),
            access_log: file.access_log.unwrap_or(default.access_log),
            https_redirect: file.https_redirect,
            hsts_subdomains: self.hsts_subdomains(file.hsts.as_ref(), file.hsts_subdomains.as_ref()),
            hsts: file.hsts.and_then(|text| self.hsts(&text)),
            client_ca: file.client_ca.and_then(|text| self.client_ca(&text)),
            error_pages: self.error_pages(file.error_pages),
            ..edge
        }
    }

    fn timeout(&mut self, key: &str, text: Option<Text>) -> Option<Duration> {
        text.map(|text| self.duration(key, Some(text), Duration::from_secs(60)))
    }

    fn size(&mut self, text: &Text) -> Option<u64> {
        size::parse(text.get_ref())
            .map_err(|error| self.refuse(text.span(), error, "leave it out where there is no limit"))
            .ok()
    }

    pub(super) fn rate(&mut self, key: &str, number: Option<Number>) -> Option<NonZeroU32> {
        let number = self.number(key, Some(number?), 1, 1..=1_000_000);
        u32::try_from(number).ok().and_then(NonZeroU32::new)
    }

    fn error_pages(&mut self, files: BTreeMap<Text, Text>) -> BTreeMap<StatusPattern, String> {
        let mut pages = BTreeMap::new();
        for (status, file) in files {
            let status = self.word::<StatusPattern>(&status, "");
            let path = self.source.beside(Path::new(file.get_ref()));
            match error::read(&path) {
                Ok(page) => {
                    self.files.push((path, error::fingerprint(&page)));
                    pages.extend(status.map(|status| (status, page)));
                }
                Err(error) => {
                    let what = format!("`{}` can't be read: {error}", shorten(file.get_ref()));
                    self.refuse(file.span(), what, "name a file of HTML; a relative path begins in this file's folder");
                }
            }
        }
        pages
    }
}
