//! How an authority is asked: one connection a request, by https alone, within bounds of time and length.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// One request, from the look-up of the host to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A chain of certificates is some thousand bytes long.
const ANSWER_BYTES: usize = 1024 * 1024;
/// What is waited of an authority that says that we ask too often, and not for how long.
const UNTOLD: Duration = Duration::from_secs(60 * 60);

/// Asks an authority.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) tls: TlsConnector,
    asked_to_wait: Arc<Mutex<Option<Duration>>>,
}

impl Wire {
    /// Returns what asks an authority whose site's certificate the public authorities issued, or those in a file.
    ///
    /// # Errors
    /// Where the file can't be used, in words.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = ca {
            let wrong = |why: String| format!("{} can't be used: {why}", path.display());
            let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: Arc::new(config).into(), asked_to_wait: Arc::default() })
    }

    /// Returns what the authority asked us to wait with its last answer, where it did.
    pub(super) fn asked_to_wait(&self) -> Option<Duration> {
        *self.asked_to_wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, mut request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let uri = request.uri().clone();
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
        let host = host.ok_or_else(|| other("the authority names an address that is not https"))?.to_owned();
        let authority = uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        let stream = connect(&host, uri.port_u16().unwrap_or(443))
            .await
            .map_err(|error| other(format!("{host} can't be reached: {error}")))?;
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(other)?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| other(format!("{host}: {error}")))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
        let connection = tokio::spawn(connection);
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        *request.uri_mut() = target.parse::<Uri>().map_err(other)?;
        request.headers_mut().insert(header::HOST, HeaderValue::try_from(authority).map_err(other)?);
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let (parts, body) = sender.send_request(request).await.map_err(other)?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(Error::Other)?.to_bytes();
        connection.abort();
        let waits = match parts.status {
            StatusCode::TOO_MANY_REQUESTS => Some(retry_after(&parts).unwrap_or(UNTOLD)),
            StatusCode::SERVICE_UNAVAILABLE => retry_after(&parts),
            _ => None,
        };
        *self.asked_to_wait.lock().unwrap_or_else(PoisonError::into_inner) = waits;
        // Else the answer of whatever stands before it would be told as JSON that can't be read.
        let is_page = !parts.status.is_success() && !body.trim_ascii_start().starts_with(b"{");
        if is_page {
            return Err(other(format!("{host} answered {}", parts.status.as_u16())));
        }
        Ok(BytesResponse { parts, body: Box::new(body) })
    }
}

impl HttpClient for Wire {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let wire = self.clone();
        Box::pin(async move {
            let late = || other(format!("the authority gave no answer within {} s", TIMEOUT.as_secs()));
            tokio::time::timeout(TIMEOUT, wire.ask(request)).await.map_err(|_| late())?
        })
    }
}

/// Connects to the first address of the host that lets us.
pub(super) async fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut failed = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// In seconds; as a date, which authorities do not send, it counts as not told.
fn retry_after(parts: &http::response::Parts) -> Option<Duration> {
    let seconds = parts.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Other(error.into())
}
