//! One request and its answer over a bare TCP stream, every byte of it looked at.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::uptimer;

/// A request with its answer takes no longer than this.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer of the demo's application is far shorter.
const ANSWER_BYTES: usize = 64 * 1024;

/// What is sent.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) path: &'static str,
    /// The id and the body of a POST; a GET has none.
    pub(super) post: Option<(String, Vec<u8>)>,
    /// Whether the connection is meant to live on.
    pub(super) keep_alive: bool,
}

impl Order {
    /// Returns the request on the wire.
    fn bytes(&self) -> Vec<u8> {
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let (method, fields, body) = match &self.post {
            None => ("GET", String::new(), &[][..]),
            Some((id, body)) => {
                let fields = format!("{}: {id}\r\nContent-Length: {}\r\n", uptimer::ID_HEADER, body.len());
                ("POST", fields, body.as_slice())
            }
        };
        let head = format!(
            "{method} {} HTTP/1.1\r\nHost: uptimer.demo\r\nConnection: {connection}\r\n{fields}\r\n",
            self.path
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    /// Returns the version that gave this answer, which must be right in every byte.
    fn version(&self, body: &str) -> Result<u32, String> {
        let wrong = || format!("not the application's answer: {:?}", body.chars().take(80).collect::<String>());
        let rest = body.strip_prefix("Uptimer v").ok_or_else(wrong)?;
        let (version, rest) = rest.split_once(".0 ").ok_or_else(wrong)?;
        let version: u32 = version.parse().map_err(|_| wrong())?;
        let right = match &self.post {
            Some((id, sent)) => body == uptimer::echo(version, id, sent),
            None => rest
                .strip_prefix("is running for ")
                .and_then(|rest| rest.strip_suffix(" seconds.\n"))
                .is_some_and(|seconds| seconds.parse::<u64>().is_ok()),
        };
        if right { Ok(version) } else { Err(wrong()) }
    }
}

/// An answer that was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) version: u32,
    /// Whether the connection may be used again.
    pub(super) alive: bool,
}

/// A client connection.
pub(super) struct Wire {
    stream: TcpStream,
    /// What was read beyond the part that is being looked at.
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn open(address: SocketAddr) -> Result<Self, String> {
        let connect = tokio::time::timeout(TIMEOUT, TcpStream::connect(address)).await;
        let stream = connect.map_err(|_| "time-out while connecting".to_owned())?;
        let stream = stream.map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("connect: {error}"))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Tells whether the other side closed it, or sent what nobody asked for, between two requests.
    pub(super) fn is_closed(&self) -> bool {
        let mut byte = [0];
        !matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// In words: any other status than 200, a reset, a body that is short or wrong, a time-out.
    pub(super) async fn exchange(&mut self, order: &Order) -> Result<Answer, String> {
        let whole = async {
            self.stream.write_all(&order.bytes()).await.map_err(|error| format!("send: {error}"))?;
            self.read_answer(order).await
        };
        tokio::time::timeout(TIMEOUT, whole)
            .await
            .unwrap_or_else(|_| Err(format!("time-out: no whole answer within {} s", TIMEOUT.as_secs())))
    }

    async fn read_answer(&mut self, order: &Order) -> Result<Answer, String> {
        let head = self.read_until(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let mut lines = head.lines();
        let status_line = lines.next().unwrap_or_default().to_owned();
        let fields: Vec<(&str, &str)> =
            lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect();
        let field = |name: &str| fields.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let length = field("content-length");
        let is_chunked = field("transfer-encoding").is_some_and(|value| value.ends_with("chunked"));
        let body = match length {
            _ if is_chunked => self.read_chunks().await?,
            Some(text) => {
                let length = text.parse().map_err(|_| format!("content-length: {text}"))?;
                self.read_exactly(length).await?
            }
            None => self.read_to_end().await?,
        };
        if status_line.split(' ').nth(1) != Some("200") {
            return Err(format!("answered {}", status_line.to_ascii_uppercase()));
        }
        let version = order.version(&String::from_utf8_lossy(&body))?;
        if !self.buffer.is_empty() {
            return Err(format!("{} bytes more than the answer", self.buffer.len()));
        }
        let ends = field("connection").is_some_and(|value| value.contains("close"))
            || !status_line.starts_with("http/1.1")
            || (length.is_none() && !is_chunked);
        Ok(Answer { version, alive: !ends })
    }

    async fn read_until(&mut self, mark: &[u8]) -> Result<Vec<u8>, String> {
        loop {
            if let Some(place) = self.buffer.windows(mark.len()).position(|bytes| bytes == mark) {
                let rest = self.buffer.split_off(place + mark.len());
                return Ok(std::mem::replace(&mut self.buffer, rest));
            }
            if !self.more().await? {
                let words = if self.buffer.is_empty() { "closed without an answer" } else { "short: cut in the head" };
                return Err(words.to_owned());
            }
        }
    }

    async fn read_exactly(&mut self, length: usize) -> Result<Vec<u8>, String> {
        if length > ANSWER_BYTES {
            return Err(format!("an answer of {length} bytes"));
        }
        while self.buffer.len() < length {
            if !self.more().await? {
                return Err(format!("short: {} of {length} bytes", self.buffer.len()));
            }
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    async fn read_chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = self.read_until(b"\r\n").await?;
            let line = String::from_utf8_lossy(&line);
            let size = line.trim().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).map_err(|_| format!("not the size of a chunk: {line:?}"))?;
            let chunk = self.read_exactly(size.saturating_add(2)).await?;
            if !chunk.ends_with(b"\r\n") {
                return Err("a chunk without its end".to_owned());
            }
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    async fn read_to_end(&mut self) -> Result<Vec<u8>, String> {
        while self.more().await? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    async fn more(&mut self) -> Result<bool, String> {
        if self.buffer.len() > ANSWER_BYTES {
            return Err(format!("an answer of more than {ANSWER_BYTES} bytes"));
        }
        let read = self.stream.read_buf(&mut self.buffer).await;
        read.map(|read| read > 0).map_err(|error| format!("receive: {error}"))
    }
}
