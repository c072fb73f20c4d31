//! What services want of https: which certificates, what has come of them, and whose certificates their clients show.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::admin::Event;
use config::name::HostPattern;

use super::Control;
use super::secured::{Secured, domains, is_auto};
use crate::tls::Guarded;

impl Control {
    /// Returns the domains that certificates are wanted for.
    pub(crate) fn wants_certificates(&self) -> BTreeSet<String> {
        let wanting = self.services.values().filter(|service| is_auto(service.routed, &service.settings));
        wanting.flat_map(|service| domains(&service.settings)).collect()
    }

    /// Tells whether a host that no service names is taken by one whose certificates come by themselves.
    pub(crate) fn takes_unnamed(&self, host: &str) -> bool {
        let routed = self.services.values().filter(|service| service.routed && service.settings.is_routed());
        let taken = routed.flat_map(|service| {
            let any = [HostPattern::Any];
            let domains = &service.settings.domains;
            let patterns = if domains.is_empty() { any.to_vec() } else { domains.clone() };
            let is_auto = is_auto(service.routed, &service.settings);
            patterns.into_iter().filter_map(move |pattern| Some((closeness(&pattern, host)?, is_auto)))
        });
        // Several services may share a host by their paths.
        taken.max().is_some_and(|(closeness, is_auto)| closeness < usize::MAX && is_auto)
    }

    /// Notes what is known of certificates, and lets requests see it.
    pub(crate) fn secure(&mut self, secured: Secured) {
        if *self.secured == secured {
            return;
        }
        self.secured = Arc::new(secured);
        for service in self.services.values_mut() {
            service.secured = Arc::clone(&self.secured);
            let options = service.settings.options.as_ref();
            if service.settings.is_tls_auto() || options.is_some_and(|options| options.https_redirect.is_some()) {
                service.compile();
            }
        }
        self.publish();
    }

    /// Tells that a certificate came, or why it did not.
    pub(crate) fn tell_certificate(&mut self, domain: &str, not_after: Option<String>, problem: Option<String>) {
        self.news.push(Event::Certificate { domain: domain.to_owned(), not_after, problem });
    }

    /// Lets TLS ask clients of the hosts for certificates whose services want them. The table comes first: until the handshakes
    /// follow, its requests are refused.
    pub(super) fn guard(&self) {
        let Some(shared) = &self.shared else { return };
        let guarding = self.services.values().filter(|service| service.routed && service.settings.is_routed());
        let guarded =
            guarding.filter_map(|service| Some((service, service.compiled.secure.as_ref()?.client_ca.clone()?)));
        let hosts = guarded.flat_map(|(service, authorities)| {
            let any = [HostPattern::Any];
            let domains = &service.settings.domains;
            let hosts = if domains.is_empty() { any.to_vec() } else { domains.clone() };
            hosts.into_iter().map(move |host| Guarded { host, authorities: Arc::clone(&authorities) })
        });
        let hosts: Vec<Guarded> = hosts.collect();
        if *self.guarded.borrow() == hosts {
            return;
        }
        match shared.tls.guard(&hosts) {
            Ok(()) => drop(self.guarded.replace(hosts)),
            // It was read where it came from, in a file or a call.
            Err(error) => tracing::error!(error, "the authority of clients can't be used; their requests are refused"),
        }
    }
}

/// Returns how close a pattern is to a host, which is as the table looks for it: exact, then the longest wildcard, then any.
fn closeness(pattern: &HostPattern, host: &str) -> Option<usize> {
    match pattern {
        HostPattern::Exact(name) => (name == host).then_some(usize::MAX),
        HostPattern::Wildcard(parent) => host.strip_suffix(parent.as_str())?.ends_with('.').then_some(parent.len()),
        HostPattern::Any => Some(0),
    }
}
