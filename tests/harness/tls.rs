//! An authority of the test's own, the certificates that it gives out, and clients that trust it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, its issuer behind it.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// Makes an authority.
pub fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the authority of a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
}

impl Authority {
    /// Gives out a certificate for these names, with a new ECDSA key.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_until(names, 4096)
    }

    /// Gives out one that ends with the year before this one.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Issued {
        self.issue_for(&KeyPair::generate().unwrap(), names, year)
    }

    /// Gives out one that is good for so many days.
    ///
    /// # Panics
    /// Before 1970.
    pub fn issue_for_days(&self, names: &[&str], days: u32) -> Issued {
        let now = date_time_ymd(1970, 1, 1) + UNIX_EPOCH.elapsed().unwrap();
        let mut params = Self::params(names);
        (params.not_before, params.not_after) = (now - DAY, now + DAY * days);
        self.sign(&params, &KeyPair::generate().unwrap())
    }

    /// Gives out a certificate for a key of the caller's, in PKCS #8 and PEM.
    pub fn issue_for_key(&self, key: &str, names: &[&str]) -> Issued {
        self.issue_for(&KeyPair::from_pem(key).unwrap(), names, 4096)
    }

    fn issue_for(&self, key: &KeyPair, names: &[&str], year: i32) -> Issued {
        let mut params = Self::params(names);
        params.not_after = date_time_ymd(year, 1, 1);
        self.sign(&params, key)
    }

    fn params(names: &[&str]) -> CertificateParams {
        CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Issued {
        let cert = params.signed_by(key, &self.0).unwrap();
        Issued { cert: cert.pem() + &self.0.pem(), key: key.serialize_pem() }
    }

    /// Returns its own certificate in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Returns what a client needs that trusts it alone, and would speak these protocols.
    pub fn trusted(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        self.trusted_with(protocols, rustls::DEFAULT_VERSIONS)
    }

    /// As [`Authority::trusted`], for a client that knows these versions of TLS alone.
    pub fn trusted_with(
        &self,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Connects and shakes hands with whoever is at an address, as a client of that host.
///
/// # Errors
/// Those of connecting and of the handshake.
pub async fn connect_tls(
    address: SocketAddr,
    host: &str,
    trusted: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    shake_hands(socket, host, trusted).await
}

/// Shakes hands on a connection that is there.
///
/// # Errors
/// Those of the handshake.
pub async fn shake_hands(
    socket: TcpStream,
    host: &str,
    trusted: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let host = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    TlsConnector::from(Arc::clone(trusted)).connect(host, socket).await
}

/// Tells which version of TLS a connection has.
pub fn version(stream: &TlsStream<TcpStream>) -> Option<ProtocolVersion> {
    stream.get_ref().1.protocol_version()
}
