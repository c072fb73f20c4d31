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
    idle: Mutex<Vec<Sender>>,
}

impl Transport {
    pub(super) fn new(address: Address) -> Arc<Self> {
        Arc::new(Self { address, idle: Mutex::default() })
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
            Address::Tcp(address) => {
                let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address.as_str())).await;
                let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What ends it is told to whoever waits for an answer.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
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
