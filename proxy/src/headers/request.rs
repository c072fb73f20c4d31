//! The head of a request as the application gets it, written straight from the client's fields.

use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use super::Authority;
use super::wishes::is_websocket_stream;
use crate::upstream::exchange::RequestFraming;

/// What is told to the application about the client.
pub(crate) struct Forwarded<'r> {
    /// The client's address, or the trusted proxy's.
    pub(crate) peer: &'r str,
    /// The address of the client behind it, as far as that is to be believed.
    pub(crate) client: &'r str,
    /// Whether what the peer says of its own client is believed.
    pub(crate) trusted: bool,
    /// The request's id.
    pub(crate) request_id: &'r HeaderValue,
}

/// The head of a request for the application.
pub(crate) struct RequestHead<'r> {
    /// The client's request.
    pub(crate) request: &'r Parts,
    /// Whom it is for.
    pub(crate) authority: &'r Authority<'r>,
    /// The path and query that the application gets.
    pub(crate) target: &'r str,
    /// How the body is framed.
    pub(crate) framing: RequestFraming,
    /// How long it is, where that is known and the client may not have told.
    pub(crate) length: Option<u64>,
    /// Whether it asks for a WebSocket.
    pub(crate) websocket: bool,
    /// Whether the client waits for `100 Continue`.
    pub(crate) expects_continue: bool,
    /// About the client.
    pub(crate) forwarded: Forwarded<'r>,
}

/// Whether a field of the client's request goes on to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It goes on.
    Passes,
    /// It is between the client and us (RFC 9110 section 7.6.1), or we write it ourselves.
    EndsHere,
    /// It goes on where the peer is trusted to say it.
    Claim,
}

fn fate(name: &HeaderName) -> Fate {
    match *name {
        header::CONNECTION
        | header::HOST
        | header::TE
        | header::TRANSFER_ENCODING
        | header::UPGRADE
        | header::EXPECT
        | header::PROXY_AUTHORIZATION => Fate::EndsHere,
        header::FORWARDED => Fate::Claim,
        _ => match name.as_str() {
            "keep-alive" | "proxy-connection" | "http2-settings" | "x-request-id" | "x-forwarded-for" | "x-real-ip" => {
                Fate::EndsHere
            }
            "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-port" => Fate::Claim,
            _ => Fate::Passes,
        },
    }
}

impl RequestHead<'_> {
    /// Returns the bytes of the head.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(1024);
        let headers = &self.request.headers;
        let is_stream = is_websocket_stream(self.request);
        let method = if is_stream { "GET" } else { self.request.method.as_str() };
        put(&mut out, &[method, " ", self.target, " HTTP/1.1\r\nHost: ", self.authority.text, "\r\n"]);
        let listed = Listed::of(headers);
        let mut claims = Claims::default();
        // HTTP/2 may send them apart, HTTP/1 may not (RFC 9113 section 8.2.3).
        let cookies = Cookies::of(headers);
        for (name, value) in headers {
            let is_ours = *name == header::COOKIE && cookies.is_apart()
                || *name == header::CONTENT_LENGTH && self.length.is_some();
            if is_ours {
                continue;
            }
            match fate(name) {
                Fate::Passes => {}
                Fate::Claim if self.forwarded.trusted => claims.note(name),
                Fate::Claim | Fate::EndsHere => continue,
            }
            if !listed.has(name) {
                field(&mut out, name.as_str(), value.as_bytes());
            }
        }
        cookies.encode(&mut out);
        self.encode_forwarded(&mut out, claims);
        if let Some(length) = self.length {
            write!(out, "content-length: {length}\r\n").expect("a buffer in memory takes all that is written");
        }
        if self.framing == RequestFraming::Chunked {
            put(&mut out, &["transfer-encoding: chunked\r\n"]);
        }
        if self.expects_continue {
            put(&mut out, &["expect: 100-continue\r\n"]);
        }
        if is_stream {
            put(&mut out, &["sec-websocket-key: ", &websocket_key(), "\r\n"]);
        }
        if self.websocket {
            put(&mut out, &["connection: upgrade\r\nupgrade: websocket\r\n"]);
        } else if listed.trailers {
            put(&mut out, &["connection: te\r\nte: trailers\r\n"]);
        }
        put(&mut out, &["\r\n"]);
        out.into()
    }

    fn encode_forwarded(&self, out: &mut Vec<u8>, claims: Claims) {
        let Forwarded { peer, client: address, trusted, request_id } = &self.forwarded;
        let headers = &self.request.headers;
        put(out, &["x-forwarded-for: "]);
        let mut client = None;
        if *trusted {
            for value in headers.get_all("x-forwarded-for") {
                out.extend_from_slice(value.as_bytes());
                put(out, &[", "]);
            }
            client = headers.get("x-real-ip");
        }
        put(out, &[peer, "\r\nx-real-ip: "]);
        out.extend_from_slice(client.map_or(address.as_bytes(), HeaderValue::as_bytes));
        put(out, &["\r\n"]);
        if !claims.proto {
            put(out, &["x-forwarded-proto: http\r\n"]);
        }
        if !claims.host {
            put(out, &["x-forwarded-host: ", self.authority.text, "\r\n"]);
        }
        if !claims.port {
            put(out, &["x-forwarded-port: ", self.authority.port.unwrap_or("80"), "\r\n"]);
        }
        field(out, "x-request-id", request_id.as_bytes());
    }
}

