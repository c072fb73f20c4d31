//! The head of an answer as the client gets it. Hop-by-hop fields were left out when it was read.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Makes the client's answer out of the application's.
pub(crate) fn prepare<B>(status: StatusCode, headers: HeaderMap, request_id: &HeaderValue, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().insert(X_REQUEST_ID, request_id.clone());
    if status == StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else if status == StatusCode::NOT_MODIFIED {
        // It tells the length that another answer would have had; optional, and easily mistaken for this one's.
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// Takes out of an answer what only a handshake of HTTP/1 has (RFC 8441 section 5).
pub(crate) fn without_handshake(headers: &mut HeaderMap) {
    headers.remove(header::UPGRADE);
    headers.remove(header::SEC_WEBSOCKET_ACCEPT);
}
