//! What a request's fields say that decides how it is served, found in one pass: each look into a map of fields costs more
//! than passing by one.

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Version};
use hyper::ext::Protocol;

use crate::upstream::exchange::RequestFraming;

/// What a request's fields say.
#[derive(Debug, Default)]
pub(crate) struct Fields<'r> {
    /// `Host`.
    pub(super) host: Field<'r>,
    /// `Transfer-Encoding`.
    pub(super) coding: Field<'r>,
    /// The client's own `X-Request-Id`.
    pub(crate) request_id: Option<&'r HeaderValue>,
    /// The names that `Connection` lists: they end here, but for those that say what the message is.
    pub(super) listed: Vec<&'r str>,
    /// `Content-Length` is there.
    pub(super) has_length: bool,
    /// The client takes trailers.
    pub(super) takes_trailers: bool,
    /// Fields named `Cookie`: HTTP/2 may send them apart, HTTP/1 may not (RFC 9113 section 8.2.3).
    pub(super) cookies: usize,
    /// It asks for a WebSocket: only that may leave HTTP, and only by the client's explicit wish (RFC 6455 section 4.1).
    pub(crate) asks_for_websocket: bool,
    /// It is gRPC, which is spoken over HTTP/2 alone and ends in trailers.
    pub(crate) is_grpc: bool,
    /// The client waits for `100 Continue` (RFC 9110 section 10.1.1); of HTTP/1.0 clients the field is not heard.
    pub(crate) expects_continue: bool,
}

/// A field that may stand in a request once.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Field<'r> {
    /// Its first value.
    pub(super) value: Option<&'r HeaderValue>,
    /// It came again.
    pub(super) is_repeated: bool,
}

impl<'r> Field<'r> {
    fn note(&mut self, value: &'r HeaderValue) {
        self.is_repeated = self.value.is_some();
        self.value = self.value.or(Some(value));
    }
}

impl<'r> Fields<'r> {
    /// Reads the fields of a request.
    pub(crate) fn of(request: &'r Parts) -> Self {
        let mut fields = Self::default();
        let (mut expect, mut may_upgrade, mut names_websocket) = (None, false, false);
        for (name, value) in &request.headers {
            match *name {
                header::HOST => fields.host.note(value),
                header::TRANSFER_ENCODING => fields.coding.note(value),
                header::CONTENT_LENGTH => fields.has_length = true,
                header::CONNECTION => may_upgrade |= fields.read_connection(value),
                header::UPGRADE => names_websocket |= options(value).any(|option| is(option, "websocket")),
                header::TE => fields.takes_trailers |= options(value).any(|coding| is(coding, "trailers")),
                header::COOKIE => fields.cookies += 1,
                header::EXPECT => expect = expect.or(Some(value)),
                header::CONTENT_TYPE => fields.is_grpc = request.version == Version::HTTP_2 && is_grpc(value),
                _ if fields.request_id.is_none() && is_request_id(name) => fields.request_id = Some(value),
                _ => {}
            }
        }
        let says_continue = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        fields.expects_continue = request.version != Version::HTTP_10 && expect.is_some_and(says_continue);
        fields.asks_for_websocket = may_upgrade && names_websocket || is_websocket_stream(request);
        fields
    }

    /// Returns how the body is framed for the application.
    pub(crate) fn framing(&self, version: Version, is_empty: bool) -> RequestFraming {
        // HTTP/2 frames its bodies itself, and need not say how long they are.
        let is_open = version == Version::HTTP_2 && !is_empty && !self.has_length;
        if is_open || self.coding.value.is_some() { RequestFraming::Chunked } else { RequestFraming::Length }
    }

    /// Notes the names that a `Connection` lists; tells whether it lists `upgrade`.
    fn read_connection(&mut self, value: &'r HeaderValue) -> bool {
        let mut may_upgrade = false;
        for option in options(value) {
            if is(option, "upgrade") {
                may_upgrade = true;
            } else if !["close", "keep-alive", "te", "", "content-length"].iter().any(|known| is(option, known)) {
                // The length of the body is not the client's to take away, so that is none of them.
                self.listed.push(option);
            }
        }
        may_upgrade
    }

    /// Tells whether `Connection` lists a name.
    pub(super) fn lists(&self, name: &HeaderName) -> bool {
        self.listed.iter().any(|listed| is(listed, name.as_str()))
    }
}

/// Tells whether it asks for a WebSocket on one stream of HTTP/2 (RFC 8441 section 4).
pub(super) fn is_websocket_stream(request: &Parts) -> bool {
    let is_websocket = |protocol: &Protocol| protocol.as_str() == "websocket";
    request.method == Method::CONNECT && request.extensions.get().is_some_and(is_websocket)
}

fn is_grpc(kind: &HeaderValue) -> bool {
    let kind = kind.as_bytes();
    kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web")
}

fn is_request_id(name: &HeaderName) -> bool {
    name.as_str() == "x-request-id"
}

fn options(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim)
}

fn is(option: &str, known: &str) -> bool {
    option.eq_ignore_ascii_case(known)
}