/// Returns a nonce for a handshake (RFC 6455 section 4.1): a client of HTTP/2 sends none. What the application makes of it
/// shows that it is no cache, and is not looked at: nothing is between us and the application.
fn websocket_key() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let random = [0, 1].map(|half| RandomState::new().hash_one(half));
    let bits = u128::from(random[0]) << 64 | u128::from(random[1]);
    // 16 bytes are 21 digits of six bits and one of two, which is padded.
    let digit = |at: u32| char::from(DIGITS[(bits.rotate_left(6 * (at + 1)) & 63) as usize]);
    let last = char::from(DIGITS[((bits & 3) << 4) as usize]);
    (0..21).map(digit).chain([last, '=', '=']).collect()
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The cookies of a request, where they came in several fields.
struct Cookies<'r>(Vec<&'r HeaderValue>);

impl<'r> Cookies<'r> {
    fn of(headers: &'r HeaderMap) -> Self {
        let mut all = headers.get_all(header::COOKIE).iter();
        // No allocation for the usual none or one.
        match (all.next(), all.next()) {
            (Some(first), Some(second)) => Self([first, second].into_iter().chain(all).collect()),
            _ => Self(Vec::new()),
        }
    }

    fn is_apart(&self) -> bool {
        !self.0.is_empty()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for (number, value) in self.0.iter().enumerate() {
            put(out, &[if number == 0 { "cookie: " } else { "; " }]);
            out.extend_from_slice(value.as_bytes());
        }
        if self.is_apart() {
            put(out, &["\r\n"]);
        }
    }
}

/// What a trusted peer said of its own client, so that we don't say it again.
#[derive(Clone, Copy, Default)]
struct Claims {
    proto: bool,
    host: bool,
    port: bool,
}

impl Claims {
    fn note(&mut self, name: &HeaderName) {
        match name.as_str() {
            "x-forwarded-proto" => self.proto = true,
            "x-forwarded-host" => self.host = true,
            "x-forwarded-port" => self.port = true,
            _ => {}
        }
    }
}

/// The fields that `Connection` lists: they end here, but for those that say what the message is.
struct Listed<'r> {
    names: Vec<&'r str>,
    trailers: bool,
}

impl<'r> Listed<'r> {
    fn of(headers: &'r HeaderMap) -> Self {
        let mut names = Vec::new();
        for value in headers.get_all(header::CONNECTION) {
            for option in value.to_str().unwrap_or_default().split(',').map(str::trim) {
                let known =
                    ["close", "keep-alive", "upgrade", "te", ""].iter().any(|known| option.eq_ignore_ascii_case(known));
                // The length of the body is not the client's to take away.
                if !known && !option.eq_ignore_ascii_case("content-length") {
                    names.push(option);
                }
            }
        }
        let trailers = headers.get_all(header::TE).iter().any(|value| {
            value.to_str().unwrap_or_default().split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
        });
        Self { names, trailers }
    }

    fn has(&self, name: &HeaderName) -> bool {
        self.names.iter().any(|listed| listed.eq_ignore_ascii_case(name.as_str()))
    }
}
