//! HTTP to an engine, whichever way it is reached; a connection is used again once its answer is read.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::BollardRequest;
use bollard::errors::Error;
use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::place::Address;

/// A port on another host answers within this, or it is out of reach.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream of bytes to an engine.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The client's type of body has no name that can be written down.
trait Bodied {
    type Body;
}

impl<B> Bodied for Request<B> {
    type Body = B;
}

type Sender = SendRequest<<BollardRequest as Bodied>::Body>;

/// The connections to one engine.
pub(super) struct Transport {
    address: Address,
    /// For a port that wants certificates.
    tls: Option<TlsConnector>,
    idle: Mutex<Vec<Sender>>,
}

impl Transport {
    pub(super) fn new(address: Address, tls: Option<TlsConnector>) -> Arc<Self> {
        Arc::new(Self { address, tls, idle: Mutex::default() })
    }

    /// Sends a request and returns the head of its answer.
    ///
    /// # Errors
    /// Where the engine can't be reached.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection that it had.
    pub(super) async fn send(self: Arc<Self>, request: BollardRequest) -> Result<Response<Incoming>, Error> {
        let mut request = in_origin_form(request);
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let is_fresh = idle.is_none();
            let mut sender = match idle {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.give_back(sender);
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    // The engine closed it meanwhile, and not a byte was sent.
                    Some(unsent) if !is_fresh => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        }
    }

    async fn connect(&self) -> Result<Sender, Error> {
        let stream: Box<dyn Stream> = match &self.address {
            Address::Socket(path) => Box::new(UnixStream::connect(path).await?),
            Address::Ssh(destination) => Box::new(destination.dial()?),
            Address::Tcp(address, _) => {
                let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.dial(address)).await;
                connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
            }
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What ends it is told to whoever waits for an answer.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    async fn dial(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }

    /// Keeps a connection for the next request, once its answer is read to the end.
    fn give_back(self: Arc<Self>, mut sender: Sender) {
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
            }
        });
    }
}

/// Returns a request as it is written to a server: its path alone, and a Host.
fn in_origin_form(mut request: BollardRequest) -> BollardRequest {
    let target = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(target);
    request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("docker"));
    request
}
