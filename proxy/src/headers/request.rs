//! The head of a request as the application gets it, written straight from the client's fields.

use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;

use super::fields::is_websocket_stream;
use super::{Authority, Fields};
use crate::upstream::exchange::RequestFraming;

/// What is told to the application about the client.
pub(crate) struct Forwarded<'r> {
    /// The client's address, or the trusted proxy's.
    pub(crate) peer: &'r str,
    /// The address of the client behind it, as far as that is to be believed.
    pub(crate) client: &'r str,
    /// Whether what the peer says of its own client is believed.
    pub(crate) trusted: bool,
    /// Whether the peer speaks TLS with us.
    pub(crate) secure: bool,
    /// The request's id.
    pub(crate) request_id: &'r HeaderValue,
}

/// The head of a request for the application.
pub(crate) struct RequestHead<'r> {
    /// The client's request.
    pub(crate) request: &'r Parts,
    /// Fields that the operator gives it.
    pub(crate) given: &'r [(HeaderName, HeaderValue)],
    /// The `Host` that the application gets.
    pub(crate) host: &'r str,
    /// What its fields say.
    pub(crate) fields: &'r Fields<'r>,
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
    /// Writes the head.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let Self { request, fields, .. } = self;
        let is_stream = is_websocket_stream(request);
        let method = if is_stream { "GET" } else { request.method.as_str() };
        put(out, &[method, " ", self.target, " HTTP/1.1\r\nHost: ", self.host, "\r\n"]);
        let mut claims = Claims::default();
        for (name, value) in &request.headers {
            let is_ours = *name == header::COOKIE && fields.cookies > 1
                || *name == header::CONTENT_LENGTH && self.length.is_some();
            if is_ours {
                continue;
            }
            match fate(name) {
                Fate::Passes => {}
                Fate::Claim if self.forwarded.trusted => claims.note(name),
                Fate::Claim | Fate::EndsHere => continue,
            }
            if !fields.lists(name) {
                field(out, name.as_str(), value.as_bytes());
            }
        }
        if fields.cookies > 1 {
            self.encode_cookies(out);
        }
        // Whatever the client's `Connection` lists: these are not the client's.
        for (name, value) in self.given {
            claims.note(name);
            field(out, name.as_str(), value.as_bytes());
        }
        self.encode_forwarded(out, claims);
        if let Some(length) = self.length {
            write!(out, "content-length: {length}\r\n").expect("a buffer in memory takes all that is written");
        }
        if self.framing == RequestFraming::Chunked {
            put(out, &["transfer-encoding: chunked\r\n"]);
        }
        if self.expects_continue {
            put(out, &["expect: 100-continue\r\n"]);
        }
        if is_stream {
            put(out, &["sec-websocket-key: ", &websocket_key(), "\r\n"]);
        }
        if self.websocket {
            put(out, &["connection: upgrade\r\nupgrade: websocket\r\n"]);
        } else if fields.takes_trailers {
            put(out, &["connection: te\r\nte: trailers\r\n"]);
        }
        put(out, &["\r\n"]);
    }

    /// Joins cookies that came in several fields.
    fn encode_cookies(&self, out: &mut Vec<u8>) {
        for (number, value) in self.request.headers.get_all(header::COOKIE).iter().enumerate() {
            put(out, &[if number == 0 { "cookie: " } else { "; " }]);
            out.extend_from_slice(value.as_bytes());
        }
        // Where all that came were our own, none is left: an empty line would end the head.
        if self.request.headers.contains_key(header::COOKIE) {
            put(out, &["\r\n"]);
        }
    }

    fn encode_forwarded(&self, out: &mut Vec<u8>, claims: Claims) {
        let Forwarded { peer, client: address, trusted, secure, request_id } = &self.forwarded;
        let (scheme, usual_port) = if *secure { ("https", "443") } else { ("http", "80") };
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
            put(out, &["x-forwarded-proto: ", scheme, "\r\n"]);
        }
        if !claims.host {
            put(out, &["x-forwarded-host: ", self.authority.text, "\r\n"]);
        }
        if !claims.port {
            put(out, &["x-forwarded-port: ", self.authority.port.unwrap_or(usual_port), "\r\n"]);
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
