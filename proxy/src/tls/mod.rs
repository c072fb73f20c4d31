//! TLS towards clients: one configuration for the life of the process, so that sessions outlive a change of certificates.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use config::certificate::Certificate;
use config::defaults;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

pub(crate) mod resolver;

use self::resolver::Resolver;

/// What a client and we can speak behind TLS, the better first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What handshakes need, shared by all workers.
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    handshakes: Semaphore,
    done: AtomicU64,
    failed: AtomicU64,
    /// Looked at by control alone.
    told: Mutex<Told>,
}

/// What is told of TLS in the status.
#[derive(Default, Clone)]
pub(crate) struct Told {
    /// Where it is listened for it.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What is shown there.
    pub(crate) certificates: Vec<Certificate>,
}

impl Told {
    /// Returns what someone should look at.
    pub(crate) fn warnings(&self, now: SystemTime) -> Vec<String> {
        let warnings = self.certificates.iter().flat_map(|certificate| {
            let mut warnings = certificate.complaints(now);
            let left = certificate.not_after.duration_since(now);
            if left.is_ok_and(|left| left < defaults::CERTIFICATE_WARNING) {
                warnings.push(format!("it ends at {}", humantime::format_rfc3339_seconds(certificate.not_after)));
            }
            warnings.into_iter().map(|warning| format!("the certificate for {}: {warning}", certificate.title()))
        });
        warnings.collect()
    }
}

impl Tls {
    /// Returns what serves these certificates.
    ///
    /// # Errors
    /// Where the machine has no random numbers.
    pub(crate) fn new(certificates: &[Certificate]) -> Result<Self, rustls::Error> {
        let resolver = Arc::new(Resolver::new(certificates));
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let mut config = builder
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&resolver) as Arc<_>);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        config.ticketer = ring::Ticketer::new()?;
        Ok(Self {
            config: Arc::new(config),
            resolver,
            handshakes: Semaphore::new(defaults::HANDSHAKES),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            told: Mutex::new(Told { addresses: Vec::new(), certificates: certificates.to_vec() }),
        })
    }

    /// Shows these certificates from the next handshake on.
    pub(crate) fn show(&self, certificates: &[Certificate]) {
        self.resolver.show(certificates);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).certificates = certificates.to_vec();
    }

    /// Does the handshake. A client that connected and says nothing takes no place among those that are under way.
    ///
    /// # Errors
    /// Those of the client: it broke off, or we have nothing in common.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let shake = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            // It is never closed.
            let _place = self.handshakes.acquire().await.map_err(io::Error::other)?;
            hello.into_stream(Arc::clone(&self.config)).await
        };
        let shaken = shake.await;
        let count = if shaken.is_ok() { &self.done } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        shaken
    }

    /// Returns the handshakes that were done, and those that failed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Notes where it is listened for TLS.
    pub(crate) fn listens_on(&self, addresses: Vec<SocketAddr>) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).addresses = addresses;
    }

    /// Returns where it is listened for TLS, and what is shown there.
    pub(crate) fn told(&self) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Tells whether both sides agreed on HTTP/2.
pub(crate) fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(PROTOCOLS[0])
}
