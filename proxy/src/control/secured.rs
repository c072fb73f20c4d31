//! What is known of certificates, and what https is to a service by it.

use std::collections::{BTreeMap, BTreeSet};

use config::admin::request::ServiceSettings;
use config::admin::response::DomainTls;
use config::name::HostPattern;
use http::HeaderValue;

use crate::routing::secure::{Secure, covers};

/// What is known of certificates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Secured {
    /// The names that a good certificate is shown for.
    pub(crate) names: BTreeSet<String>,
    /// Domains whose certificates come by themselves.
    pub(crate) domains: BTreeMap<String, DomainTls>,
    /// Visitors of such a domain are led to https, where its service says nothing else.
    pub(crate) redirect: bool,
    /// The port of TLS; `None`: nobody listens.
    pub(crate) port: Option<u16>,
}

impl Secured {
    /// Returns what https is to a service, as requests see it; `before` is what it was.
    pub(super) fn compile(
        &self,
        settings: &ServiceSettings,
        before: Option<&Secure>,
        health_path: Option<String>,
    ) -> Option<Secure> {
        let options = settings.options.as_ref();
        let is_led = match options.and_then(|options| options.https_redirect) {
            Some(wanted) => wanted,
            None => self.redirect && settings.is_tls_auto(),
        };
        let led: Vec<String> = match self.port.filter(|_| is_led) {
            None => Vec::new(),
            Some(_) => self.names.iter().filter(|name| is_for(settings, name)).cloned().collect(),
        };
        let hsts = options.and_then(|options| {
            let subdomains = if options.hsts_subdomains { "; includeSubDomains" } else { "" };
            HeaderValue::try_from(format!("max-age={}{subdomains}", options.hsts?.as_secs())).ok()
        });
        // Compiled anew it is the same authority, and connections that showed a certificate of it go on.
        let client_ca = options.and_then(|options| options.client_ca.as_ref()).map(|wanted| {
            let before = before.and_then(|secure| secure.client_ca.as_ref());
            before.filter(|before| ***before == *wanted.as_str()).cloned().unwrap_or_else(|| wanted.as_str().into())
        });
        if led.is_empty() && hsts.is_none() && client_ca.is_none() {
            return None;
        }
        // Its front door is for visitors.
        let health_path = health_path.filter(|path| path != "/");
        Some(Secure { led, port: self.port.unwrap_or(443), hsts, client_ca, health_path })
    }

    /// Returns what has come of a service's certificates.
    pub(super) fn status(&self, routed: bool, settings: &ServiceSettings) -> Vec<DomainTls> {
        if !is_auto(routed, settings) {
            return Vec::new();
        }
        let known = |domain: String| {
            let own = self.names.iter().any(|name| covers(name, &domain));
            let problem = (!own).then(|| "it was not asked for yet".to_owned());
            self.domains.get(&domain).cloned().unwrap_or(DomainTls { domain, problem, ..DomainTls::default() })
        };
        domains(settings).map(known).collect()
    }
}

/// Tells whether certificates for a service come by themselves now.
pub(super) fn is_auto(routed: bool, settings: &ServiceSettings) -> bool {
    routed && settings.is_routed() && settings.is_tls_auto()
}

/// Returns the domains of a service as certificates name them.
pub(super) fn domains(settings: &ServiceSettings) -> impl Iterator<Item = String> {
    settings.domains.iter().filter_map(|domain| match domain {
        HostPattern::Exact(host) => Some(host.clone()),
        HostPattern::Wildcard(host) => Some(format!("*.{host}")),
        HostPattern::Any => None,
    })
}

/// Tells whether a certificate's name is one of a service's hosts.
fn is_for(settings: &ServiceSettings, name: &str) -> bool {
    let is_it = |host: &HostPattern| match host {
        HostPattern::Exact(host) => covers(name, host),
        HostPattern::Wildcard(host) => name.split_once('.').is_some_and(|(_, parent)| {
            parent == host || parent.strip_suffix(host.as_str()).is_some_and(|rest| rest.ends_with('.'))
        }),
        HostPattern::Any => true,
    };
    settings.domains.is_empty() || settings.domains.iter().any(is_it)
}
