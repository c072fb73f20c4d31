//! A raw client: bytes in, bytes out, nothing mended.

use std::fmt::Debug;
use std::io::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::message::{self, Kind, Message};
use crate::tls::connect_tls;

/// Longer than any answer that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What bytes go over.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Debug {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + Debug> Stream for S {}

/// One connection.
#[derive(Debug)]
pub struct Client {
    socket: Box<dyn Stream>,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The body, without its framing.
    pub body: Vec<u8>,
    message: Message,
}

/// Opens a connection.
///
/// # Errors
/// Those of connecting.
pub async fn client(address: SocketAddr) -> Result<Client> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(Client { socket: Box::new(socket), buffer: Vec::new() })
}

/// Opens a connection of TLS.
///
/// # Errors
/// Those of connecting and of the handshake.
pub async fn client_tls(address: SocketAddr, host: &str, trusted: &Arc<ClientConfig>) -> Result<Client> {
    let socket = connect_tls(address, host, trusted).await?;
    Ok(Client { socket: Box::new(socket), buffer: Vec::new() })
}

impl Client {
    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.socket.write_all(bytes.as_ref()).await?;
        self.socket.flush().await
    }

    /// Reads the next answer; none where the connection was closed before its first byte.
    ///
    /// # Errors
    /// Those of the socket, an answer that is cut short, and none in 30 s.
    pub async fn answer(&mut self) -> Result<Option<Response>> {
        let read = message::read(&mut self.socket, &mut self.buffer, Kind::Answer);
        Ok(timeout(PATIENCE, read).await??.map(Response::new))
    }

    /// Sends a GET and reads its answer.
    ///
    /// # Errors
    /// As [`Client::answer`].
    pub async fn get(&mut self, host: &str, target: &str) -> Result<Option<Response>> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await?;
        self.answer().await
    }

    /// Reads the answer to a HEAD: it has no body, whatever its fields say.
    ///
    /// # Errors
    /// As [`Client::answer`], and no answer at all.
    pub async fn head_answer(&mut self) -> Result<Response> {
        let read = message::read(&mut self.socket, &mut self.buffer, Kind::HeadAnswer);
        let message = timeout(PATIENCE, read).await??.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        Ok(Response::new(message))
    }

    /// Reads what has come of an answer to the end of a buffer.
    ///
    /// # Errors
    /// Those of the socket, its end, and nothing in 30 s.
    pub async fn read_some(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        match timeout(PATIENCE, self.socket.read_buf(bytes)).await?? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Says that nothing more will be sent; answers can still be read.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn finish(&mut self) -> Result<()> {
        self.socket.shutdown().await
    }

    /// Reads until the connection ends.
    ///
    /// # Errors
    /// Those of the socket, and no end in 30 s.
    pub async fn rest(&mut self) -> Result<Vec<u8>> {
        timeout(PATIENCE, self.socket.read_to_end(&mut self.buffer)).await??;
        Ok(std::mem::take(&mut self.buffer))
    }
}

impl Response {
    fn new(mut message: Message) -> Self {
        let status = message.first_line().split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let body = std::mem::take(&mut message.body);
        Self { status, body, message }
    }

    /// Returns all fields of that name, in order.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        self.message.fields(name).collect()
    }

    /// Returns the first field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.message.field(name)
    }

    /// Tells whether the server closes the connection after this answer.
    pub fn closes(&self) -> bool {
        self.message.has_token("connection", "close") || self.message.head.starts_with("HTTP/1.0")
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
