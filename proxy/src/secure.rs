//! What stands before a request for the sake of TLS: an authority's look, the way to https, and who had to show a certificate.

use std::net::IpAddr;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};

use crate::answer::AnswerBody;
use crate::error::Error;
use crate::headers::Authority;
use crate::routing::table::Service;
use crate::tls::{Guard, Tls};

/// Where an authority looks (RFC 8555 section 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// Who asks.
pub(crate) struct Visitor<'c> {
    /// The client's address, as far as it is to be believed.
    pub(crate) address: IpAddr,
    /// It speaks TLS with us.
    pub(crate) is_secure: bool,
    /// What the peer says of its own client is believed.
    pub(crate) trusted: bool,
    /// Its handshake was one for which clients show certificates.
    pub(crate) guard: Option<&'c Guard>,
}

/// Answers an authority that looks at a domain; `None`: nobody looks, or it is not its token.
pub(crate) fn challenge(tls: &Tls, request: &Parts) -> Option<Response<AnswerBody>> {
    if !tls.answers().are_open() {
        return None;
    }
    let text = tls.answers().file(request.uri.path().strip_prefix(CHALLENGES)?)?;
    let mut response = Response::new(AnswerBody::bytes(text.to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

/// Judges a request to a service that https is something to, or over a connection for which a certificate was shown; returns the
/// address by https where it is to go there.
///
/// # Errors
/// 421 where it is not for this connection (RFC 9110 section 15.5.20).
pub(crate) fn judge(
    service: &Service,
    request: &Parts,
    authority: &Authority<'_>,
    visitor: &Visitor<'_>,
) -> Result<Option<HeaderValue>, Error> {
    // Names of the two may differ where a client uses one connection for all names of a certificate (RFC 9113 section 9.1.1).
    if visitor.guard.is_some_and(|guard| guard.host.as_deref() != Some(&*authority.host)) {
        return Err(Error::Misdirected);
    }
    let Some(secure) = &service.secure else { return Ok(None) };
    if !visitor.is_secure && !came_by_https(request, visitor) && secure.leads(&authority.host) {
        let path = request.uri.path();
        // An authority may look for another client's token; a load balancer must not be led away.
        let is_exempt = path.starts_with(CHALLENGES) || secure.health_path.as_deref() == Some(path);
        if !is_exempt && let Some(location) = location(request, authority, secure.port) {
            return Ok(Some(location));
        }
    }
    match (&secure.client_ca, visitor.guard) {
        (Some(wanted), Some(guard)) if guard.authorities == *wanted => Ok(None),
        (Some(_), _) => Err(Error::Misdirected),
        (None, _) => Ok(None),
    }
}

/// Tells whether a proxy in front of us that is believed had the request by https: who leads that to https leads in a circle.
fn came_by_https(request: &Parts, visitor: &Visitor<'_>) -> bool {
    let proto = || request.headers.get("x-forwarded-proto")?.to_str().ok();
    visitor.trusted && proto().is_some_and(|proto| proto.split(',').any(|one| one.trim() == "https"))
}

/// Returns the same address by https. Who came by the usual port of http goes to the usual one of https; elsewhere they are as they
/// are bound.
fn location(request: &Parts, authority: &Authority<'_>, port: u16) -> Option<HeaderValue> {
    let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let host = &authority.host;
    let location = match authority.port {
        None | Some("80") => format!("https://{host}{target}"),
        Some(_) if port == 443 => format!("https://{host}{target}"),
        Some(_) => format!("https://{host}:{port}{target}"),
    };
    HeaderValue::try_from(location).ok()
}

/// Leads a visitor to https. The method and the body go along (RFC 9110 section 15.4.9).
pub(crate) fn led(location: HeaderValue, request_id: &HeaderValue) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::bytes(""));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    // Whoever takes TLS off again must find a visitor who asks anew.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-request-id", request_id.clone());
    response
}
