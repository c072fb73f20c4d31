//! Chunked coding of an answer (RFC 9112 section 7.1), read strictly: CRLF only, sizes in plain hex digits.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::Malformed;

/// A chunk's size line with its extensions is no longer than this.
const SIZE_LINE: usize = 4096;
/// The trailer section is no longer than this, and has no more fields than [`TRAILER_FIELDS`].
const TRAILERS: usize = 16 * 1024;
const TRAILER_FIELDS: usize = 32;

/// Where in the coding the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// Before a size line.
    Size,
    /// Within a chunk's data, so many bytes before its end.
    Data(u64),
    /// Before the CRLF that ends a chunk.
    DataEnd,
    /// After the last chunk.
    Trailers,
    /// Behind it all.
    Done,
}

/// What was read next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Data of the body.
    Data(Bytes),
    /// The end, with the trailer fields where there are any.
    End(Option<HeaderMap>),
}

impl Chunked {
    /// Takes the next piece off the front of `buffer`; `None` where more bytes are needed.
    ///
    /// # Errors
    /// Where the bytes are not chunked coding; the connection can't be used any more.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, Malformed> {
        loop {
            match *self {
                Self::Size => {
                    let Some(line) = take_line(buffer, SIZE_LINE, "a chunk's size line is too long")? else {
                        return Ok(None);
                    };
                    *self = match parse_size(&line)? {
                        0 => Self::Trailers,
                        size => Self::Data(size),
                    };
                }
                Self::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(None);
                    }
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    *self = match left - taken as u64 {
                        0 => Self::DataEnd,
                        left => Self::Data(left),
                    };
                    return Ok(Some(Piece::Data(buffer.split_to(taken).freeze())));
                }
                Self::DataEnd => {
                    if buffer.len() < 2 {
                        return Ok(None);
                    }
                    if &buffer[..2] != b"\r\n" {
                        return Err(Malformed("a chunk is longer than its size says"));
                    }
                    buffer.advance(2);
                    *self = Self::Size;
                }
                Self::Trailers => {
                    let Some(trailers) = take_trailers(buffer)? else { return Ok(None) };
                    *self = Self::Done;
                    return Ok(Some(Piece::End(trailers)));
                }
                Self::Done => return Ok(Some(Piece::End(None))),
            }
        }
    }
}

/// Takes a line without its CRLF.
fn take_line(buffer: &mut BytesMut, limit: usize, too_long: &'static str) -> Result<Option<BytesMut>, Malformed> {
    let Some(end) = buffer.iter().take(limit).position(|b| *b == b'\n') else {
        return if buffer.len() >= limit { Err(Malformed(too_long)) } else { Ok(None) };
    };
    if end == 0 || buffer[end - 1] != b'\r' {
        return Err(Malformed("a line of chunked coding does not end in CRLF"));
    }
    let mut line = buffer.split_to(end + 1);
    line.truncate(end - 1);
    Ok(Some(line))
}

fn parse_size(line: &[u8]) -> Result<u64, Malformed> {
    let (digits, extension) = match line.iter().position(|b| *b == b';') {
        // RFC 9112 allows (bad) whitespace before the semicolon, which is blanks and tabs, and nothing else does.
        Some(at) => {
            let blanks = line[..at].iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            (&line[..at - blanks], &line[at..])
        }
        None => (line, &[][..]),
    };
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Malformed("a chunk's size is not a hexadecimal number"));
    }
    if extension.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err(Malformed("a chunk extension has a control character"));
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Malformed("a chunk's size is not a hexadecimal number"))?;
    u64::from_str_radix(digits, 16).map_err(|_| Malformed("a chunk's size is not a hexadecimal number"))
}

fn take_trailers(buffer: &mut BytesMut) -> Result<Option<Option<HeaderMap>>, Malformed> {
    if buffer.len() < 2 {
        return Ok(None);
    }
    if &buffer[..2] == b"\r\n" {
        buffer.advance(2);
        return Ok(Some(None));
    }
    let mut storage = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
    let (length, fields) = match httparse::parse_headers(buffer, &mut storage) {
        Ok(httparse::Status::Complete(complete)) if complete.0 <= TRAILERS => complete,
        Ok(httparse::Status::Partial) if buffer.len() < TRAILERS => return Ok(None),
        Ok(_) => return Err(Malformed("the trailer section is too long")),
        Err(_) => return Err(Malformed("the trailer section is malformed")),
    };
    // The parser takes a bare LF, which the coding nowhere has: the next reader may see another end.
    let is_bare = |at: usize| buffer[at] == b'\n' && (at == 0 || buffer[at - 1] != b'\r');
    if (0..length).any(is_bare) {
        return Err(Malformed("a line of chunked coding does not end in CRLF"));
    }
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(Malformed("the trailer section is malformed")) };
        if may_trail(&name) {
            trailers.append(name, value);
        }
    }
    buffer.advance(length);
    Ok(Some(Some(trailers)))
}

/// Tells whether a field may stand behind a body: framing, routing, and what decides about a message before its end, may not
/// (RFC 9110 section 6.5.1).
fn may_trail(name: &HeaderName) -> bool {
    !matches!(
        *name,
        header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::HOST
            | header::CONNECTION
            | header::TE
            | header::TRAILER
            | header::UPGRADE
            | header::EXPECT
            | header::AUTHORIZATION
            | header::COOKIE
            | header::CONTENT_TYPE
            | header::CONTENT_ENCODING
            | header::CONTENT_RANGE
    )
}

/// Returns the end of a chunked body with its trailers.
pub(crate) fn last_chunk(trailers: &HeaderMap) -> Bytes {
    let mut out = BytesMut::from(&b"0\r\n"[..]);
    for (name, value) in trailers.iter().filter(|(name, _)| may_trail(name)) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.freeze()
}
