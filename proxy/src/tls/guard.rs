//! Hosts whose clients have to show a certificate: a handshake of its own for each authority that issues those.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use config::certificate;
use config::name::HostPattern;
use rustc_hash::FxHashMap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;

use super::PROTOCOLS;
use super::builder;
use super::resolver::Resolver;

/// A host, and whose certificates its clients show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guarded {
    /// The host.
    pub(crate) host: HostPattern,
    /// The authorities in PEM.
    pub(crate) authorities: Arc<str>,
}

/// What a connection's handshake was for.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    /// The host that the client named, in lower case; none where it named none.
    pub(crate) host: Option<String>,
    /// The authorities in PEM, one of which issued what it showed.
    pub(crate) authorities: Arc<str>,
}

/// The handshakes in force.
#[derive(Default)]
pub(super) struct Guards(ArcSwapOption<Hosts>);

#[derive(Default)]
struct Hosts {
    exact: FxHashMap<String, Handshake>,
    wildcard: FxHashMap<String, Handshake>,
    any: Option<Handshake>,
}

#[derive(Clone)]
struct Handshake {
    authorities: Arc<str>,
    config: Arc<ServerConfig>,
}

impl Guards {
    /// Puts other hosts in the place of those before. Who has the same authorities as before keeps its sessions.
    pub(super) fn set(&self, wanted: &[Guarded], resolver: &Arc<Resolver>) -> Result<(), String> {
        let before = self.0.load_full();
        let mut made: Vec<Handshake> = before.iter().flat_map(|hosts| hosts.all()).cloned().collect();
        let mut hosts = Hosts::default();
        for Guarded { host, authorities } in wanted {
            let known = made.iter().find(|one| one.authorities == *authorities).cloned();
            let handshake = match known {
                Some(known) => known,
                None => {
                    let handshake = Handshake::new(authorities, resolver)?;
                    made.push(handshake.clone());
                    handshake
                }
            };
            // Of two services with one host and two authorities the first is heard; the other one's requests are refused.
            match host {
                HostPattern::Exact(name) => drop(hosts.exact.entry(name.clone()).or_insert(handshake)),
                HostPattern::Wildcard(name) => drop(hosts.wildcard.entry(name.clone()).or_insert(handshake)),
                HostPattern::Any => drop(hosts.any.get_or_insert(handshake)),
            }
        }
        self.0.store((!wanted.is_empty()).then(|| Arc::new(hosts)));
        Ok(())
    }

    /// Returns the handshake of the host that a client names, where that is one of these.
    pub(super) fn find(&self, host: Option<&str>) -> Option<(Arc<ServerConfig>, Guard)> {
        let hosts = self.0.load();
        let hosts = hosts.as_ref()?;
        let host = host.map(str::to_ascii_lowercase);
        let Handshake { authorities, config } = hosts.find(host.as_deref())?;
        Some((Arc::clone(config), Guard { host, authorities: Arc::clone(authorities) }))
    }
}

impl Hosts {
    fn all(&self) -> impl Iterator<Item = &Handshake> {
        self.exact.values().chain(self.wildcard.values()).chain(&self.any)
    }

    fn find(&self, host: Option<&str>) -> Option<&Handshake> {
        let mut rest = host.unwrap_or_default();
        if let Some(found) = self.exact.get(rest) {
            return Some(found);
        }
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(found) = self.wildcard.get(suffix) {
                return Some(found);
            }
            rest = suffix;
        }
        self.any.as_ref()
    }
}

impl Handshake {
    /// Its sessions are its own: one of another host's handshake, where nothing was shown, is taken up nowhere here.
    fn new(authorities: &Arc<str>, resolver: &Arc<Resolver>) -> Result<Self, String> {
        let roots = certificate::authorities(authorities).map_err(|error| error.to_string())?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|error| error.to_string())?;
        let builder = builder().map_err(|error| error.to_string())?;
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::clone(resolver) as Arc<_>);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
        Ok(Self { authorities: Arc::clone(authorities), config: Arc::new(config) })
    }
}
