//! Reading one HTTP/1 message from a socket: just enough for peers that we wrote ourselves.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt};

/// A message as it came.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Request or status line and fields, with the empty line.
    pub(crate) head: String,
    /// The body, without its framing.
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn first_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).next()
    }

    pub(crate) fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        self.head.lines().skip(1).filter_map(move |line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.field(name).is_some_and(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(token)))
    }
}

/// Which of the two messages is read: an answer may end with the connection, a request may not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Answer,
    /// To a HEAD, which has no body.
    HeadAnswer,
}

/// Reads the next message; none where the peer closed before its first byte. `buffer` keeps what came behind it.
pub(crate) async fn read(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    kind: Kind,
) -> Result<Option<Message>> {
    let Some(mut message) = read_head(socket, buffer).await? else { return Ok(None) };
    read_body(socket, buffer, kind, &mut message).await?;
    Ok(Some(message))
}

/// Reads the head of the next message; none where the peer closed before its first byte.
pub(crate) async fn read_head(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Result<Option<Message>> {
    let end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(cut("in the head")) };
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    Ok(Some(Message { head, body: Vec::new() }))
}

/// Reads the body that belongs to a head.
pub(crate) async fn read_body(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    kind: Kind,
    message: &mut Message,
) -> Result<()> {
    let status = message.first_line().split(' ').nth(1).unwrap_or_default().to_owned();
    let is_bodiless = status == "204" || status == "304" || status.starts_with('1');
    if kind == Kind::HeadAnswer || kind == Kind::Answer && is_bodiless {
        return Ok(());
    }
    if message.has_token("transfer-encoding", "chunked") {
        loop {
            let line = take_line(socket, buffer).await?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                .map_err(|_| Error::new(ErrorKind::InvalidData, format!("`{line}` is no chunk size")))?;
            if size == 0 {
                while !take_line(socket, buffer).await?.is_empty() {}
                return Ok(());
            }
            message.body.extend(take(socket, buffer, size).await?);
            take(socket, buffer, 2).await?;
        }
    }
    match message.field("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) => message.body = take(socket, buffer, length).await?,
        Some(Err(_)) => return Err(Error::new(ErrorKind::InvalidData, "the Content-Length is not a number")),
        None if kind == Kind::Answer => {
            socket.read_to_end(buffer).await?;
            message.body = std::mem::take(buffer);
        }
        None => {}
    }
    Ok(())
}

async fn take(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>, length: usize) -> Result<Vec<u8>> {
    while buffer.len() < length {
        if socket.read_buf(buffer).await? == 0 {
            return Err(cut(&format!("after {} of {length} bytes of the body", buffer.len())));
        }
    }
    Ok(buffer.drain(..length).collect())
}

async fn take_line(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Result<String> {
    loop {
        if let Some(at) = find(buffer, b"\r\n") {
            let line = String::from_utf8_lossy(&buffer[..at]).into_owned();
            buffer.drain(..at + 2);
            return Ok(line);
        }
        if socket.read_buf(buffer).await? == 0 {
            return Err(cut("between two chunks"));
        }
    }
}

fn find(buffer: &[u8], what: &[u8]) -> Option<usize> {
    buffer.windows(what.len()).position(|window| window == what)
}

fn cut(place: &str) -> Error {
    Error::new(ErrorKind::UnexpectedEof, format!("the connection ended {place}"))
}
