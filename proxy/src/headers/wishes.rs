//! What a request's fields ask of us: how its body is framed, whether it waits for a word, whether it leaves HTTP.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Version};
use hyper::ext::Protocol;

use crate::upstream::exchange::RequestFraming;

/// Returns how the body is framed for the application.
pub(crate) fn framing(request: &Parts, is_empty: bool) -> RequestFraming {
    // HTTP/2 frames its bodies itself, and need not say how long they are.
    let is_open = request.version == Version::HTTP_2 && !is_empty;
    if is_open && !request.headers.contains_key(header::CONTENT_LENGTH)
        || request.headers.contains_key(header::TRANSFER_ENCODING)
    {
        RequestFraming::Chunked
    } else {
        RequestFraming::Length
    }
}

/// Tells whether the client waits for `100 Continue` (RFC 9110 section 10.1.1); of HTTP/1.0 clients the field is not heard.
pub(crate) fn expects_continue(request: &Parts) -> bool {
    let says = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    request.version != Version::HTTP_10 && request.headers.get(header::EXPECT).is_some_and(says)
}

/// Tells whether it asks for a WebSocket on one stream of HTTP/2 (RFC 8441 section 4).
pub(crate) fn is_websocket_stream(request: &Parts) -> bool {
    let is_websocket = |protocol: &Protocol| protocol.as_str() == "websocket";
    request.method == Method::CONNECT && request.extensions.get().is_some_and(is_websocket)
}

/// Tells whether it asks for a WebSocket: only that may leave HTTP, and only by the client's explicit wish (RFC 6455 section 4.1).
pub(crate) fn asks_for_websocket(request: &Parts) -> bool {
    let says = |name, wanted: &str| {
        request.headers.get_all(name).iter().any(|value| {
            value.to_str().unwrap_or_default().split(',').any(|option| option.trim().eq_ignore_ascii_case(wanted))
        })
    };
    is_websocket_stream(request) || says(header::UPGRADE, "websocket") && says(header::CONNECTION, "upgrade")
}
