//! A certificate with its chain and key, read from PEM files and checked as far as that goes without a client.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

/// A certificate that can be served.
#[derive(Clone)]
pub struct Certificate {
    /// The hosts that it is for, in lower case: exact names, `*.` wildcards and addresses.
    pub names: Vec<String>,
    /// When it begins to be good.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
    /// The chain and the key, as a handshake takes them.
    pub certified: Arc<CertifiedKey>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).field("not_after", &self.not_after).finish()
    }
}

/// The same certificate has the same key: it was checked that both belong together.
impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }
}

impl Eq for Certificate {}

/// Why a certificate and its key can't be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The first file has no certificate.
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    /// A certificate of it can't be read.
    #[error("its certificate {number} can't be read")]
    Malformed {
        /// Which, from 1.
        number: usize,
    },
    /// The second file has no key that is not encrypted.
    #[error("it holds no private key in PEM that can be read without a password")]
    NoKey,
    /// The key is of no kind that TLS has.
    #[error("its key is of a kind that is not served: {0}")]
    Key(String),
    /// The key is that of a later certificate of the file.
    #[error(
        "the key is that of certificate {number}: the host's own certificate has to be the first, its issuers behind it"
    )]
    WrongOrder {
        /// Which, from 1.
        number: usize,
    },
    /// The key belongs to something else.
    #[error("the key is not that of the certificate")]
    Mismatch,
}

impl CertificateError {
    /// Tells whether the file of the key is at fault.
    pub fn is_of_key(&self) -> bool {
        match self {
            Self::NoKey | Self::Key(_) | Self::Mismatch => true,
            Self::NoCertificate | Self::Malformed { .. } | Self::WrongOrder { .. } => false,
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoCertificate | Self::Malformed { .. } => "name the full chain in PEM, as in fullchain.pem",
            Self::NoKey => "name the key in PEM, as in privkey.pem; `openssl pkey -in KEY` takes a password off",
            Self::Key(_) => "make an ECDSA key on P-256 or P-384, an RSA key of 2048 bits or more, or Ed25519",
            Self::WrongOrder { .. } => "put the certificates into the order host, issuer, its issuer",
            Self::Mismatch => "name the key that the certificate was made with; after a renewal both files are new",
        }
    }
}

impl Certificate {
    /// Reads a certificate and its chain from one text, and its key from another.
    ///
    /// # Errors
    /// Where they can't be served.
    pub fn read(chain: &str, key: &str) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .enumerate()
            .map(|(at, der)| der.map_err(|_| CertificateError::Malformed { number: at + 1 }))
            .collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| match error {
            PemError::NoItemsFound => CertificateError::NoKey,
            error => CertificateError::Key(error.to_string()),
        })?;
        let key = any_supported_type(&key).map_err(|error| CertificateError::Key(error.to_string()))?;
        for (at, der) in chain.iter().enumerate() {
            parse(der).ok_or(CertificateError::Malformed { number: at + 1 })?;
        }
        let leaf = chain.first().and_then(parse).ok_or(CertificateError::NoCertificate)?;
        let (names, not_before, not_after) =
            (names(&leaf), time(leaf.validity().not_before), time(leaf.validity().not_after));
        let public = key.public_key().map(|key| key.to_vec());
        let has_key =
            |der: &CertificateDer<'_>| parse(der).is_some_and(|it| Some(it.public_key().raw) == public.as_deref());
        match chain.iter().position(has_key) {
            Some(0) => {}
            Some(at) => return Err(CertificateError::WrongOrder { number: at + 1 }),
            None => return Err(CertificateError::Mismatch),
        }
        Ok(Self { names, not_before, not_after, certified: Arc::new(CertifiedKey::new(chain, key)) })
    }

    /// Returns what clients will take amiss, though it can be served.
    pub fn complaints(&self, now: SystemTime) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.names.is_empty() {
            complaints.push("it names no host, so no browser takes it".to_owned());
        }
        if now < self.not_before {
            complaints.push(format!("it is good only from {}", humantime::format_rfc3339_seconds(self.not_before)));
        }
        if now > self.not_after {
            complaints.push(format!("it expired at {}", humantime::format_rfc3339_seconds(self.not_after)));
        }
        let chain: Vec<_> = self.certified.cert.iter().filter_map(parse).collect();
        let unfit = chain.windows(2).position(|pair| pair[0].issuer().as_raw() != pair[1].subject().as_raw());
        if let Some(at) = unfit {
            complaints.push(format!("its certificate {} was not issued by certificate {}", at + 1, at + 2));
        }
        complaints
    }

    /// Returns SHA-256 of the chain in hex: two of one fingerprint are the same certificate behind the same issuers.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        self.certified.cert.iter().for_each(|der| hash.update(der));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns its first name, as it is called in messages.
    pub fn title(&self) -> &str {
        self.names.first().map_or("a certificate without names", String::as_str)
    }
}

