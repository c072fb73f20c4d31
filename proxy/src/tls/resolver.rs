//! Which certificate a client is shown: that of the host that it names, of a kind that it can check.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use config::certificate::Certificate;
use rustc_hash::FxHashMap;
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificates in force; a change of them is one swap.
pub(crate) struct Resolver(ArcSwap<Names>);

/// Certificates by the names that they are for, the preferred first. Never changed once it is made.
#[derive(Default)]
struct Names {
    /// A wildcard is listed with its star.
    by_name: FxHashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For clients that name no host, or one that nothing is for: all of the first certificate's names.
    first: Vec<Arc<CertifiedKey>>,
}

impl Resolver {
    pub(super) fn new(certificates: &[Certificate]) -> Self {
        Self(ArcSwap::from_pointee(Names::of(certificates)))
    }

    /// Tells whether there is one for a host, in lower case.
    pub(super) fn has(&self, host: &str) -> bool {
        self.0.load().of_host(host).is_some()
    }

    pub(super) fn show(&self, certificates: &[Certificate]) {
        self.0.store(Arc::new(Names::of(certificates)));
    }
}

impl Names {
    fn of(certificates: &[Certificate]) -> Self {
        let mut names = Self::default();
        for Certificate { names: hosts, certified, .. } in certificates {
            for host in hosts {
                names.by_name.entry(host.clone()).or_default().push(Arc::clone(certified));
            }
        }
        if let Some(first) = certificates.first() {
            names.first = match first.names.first() {
                Some(name) => names.by_name.get(name).cloned().unwrap_or_default(),
                None => vec![Arc::clone(&first.certified)],
            };
        }
        // An ECDSA signature costs a tenth of an RSA one; who can't check it is shown the other.
        for kinds in names.by_name.values_mut().chain([&mut names.first]) {
            kinds.sort_by_key(|certified| is_rsa(certified));
        }
        names
    }

    fn of_host(&self, host: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let wildcard = || host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        self.by_name.get(host).or_else(|| self.by_name.get(&wildcard()?))
    }

    fn find(&self, host: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let host = host.map(str::to_ascii_lowercase);
        let kinds = host.as_ref().and_then(|host| self.of_host(host)).unwrap_or(&self.first);
        let fits = |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(schemes).is_some();
        kinds.iter().find(fits).or(kinds.first()).cloned()
    }
}

fn is_rsa(certified: &CertifiedKey) -> bool {
    certified.key.algorithm() == rustls::SignatureAlgorithm::RSA
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().find(hello.server_name(), hello.signature_schemes())
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.load().by_name.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str], kind: &'static rcgen::SignatureAlgorithm) -> Certificate {
        let key = rcgen::KeyPair::generate_for(kind).unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let cert = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Certificate::read(&cert.pem(), &key.serialize_pem()).unwrap()
    }

    #[test]
    fn a_client_is_shown_what_is_for_its_host_and_what_it_can_check() {
        use rcgen::{PKCS_ECDSA_P256_SHA256 as P256, PKCS_ED25519 as ED25519};
        use rustls::SignatureScheme as Scheme;
        let certificates = [
            made(&["a.test", "www.a.test"], &ED25519),
            made(&["*.b.test"], &P256),
            made(&["x.b.test"], &P256),
            made(&["a.test"], &P256),
        ];
        let resolver = Resolver::new(&certificates);
        let all = [Scheme::ED25519, Scheme::ECDSA_NISTP256_SHA256];
        let found = |host: Option<&str>, schemes: &[Scheme]| {
            let found = resolver.0.load().find(host, schemes).unwrap();
            certificates.iter().position(|one| Arc::ptr_eq(&one.certified, &found)).unwrap()
        };
        assert_eq!(found(Some("a.test"), &all), 0);
        assert_eq!(found(Some("A.TEST"), &all[1..]), 3);
        assert_eq!(found(Some("www.a.test"), &all), 0);
        assert_eq!(found(Some("y.b.test"), &all), 1);
        assert_eq!(found(Some("x.b.test"), &all), 2);
        // One level alone, and nobody's name is the first one's visitor.
        for host in [Some("z.y.b.test"), Some("b.test"), Some("other"), None] {
            assert_eq!(found(host, &all), 0, "{host:?}");
        }
        assert_eq!(found(None, &all[1..]), 3);
        resolver.show(&certificates[1..]);
        assert_eq!(found(None, &all), 1);
        resolver.show(&[]);
        assert!(resolver.0.load().find(Some("a.test"), &all).is_none());
    }
}
