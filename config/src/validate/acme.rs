//! Where certificates come from that nobody brings, and what of it stands with a service.

use std::path::Path;
use std::time::Duration;

use serde_spanned::Spanned;

use super::{Check, shorten};
use crate::acme::AcmeSettings;
use crate::duration;
use crate::error;
use crate::file::{self, Text};
use crate::options::ClientCa;

/// Browsers want a year of who is to be on their own lists; ten years are a slip of the pen.
const LONGEST_HSTS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

impl Check<'_> {
    pub(super) fn acme(&mut self, file: file::Acme) -> AcmeSettings {
        let spans = [
            ("staging", file.staging.as_ref().map(Spanned::span)),
            ("eab_key_id", file.eab_key_id.as_ref().map(Text::span)),
            ("eab_hmac", file.eab_hmac.as_ref().map(Text::span)),
            ("eab_hmac_file", file.eab_hmac_file.as_ref().map(Text::span)),
            ("challenges", file.challenges.as_ref().map(Spanned::span)),
            ("dns_hook", file.dns_hook.as_ref().map(Spanned::span)),
            ("on_demand_per_hour", file.on_demand_per_hour.as_ref().map(Spanned::span)),
        ];
        let challenges = file.challenges.map(|list| {
            let texts = list.get_ref().iter();
            texts.filter_map(|text| self.word(text, "challenges = [\"http-01\", \"tls-alpn-01\"]")).collect()
        });
        let before = self.problems.len();
        let settings = AcmeSettings {
            email: file.email.and_then(|text| self.word(&text, "email = \"you@example.com\"")),
            directory: file.directory.and_then(|text| self.word(&text, "leave it out for Let's Encrypt")),
            staging: file.staging.map(Spanned::into_inner),
            eab_key_id: file.eab_key_id.map(Text::into_inner),
            eab_hmac: file.eab_hmac.and_then(|text| self.word(&text, "the authority's account page shows it")),
            eab_hmac_file: file.eab_hmac_file.map(|text| self.path("eab_hmac_file", Some(text), "")),
            ca: file.ca.map(|text| self.path("ca", Some(text), "")),
            dns_hook: file.dns_hook.map(|list| list.into_inner().into_iter().map(Text::into_inner).collect()),
            challenges,
            redirect: file.redirect,
            on_demand: file
                .on_demand
                .and_then(|text| self.word(&text, "on_demand = \"http://127.0.0.1:8000/may-have-https\"")),
            on_demand_per_hour: file.on_demand_per_hour.map(Spanned::into_inner),
        };
        // A key that was refused is not missing.
        if self.problems.len() == before
            && let Some(wrong) = settings.contradiction()
        {
            let span = spans.into_iter().find(|(key, _)| *key == wrong.key).and_then(|(_, span)| span);
            self.refuse(span.unwrap_or(0..0), wrong.what, wrong.hint);
        }
        settings
    }

    pub(super) fn hsts(&mut self, text: &Text) -> Option<Duration> {
        match duration::parse(text.get_ref()) {
            Ok(time) if !time.is_zero() && time <= LONGEST_HSTS => Some(time),
            _ => {
                let what = format!("`{}` is no time to remember", shorten(text.get_ref()));
                self.refuse(
                    text.span(),
                    what,
                    "write 180d or 365d; leave it out where browsers are to be told nothing",
                );
                None
            }
        }
    }

    pub(super) fn hsts_subdomains(&mut self, hsts: Option<&Text>, subdomains: Option<&Spanned<bool>>) -> bool {
        let Some(subdomains) = subdomains else { return false };
        if *subdomains.get_ref() && hsts.is_none() {
            self.refuse(subdomains.span(), "`hsts_subdomains` has nothing to remember", "add hsts = \"180d\"");
        }
        *subdomains.get_ref()
    }

    /// Returns the text of the file, which goes where the options go.
    pub(super) fn client_ca(&mut self, file: &Text) -> Option<ClientCa> {
        let path = self.source.beside(Path::new(file.get_ref()));
        let hint = "name a file of certificates in PEM; a relative path begins in this file's folder";
        let text = match error::read(&path) {
            Ok(text) => text,
            Err(error) => {
                self.refuse(file.span(), format!("`{}` can't be read: {error}", shorten(file.get_ref())), hint);
                return None;
            }
        };
        self.files.push((path, error::fingerprint(&text)));
        let read = ClientCa::try_from(text);
        read.map_err(|error| self.refuse(file.span(), format!("`{}`: {error}", shorten(file.get_ref())), hint)).ok()
    }
}
