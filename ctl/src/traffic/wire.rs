//! One request and its answer over a bare TCP stream, every byte of it looked at.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A request with its answer takes no longer than this.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer is no longer than this: it is kept in memory.
const ANSWER_BYTES: usize = 1024 * 1024;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Its body.
    pub(crate) body: Vec<u8>,
    /// Whether the connection may be used again.
    pub(crate) alive: bool,
    /// Status line and fields, in lower case.
    head: String,
}

impl Answer {
    /// Returns the status line, in capitals.
    pub(crate) fn status_line(&self) -> String {
        self.head.lines().next().unwrap_or_default().to_ascii_uppercase()
    }

    /// Returns the value of a field, in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    }
}

/// A client connection.
pub(crate) struct Wire {
    stream: TcpStream,
    /// What was read beyond the part that is being looked at.
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, String> {
        let connect = tokio::time::timeout(TIMEOUT, TcpStream::connect(address)).await;
        let stream = connect.map_err(|_| "time-out while connecting".to_owned())?;
        let stream = stream.map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("connect: {error}"))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Tells whether the other side closed it, or sent what nobody asked for, between two requests.
    pub(crate) fn is_closed(&self) -> bool {
        let mut byte = [0];
        !matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// In words: a reset, an answer that is short or too long, a time-out.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<Answer, String> {
        let whole = async {
            self.stream.write_all(request).await.map_err(|error| format!("send: {error}"))?;
            self.read_answer().await
        };
        tokio::time::timeout(TIMEOUT, whole)
            .await
            .unwrap_or_else(|_| Err(format!("time-out: no whole answer within {} s", TIMEOUT.as_secs())))
    }

    async fn read_answer(&mut self) -> Result<Answer, String> {
        let head = self.read_until(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let mut answer = Answer { status: 0, body: Vec::new(), alive: false, head };
        let status = answer.head.split(' ').nth(1).and_then(|status| status.parse().ok());
        answer.status = status.ok_or_else(|| format!("not an answer: {:?}", answer.status_line()))?;
        let is_chunked = answer.field("transfer-encoding").is_some_and(|value| value.ends_with("chunked"));
        let length = answer.field("content-length").map(str::to_owned);
        let has_body = !matches!(answer.status, 204 | 304);
        answer.body = match &length {
            _ if !has_body => Vec::new(),
            _ if is_chunked => self.read_chunks().await?,
            Some(text) => {
                let length = text.parse().map_err(|_| format!("content-length: {text}"))?;
                self.read_exactly(length).await?
            }
            None => self.read_to_end().await?,
        };
        if !self.buffer.is_empty() {
            return Err(format!("{} bytes more than the answer", self.buffer.len()));
        }
        let ends = answer.field("connection").is_some_and(|value| value.contains("close"))
            || !answer.head.starts_with("http/1.1")
            || (has_body && length.is_none() && !is_chunked);
        answer.alive = !ends;
        Ok(answer)
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
            if body.len() > ANSWER_BYTES {
                return Err(format!("an answer of more than {ANSWER_BYTES} bytes"));
            }
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
