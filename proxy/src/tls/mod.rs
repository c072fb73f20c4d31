//! TLS towards clients: one configuration for the life of the process, so that sessions outlive a change of certificates.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use config::brought::CertificateName;
use config::certificate::Certificate;
use config::defaults;
use rustls::crypto::ring;
use rustls::server::Acceptor;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

pub(crate) mod answers;
mod guard;
pub(crate) mod resolver;
mod wishes;

use self::answers::Answers;
use self::guard::Guards;
pub(crate) use self::guard::{Guard, Guarded};
use self::resolver::Resolver;
use self::wishes::Wishes;

/// What a client and we can speak behind TLS, the better first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What handshakes need, shared by all workers.
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    /// What is answered to authorities.
    answers: Arc<Answers>,
    /// The handshake of an authority that looks (RFC 8737).
    looked_at: Arc<ServerConfig>,
    /// Hosts that visitors wait for.
    wishes: Wishes,
    /// Hosts whose clients show certificates.
    guards: Guards,
    handshakes: Semaphore,
    done: AtomicU64,
    failed: AtomicU64,
    /// Certificates that came by themselves, and tries that failed.
    ordered: [AtomicU64; 2],
    /// Looked at by control alone.
    told: Mutex<Told>,
}

/// What is told of TLS in the status.
#[derive(Default, Clone)]
pub(crate) struct Told {
    /// Where it is listened for it.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What is shown there, of the file.
    pub(crate) certificates: Vec<Certificate>,
    /// What the admin API brought.
    pub(crate) brought: BTreeMap<CertificateName, Certificate>,
    /// What came by itself, by its domain.
    pub(crate) issued: BTreeMap<String, Certificate>,
}

impl Told {
    /// Returns all that is shown: what the file says is preferred, and what came by itself comes last.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.iter().chain(self.brought.values()).chain(self.issued.values())
    }

    /// Returns how long before a certificate's end that is told. One that comes by itself is renewed with a third of its life left.
    fn warning(&self, certificate: &Certificate) -> Duration {
        let life = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
        let is_issued = self.issued.values().any(|issued| issued == certificate);
        if is_issued { defaults::CERTIFICATE_WARNING.min(life / 6) } else { defaults::CERTIFICATE_WARNING }
    }

    /// Returns what someone should look at.
    pub(crate) fn warnings(&self, now: SystemTime) -> Vec<String> {
        let warnings = self.shown().flat_map(|certificate| {
            let mut warnings = certificate.complaints(now);
            let left = certificate.not_after.duration_since(now);
            if left.is_ok_and(|left| left < self.warning(certificate)) {
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
        let mut config = builder()?.with_no_client_auth().with_cert_resolver(Arc::clone(&resolver) as Arc<_>);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        // Its keys change by themselves, and outlive every change of certificates.
        config.ticketer = ring::Ticketer::new()?;
        let answers = Arc::<Answers>::default();
        let mut looked_at = builder()?.with_no_client_auth().with_cert_resolver(Arc::clone(&answers) as Arc<_>);
        looked_at.alpn_protocols = vec![answers::PROTOCOL.to_vec()];
        Ok(Self {
            config: Arc::new(config),
            resolver,
            answers,
            looked_at: Arc::new(looked_at),
            wishes: Wishes::default(),
            guards: Guards::default(),
            ordered: Default::default(),
            handshakes: Semaphore::new(defaults::HANDSHAKES),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            told: Mutex::new(Told { certificates: certificates.to_vec(), ..Told::default() }),
        })
    }

    /// Shows these certificates from the next handshake on.
    pub(crate) fn show(&self, certificates: &[Certificate]) {
        self.change(|told| told.certificates = certificates.to_vec());
    }

    /// Changes what is shown of what the admin API brought.
    pub(crate) fn bring(&self, change: impl FnOnce(&mut BTreeMap<CertificateName, Certificate>)) {
        self.change(|told| change(&mut told.brought));
    }

    /// Changes what is shown of what came by itself.
    pub(crate) fn issue(&self, change: impl FnOnce(&mut BTreeMap<String, Certificate>)) {
        self.change(|told| change(&mut told.issued));
    }

    /// Returns what is answered to authorities.
    pub(crate) fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }

    /// Returns the hosts that visitors wait for.
    pub(crate) fn wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// Lets clients of some hosts show certificates, and of no others.
    ///
    /// # Errors
    /// Where an authority of theirs can't be read; nothing has changed.
    pub(crate) fn guard(&self, hosts: &[Guarded]) -> Result<(), String> {
        self.guards.set(hosts, &self.resolver)
    }

    /// Counts a certificate that was ordered.
    pub(crate) fn count_order(&self, is_issued: bool) {
        self.ordered[usize::from(!is_issued)].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many certificates came by themselves, and how many tries failed.
    pub(crate) fn ordered(&self) -> [u64; 2] {
        [0, 1].map(|at: usize| self.ordered[at].load(Ordering::Relaxed))
    }

    fn change(&self, change: impl FnOnce(&mut Told)) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut told);
        self.resolver.show(&told.shown().cloned().collect::<Vec<_>>());
    }

    /// Does the handshake. A client that connected and says nothing takes no place among those that are under way.
    ///
    /// # Errors
    /// Those of the client: it broke off, or we have nothing in common.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<Shaken> {
        let shake = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let is_look = self.answers.are_open() && answers::is_look(&hello.client_hello());
            if self.wishes.are_open() && !is_look {
                // It takes no place of those who know whom they talk to.
                let host = hello.client_hello().server_name().map(str::to_ascii_lowercase);
                if let Some(host) = host.filter(|host| !self.resolver.has(host)) {
                    self.wishes.wish(&host).await;
                }
            }
            // It is never closed.
            let _place = self.handshakes.acquire().await.map_err(io::Error::other)?;
            let asked = hello.client_hello();
            if is_look {
                let mut stream = hello.into_stream(Arc::clone(&self.looked_at)).await?;
                _ = stream.shutdown().await;
                return Ok(None);
            }
            let (config, guard) = match self.guards.find(asked.server_name()) {
                None => (Arc::clone(&self.config), None),
                Some((config, guard)) => (config, Some(guard)),
            };
            Ok(Some(Shaken { stream: hello.into_stream(config).await?, guard }))
        };
        let shaken: io::Result<Option<Shaken>> = shake.await;
        let count = if shaken.is_ok() { &self.done } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        shaken?.ok_or_else(|| io::Error::other("an authority looked at a domain, and has seen it"))
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

/// A handshake that was done.
pub(crate) struct Shaken {
    /// What is spoken within.
    pub(crate) stream: TlsStream<TcpStream>,
    /// The client had to show a certificate.
    pub(crate) guard: Option<Guard>,
}

fn builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()
}

/// Tells whether both sides agreed on HTTP/2.
pub(crate) fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(PROTOCOLS[0])
}
