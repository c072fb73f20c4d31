//! Whom a request is for, and whether it is one clear request at all (RFC 9112 sections 3.2 and 6.1).

use std::borrow::Cow;

use http::request::Parts;
use http::{Method, Version};

use super::Fields;
use super::fields::{Field, is_websocket_stream};
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
pub(crate) fn check<'r>(request: &'r Parts, fields: &Fields<'r>, target_bytes: usize) -> Result<Authority<'r>, Error> {
    if request.method == Method::CONNECT && !is_websocket_stream(request) {
        return Err(Error::NotImplemented("CONNECT"));
    }
    if request.uri.path_and_query().is_some_and(|target| target.as_str().len() > target_bytes) {
        return Err(Error::TargetTooLong);
    }
    if let Some(coding) = fields.coding.value {
        if request.version == Version::HTTP_10 {
            return Err(Error::BadRequest("HTTP/1.0 with a Transfer-Encoding"));
        }
        if fields.coding.is_repeated || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Error::NotImplemented("a Transfer-Encoding other than one single `chunked`"));
        }
        if fields.has_length {
            return Err(Error::BadRequest("both Content-Length and Transfer-Encoding"));
        }
    }
    let named = named(fields.host)?;
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

fn named(host: Field<'_>) -> Result<Option<&str>, Error> {
    let Some(field) = host.value else { return Ok(None) };
    if host.is_repeated {
        return Err(Error::BadRequest("more than one Host"));
    }
    field.to_str().map(Some).map_err(|_| Error::BadRequest("Host has a character that is not allowed"))
}

fn parse(text: &str) -> Result<Authority<'_>, Error> {
    let bad = || Error::BadRequest("Host is not a host name or address, with or without a port");
    if text.is_empty() {
        return Ok(Authority { text, host: Cow::Borrowed(""), port: None });
    }
    let (host, port) = split(text).ok_or_else(bad)?;
    let kinds = host.bytes().fold(Kinds::default(), Kinds::and);
    let valid = match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
        Some(Some(inner)) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        Some(None) => false,
        None => !host.is_empty() && !kinds.others,
    };
    if !valid {
        return Err(bad());
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let host = if kinds.upper_case { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) };
    Ok(Authority { text, host, port })
}

/// What kinds of bytes there are in a host.
#[derive(Default)]
struct Kinds {
    upper_case: bool,
    /// Those that are in no host name.
    others: bool,
}

impl Kinds {
    fn and(self, byte: u8) -> Self {
        let is_upper_case = byte.is_ascii_uppercase();
        let is_other = !(is_upper_case || matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_'));
        Self { upper_case: self.upper_case | is_upper_case, others: self.others | is_other }
    }
}

/// Splits the port off, which the last five digits at the most are; `None` where it is none.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    let digits = text.bytes().rev().take_while(u8::is_ascii_digit).count();
    let Some(host) = text[..text.len() - digits].strip_suffix(':') else {
        // In an address of IPv6 colons stand between the brackets.
        let has_colon = || text.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        return (text.ends_with(']') || !has_colon()).then_some((text, None));
    };
    let port = &text[text.len() - digits..];
    port.parse::<u16>().is_ok().then_some((host, Some(port)))
}
