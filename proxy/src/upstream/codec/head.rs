//! The head of an answer: status line, header fields, and how its body is framed (RFC 9112 section 6).

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::Malformed;

/// Most answers have fewer fields than this; more are parsed a second time with room for the limit.
const USUAL_FIELDS: usize = 48;

/// The head of an answer, without its hop-by-hop fields.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    /// The status; 100 to 199 are interim answers, but for 101.
    pub(crate) status: StatusCode,
    /// The fields that go on to the client. Field values share the bytes that were read.
    pub(crate) headers: HeaderMap,
    /// How the body ends.
    pub(crate) framing: Framing,
    /// Whether the connection may carry another request after this answer.
    pub(crate) keep_alive: bool,
    /// Whether the application speaks HTTP/1.0.
    pub(crate) http10: bool,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// By chunked coding.
    Chunked,
    /// When the connection is closed.
    UntilClose,
}

/// Where a field stands in the bytes of the head.
#[derive(Clone, Copy, Default)]
struct Field {
    name: Place,
    value: Place,
}

/// Small, since there is room for many: a head that is longer is refused before.
#[derive(Clone, Copy, Default)]
struct Place {
    from: u32,
    to: u32,
}

impl Place {
    fn range(self) -> Range<usize> {
        self.from as usize..self.to as usize
    }
}

/// Takes one complete head off the front of `buffer`; `None` while it is incomplete, and then nothing is taken.
///
/// # Errors
/// Where the bytes are not the head of one clear answer to a request of this method.
pub(crate) fn parse(
    buffer: &mut BytesMut,
    method: &Method,
    max_fields: usize,
) -> Result<Option<ResponseHead>, Malformed> {
    parse_into(buffer, method, max_fields, HeaderMap::new)
}

/// The same, with the fields in an empty map that is asked for once the head is there.
///
/// # Errors
/// Those of [`parse`].
pub(crate) fn parse_into(
    buffer: &mut BytesMut,
    method: &Method,
    max_fields: usize,
    map: impl FnOnce() -> HeaderMap,
) -> Result<Option<ResponseHead>, Malformed> {
    // The parser skips empty lines; only before a request may there be any (RFC 9112 section 2.2).
    if let Some(b'\r' | b'\n') = buffer.first() {
        return Err(Malformed("it begins with an empty line"));
    }
    let mut fields = [Field::default(); USUAL_FIELDS];
    let mut more = Vec::new();
    let parsed = match scan(buffer, &mut [const { MaybeUninit::uninit() }; USUAL_FIELDS], &mut fields) {
        Err(httparse::Error::TooManyHeaders) if max_fields > USUAL_FIELDS => {
            more = vec![Field::default(); max_fields];
            scan(buffer, &mut vec![MaybeUninit::uninit(); max_fields], &mut more)
        }
        outcome => outcome,
    };
    let Some(Scanned { length, status, http10, fields: count }) = parsed.map_err(describe)? else { return Ok(None) };
    let fields = if more.is_empty() { &fields[..count] } else { &more[..count] };

    let bytes = buffer.split_to(length).freeze();
    let status = StatusCode::from_u16(status).map_err(|_| Malformed("the status is not a number from 100 to 999"))?;
    build(&bytes, fields, Start { status, http10 }, method, map()).map(Some)
}

struct Scanned {
    length: usize,
    status: u16,
    http10: bool,
    fields: usize,
}

fn scan<'b>(
    buffer: &'b [u8],
    storage: &mut [MaybeUninit<httparse::Header<'b>>],
    fields: &mut [Field],
) -> Result<Option<Scanned>, httparse::Error> {
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut response, buffer, storage)?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let start = buffer.as_ptr() as usize;
    let place = |part: &[u8]| {
        let from = part.as_ptr() as usize - start;
        Place { from: from as u32, to: (from + part.len()) as u32 }
    };
    for (field, header) in fields.iter_mut().zip(response.headers.iter()) {
        *field = Field { name: place(header.name.as_bytes()), value: place(header.value) };
    }
    Ok(Some(Scanned {
        length,
        status: response.code.unwrap_or(0),
        http10: response.version == Some(0),
        fields: response.headers.len(),
    }))
}

