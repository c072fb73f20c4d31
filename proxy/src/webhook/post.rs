//! One POST: the connection, TLS where the address wants it, the head of the answer, and what that means.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use config::webhook::{WebhookSecret, WebhookUrl};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::notice::Notice;

/// Why a try failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The next one may not.
    Passing(String),
    /// The receiver will not take it.
    Lasting(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Passing(error.to_string())
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self::Passing(error.to_string())
    }
}

/// Where to send, and how.
pub(super) struct Hook<'s> {
    pub(super) url: &'s WebhookUrl,
    pub(super) secret: Option<&'s WebhookSecret>,
    pub(super) ca: Option<&'s std::path::Path>,
}

impl Hook<'_> {
    /// Sends a notice once.
    ///
    /// # Errors
    /// Why the receiver has not taken it.
    pub(super) async fn post(&self, notice: &Notice) -> Result<(), Failure> {
        let stream = self.connect().await?;
        if !self.url.is_tls() {
            return self.ask(stream, notice).await;
        }
        let name = ServerName::try_from(self.url.host().to_owned());
        let name = name.map_err(|error| Failure::Lasting(format!("the host is no name of a certificate: {error}")))?;
        let trusted = self.trusted().await?;
        self.ask(TlsConnector::from(Arc::new(trusted)).connect(name, stream).await?, notice).await
    }

    /// Connects to the first address of the host that lets us.
    async fn connect(&self) -> io::Result<TcpStream> {
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for address in tokio::net::lookup_host((self.url.host(), self.url.port())).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The authorities that browsers believe stand in the program, as the proxy's container has no files of a system to read them
    /// from; with them those of the operator's own file, read anew each time, since that may be renewed.
    async fn trusted(&self) -> Result<ClientConfig, Failure> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = self.ca {
            let wrong = |why: String| Failure::Lasting(format!("{} can't be used: {why}", path.display()));
            let text = tokio::fs::read(path).await.map_err(|error| wrong(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| Failure::Lasting(error.to_string()))?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// Sends it and takes the head of the answer. A redirect is not followed: who may lead us elsewhere could lead us inside.
    async fn ask<S>(&self, stream: S, notice: &Notice) -> Result<(), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = self.request(notice).map_err(|error| Failure::Lasting(error.to_string()))?;
        let mut asked = pin!(async { Ok::<_, Failure>(sender.send_request(request).await?.status()) });
        let status = tokio::select! {
            biased;
            status = &mut asked => status?,
            // The answer may have come with the end of the connection: it says better what became of it.
            _ = connection => asked.await?,
        };
        let why = format!("it answered {}", status.as_u16());
        match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Failure::Passing(why)),
            _ if status.is_success() => Ok(()),
            _ if status.is_server_error() => Err(Failure::Passing(why)),
            _ => Err(Failure::Lasting(why)),
        }
    }

    fn request(&self, notice: &Notice) -> http::Result<Request<Full<Bytes>>> {
        let mut request = Request::post(self.url.target())
            .header(header::HOST, self.url.authority())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("bgproxy/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .header("x-bluegreen-id", &notice.id);
        if let Some(secret) = self.secret {
            request = request.header("x-bluegreen-signature", sign(secret, &notice.body));
        }
        request.body(Full::new(notice.body.clone()))
    }
}

/// Returns HMAC-SHA256 of a body by a secret, as many receivers know it from elsewhere.
fn sign(secret: &WebhookSecret, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).expect("a key of any length will do");
    mac.update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '{"a":1}' | openssl dgst -sha256 -hmac hunter2` says so too.
    #[test]
    fn a_body_is_signed_as_openssl_signs_it() {
        let signed = sign(&"hunter2".parse().unwrap(), br#"{"a":1}"#);
        assert_eq!(signed, "sha256=6e73a1a57a6e6edb9dff174d2a53bc61a27cfc639a2964743ed35fd59c8bc82d");
    }
}
