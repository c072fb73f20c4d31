//! Whom a request is for, and whether it is one clear request at all (RFC 9112 sections 3.2 and 6.1).

use std::borrow::Cow;

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{Method, Version};

use super::wishes::is_websocket_stream;
use crate::error::Error;

/// The host and port that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority<'r> {
    /// As the client wrote it, with the port where there is one.
    pub(crate) text: &'r str,
    /// In the form that routes are compared in: lower case, no port, no trailing dot.
    pub(crate) host: Cow<'r, str>,
    /// The port, where there is one.
    pub(crate) port: Option<&'r str>,
}

/// Checks what hyper lets through and what must never reach an application, and returns whom the request is for.
///
/// # Errors
/// Where the request is ambiguous, or of a kind that a reverse proxy doesn't serve.
pub(crate) fn check(request: &Parts, target_bytes: usize) -> Result<Authority<'_>, Error> {
    if request.method == Method::CONNECT && !is_websocket_stream(request) {
        return Err(Error::NotImplemented("CONNECT"));
    }
    if request.uri.path_and_query().is_some_and(|target| target.as_str().len() > target_bytes) {
        return Err(Error::TargetTooLong);
    }
    let mut codings = request.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if request.version == Version::HTTP_10 {
            return Err(Error::BadRequest("HTTP/1.0 with a Transfer-Encoding"));
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Error::NotImplemented("a Transfer-Encoding other than one single `chunked`"));
        }
        if request.headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Error::BadRequest("both Content-Length and Transfer-Encoding"));
        }
    }
    let named = host_field(&request.headers)?;
    let authority = match (request.uri.authority(), named) {
        (Some(target), Some(named)) if !target.as_str().eq_ignore_ascii_case(named) => {
            return Err(Error::BadRequest("the target and Host name different hosts"));
        }
        (Some(target), _) => target.as_str(),
        (None, Some(named)) => named,
        // RFC 9112 section 3.2: only HTTP/1.0 may do without.
        (None, None) if request.version == Version::HTTP_10 => "",
        (None, None) => return Err(Error::BadRequest("no Host")),
    };
    parse(authority)
}

fn host_field(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let mut fields = headers.get_all(header::HOST).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(Error::BadRequest("more than one Host"));
    }
    field.to_str().map(Some).map_err(|_| Error::BadRequest("Host has a character that is not allowed"))
}

fn parse(text: &str) -> Result<Authority<'_>, Error> {
    let bad = Error::BadRequest("Host is not a host name or address, with or without a port");
    if text.is_empty() {
        return Ok(Authority { text, host: Cow::Borrowed(""), port: None });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            if !digits || port.parse::<u16>().is_err() {
                return Err(bad);
            }
            (host, Some(port))
        }
        _ => (text, None),
    };
    let valid = match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
        Some(Some(inner)) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        Some(None) => false,
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')),
    };
    if !valid {
        return Err(bad);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    };
    Ok(Authority { text, host, port })
}