fn describe(error: httparse::Error) -> Malformed {
    Malformed(match error {
        httparse::Error::HeaderName => "a field name has a character that is not allowed",
        httparse::Error::HeaderValue => "a field value has a character that is not allowed",
        httparse::Error::NewLine => "a line does not end in CRLF",
        httparse::Error::Status => "the status is not a number of three digits",
        httparse::Error::Token => "the status line is not HTTP",
        httparse::Error::TooManyHeaders => "it has too many header fields",
        httparse::Error::Version => "the version is neither HTTP/1.0 nor HTTP/1.1",
    })
}

#[derive(Clone, Copy)]
struct Start {
    status: StatusCode,
    http10: bool,
}

fn build(
    bytes: &Bytes,
    fields: &[Field],
    start: Start,
    method: &Method,
    mut headers: HeaderMap,
) -> Result<ResponseHead, Malformed> {
    let Start { status, http10 } = start;
    // With room for what we add.
    headers.reserve(fields.len() + 4);
    let mut length = None;
    let mut chunked = false;
    let mut connection = Connection::default();
    for field in fields {
        let name = HeaderName::from_bytes(&bytes[field.name.range()])
            .map_err(|_| Malformed("a field name has a character that is not allowed"))?;
        let raw = bytes.slice(field.value.range());
        match name {
            header::CONTENT_LENGTH => {
                let value = parse_length(&raw)?;
                if length.replace(value).is_some() {
                    return Err(Malformed("it has more than one Content-Length"));
                }
            }
            header::TRANSFER_ENCODING => {
                if chunked || !raw.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed("its Transfer-Encoding is not one single `chunked`"));
                }
                chunked = true;
                continue;
            }
            header::CONNECTION => {
                connection.read(&raw)?;
                continue;
            }
            header::TE => continue,
            header::UPGRADE if status != StatusCode::SWITCHING_PROTOCOLS => continue,
            ref other if other.as_str() == "keep-alive" || other.as_str() == "proxy-connection" => continue,
            _ => {}
        }
        let value = HeaderValue::from_maybe_shared(raw)
            .map_err(|_| Malformed("a field value has a character that is not allowed"))?;
        headers.append(name, value);
    }
    if !connection.listed.is_empty() {
        // Made anew: taking fields out of a map brings the others out of order.
        let passes = |(name, _): &(&HeaderName, &HeaderValue)| !connection.listed.contains(name);
        headers = headers.iter().filter(passes).map(|(name, value)| (name.clone(), value.clone())).collect();
    }
    let framing = if chunked && length.is_some() {
        return Err(Malformed("it has both Content-Length and Transfer-Encoding"));
    } else if chunked && http10 {
        return Err(Malformed("it is HTTP/1.0 and has a Transfer-Encoding"));
    } else if status.is_informational() || status == StatusCode::NO_CONTENT {
        if status == StatusCode::NO_CONTENT {
            headers.remove(header::CONTENT_LENGTH);
        }
        Framing::Empty
    } else if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        Framing::Empty
    } else if chunked {
        Framing::Chunked
    } else {
        match length {
            Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        }
    };
    let keep_alive = framing != Framing::UntilClose && !connection.close && (!http10 || connection.keep_alive);
    Ok(ResponseHead { status, headers, framing, keep_alive, http10 })
}

/// Reads a Content-Length: digits and nothing else, so that no other reader can see another number.
fn parse_length(raw: &[u8]) -> Result<u64, Malformed> {
    let digit = |length: u64, byte: &u8| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    };
    let length = raw.iter().try_fold(0, digit).filter(|_| !raw.is_empty());
    length.ok_or(Malformed("its Content-Length is not a number"))
}

/// What the fields named `Connection` say.
#[derive(Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    listed: Vec<HeaderName>,
}

impl Connection {
    fn read(&mut self, raw: &[u8]) -> Result<(), Malformed> {
        for option in raw.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if !option.is_empty() && !option.eq_ignore_ascii_case(b"upgrade") {
                let name = HeaderName::from_bytes(option)
                    .map_err(|_| Malformed("its Connection names what can't be a field"))?;
                // Framing is ours to decide; a peer can't have it taken away.
                if name != header::CONTENT_LENGTH {
                    self.listed.push(name);
                }
            }
        }
        Ok(())
    }
}