/// Returns what believes the certificates that these authorities issued.
///
/// # Errors
/// Where the text has none, or one of them is no authority's.
pub fn authorities(text: &str) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for (at, der) in CertificateDer::pem_slice_iter(text.as_bytes()).enumerate() {
        let malformed = CertificateError::Malformed { number: at + 1 };
        roots.add(der.map_err(|_| malformed.clone())?).map_err(|_| malformed)?;
    }
    if roots.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(roots) }
}

fn parse<'d>(der: &'d CertificateDer<'_>) -> Option<X509Certificate<'d>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(|ip| ip.to_string())
            }
            _ => None,
        })
        .collect()
}

/// A time before 1970 is as good as 1970, and one that no clock reaches as good as the last that can be written.
fn time(time: ASN1Time) -> SystemTime {
    /// 9999-12-31T23:59:59Z (RFC 5280 section 4.1.2.5: it has no end).
    const LAST: u64 = 253_402_300_799;
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0).min(LAST);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    struct Made {
        cert: String,
        key: String,
    }

    /// A certificate of an authority of its own, whose certificate comes second.
    fn made(names: &[&str]) -> (Made, String) {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let cert = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        (Made { cert: cert.pem(), key: key.serialize_pem() }, authority.pem())
    }

    #[test]
    fn a_chain_and_its_key_are_taken_with_the_names_in_lower_case() {
        let (made, issuer) = made(&["Shop.example.com", "*.shop.example.com", "192.0.2.7"]);
        let alone = Certificate::read(&made.cert, &made.key).unwrap();
        let read = Certificate::read(&(made.cert + &issuer), &made.key).unwrap();
        assert_ne!(read.fingerprint(), alone.fingerprint());
        assert_eq!(read.names, ["shop.example.com", "*.shop.example.com", "192.0.2.7"]);
        assert_eq!(read.certified.cert.len(), 2);
        assert_eq!(read.complaints(SystemTime::now()), [""; 0]);
        assert!(!format!("{read:?}").contains("key"));
        assert_eq!(read.fingerprint().len(), 64);
    }

    #[test]
    fn what_can_not_be_served_is_refused_with_its_reason() {
        let ((one, issuer), (two, _)) = (made(&["one.test"]), made(&["two.test"]));
        let refused = |cert: &str, key: &str| Certificate::read(cert, key).unwrap_err();
        assert_eq!(refused(&one.cert, &two.key), CertificateError::Mismatch);
        assert_eq!(refused(&(issuer + &one.cert), &one.key), CertificateError::WrongOrder { number: 2 });
        assert_eq!(refused(&one.key, &one.key), CertificateError::NoCertificate);
        assert_eq!(refused(&one.cert, &one.cert), CertificateError::NoKey);
        assert_eq!(refused(&one.cert, ""), CertificateError::NoKey);
        let encrypted = one.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert_eq!(refused(&one.cert, &encrypted), CertificateError::NoKey);
        let cut = one.cert.replacen("MII", "AAA", 1);
        assert_eq!(refused(&cut, &one.key), CertificateError::Malformed { number: 1 });
    }

    #[test]
    fn what_clients_take_amiss_is_told_and_served_all_the_same() {
        let (one, _) = made(&["one.test"]);
        let read = Certificate::read(&one.cert, &one.key).unwrap();
        let at = |time: SystemTime| read.complaints(time).join(" ");
        assert!(at(read.not_after + Duration::from_secs(1)).contains("it expired at "));
        assert!(at(read.not_before - Duration::from_secs(1)).contains("it is good only from "));
        let (nameless, _) = made(&[]);
        let nameless = Certificate::read(&nameless.cert, &nameless.key).unwrap();
        assert_eq!(nameless.complaints(SystemTime::now()), ["it names no host, so no browser takes it"]);
        let (two, _) = made(&["two.test"]);
        let mixed = Certificate::read(&(one.cert + &two.cert), &one.key).unwrap();
        assert_eq!(mixed.complaints(SystemTime::now()), ["its certificate 1 was not issued by certificate 2"]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(at in 0..600usize, noise: Vec<u8>) {
            let (made, _) = made(&["a.test"]);
            let at = at.min(made.cert.len());
            let noise = String::from_utf8_lossy(&noise).into_owned();
            let text = format!("{}{noise}{}", &made.cert[..at], &made.cert[at..]);
            drop(Certificate::read(&text, &made.key));
            drop(Certificate::read(&made.cert, &text));
        }
    }
}
