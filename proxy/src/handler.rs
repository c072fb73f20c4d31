//! The life of one request, step by step: connection -> **handler** -> forward. Each step is one call.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Instant;

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::answer::{AnswerBody, Meter};
use crate::client::{BodyWatch, Client, Serving};
use crate::error::{Error, Side};
use crate::forward::{self, Failure, Request as Forward};
use crate::headers::{self, Authority, Forwarded, RequestHead};
use crate::hold::Hold;
use crate::respond;
use crate::routing::table::{Matched, Service, escapes};
use crate::telemetry::record::Record;
use crate::upstream::exchange::RequestFraming;
use crate::upstream::request_body::RequestBody;
use crate::upstream::run::{Claim, Tally};
use crate::upstream::tunnel::Tunnel;
use crate::worker::Worker;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers a request; every error leaves by the one door at the end.
pub(crate) async fn handle(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    request: Request<Incoming>,
    serving: Serving,
) -> Response<AnswerBody> {
    worker.count_request();
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let request_id = request_id(worker, &parts);
    let peer = client.peer.ip().to_canonical();
    let mut record = worker.log.as_ref().map(|log| Record::new(log, peer, &parts, &request_id));
    let received =
        Received { request: &parts, request_id: &request_id, incoming: body, began, record: record.as_deref_mut() };
    match answer(worker, client, received).await {
        Ok(response) => {
            if let Some(record) = &mut record {
                record.is_answered(response.status());
            }
            response.map(|body| body.until_end(serving).recorded(record))
        }
        Err(error) => {
            if let Some(record) = &mut record {
                record.is_answered(error.status());
                record.has_failed(&error);
            }
            // What a client does wrong is its own affair; what an application does wrong is someone's at 3 a.m.
            if error.side() == Side::Upstream {
                tracing::warn!(
                    path = parts.uri.path(),
                    error = &error as &dyn std::error::Error,
                    "the application failed a request"
                );
            }
            tracing::debug!(peer = %client.peer, method = %parts.method, path = parts.uri.path(), status = error.status().as_u16(), %error, "answered by ourselves");
            let mut response = respond::error(&error, &parts, serving);
            response.headers_mut().insert(X_REQUEST_ID, request_id);
            response.map(|body| body.recorded(record))
        }
    }
}

/// A request as it came, and the id that it goes by.
struct Received<'r> {
    request: &'r Parts,
    request_id: &'r HeaderValue,
    incoming: Incoming,
    began: Instant,
    record: Option<&'r mut Record>,
}

async fn answer(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    Received { request, request_id, incoming, began, mut record }: Received<'_>,
) -> Result<Response<AnswerBody>, Error> {
    // The parser of HTTP/1 counts them itself, that of HTTP/2 does not.
    if request.headers.len() > worker.limits.header_fields {
        return Err(Error::TooManyFields);
    }
    let authority = headers::check(request, worker.limits.target_bytes)?;
    let websocket = asks_for_websocket(request);
    let framing = framing(request, incoming.is_end_stream());
    let expects_continue = expects_continue(request);
    let mut body = (!incoming.is_end_stream()).then(|| RequestBody::new(incoming, BodyWatch::new(client)));
    let mut hold = Hold::new();
    let (claim, head, exchange) = loop {
        let Routed { service, claim, target } = route(worker, request, &authority)?;
        client.is_sent_to(claim.run().id());
        if let Some(record) = &mut record {
            record.is_sent_to(service.name.as_str(), claim.run().slot());
        }
        let head = RequestHead {
            request,
            authority: &authority,
            target: &target,
            framing,
            websocket,
            expects_continue,
            forwarded: Forwarded {
                peer: client.peer.ip().to_canonical(),
                trusted: worker.trusts(client.peer),
                request_id,
            },
        }
        .encode();
        let outbound = Forward { method: request.method.clone(), head, body: body.take(), framing, expects_continue };
        let live = service.live.as_ref().ok_or(Error::NoVersion)?;
        match forward::send(worker, live, &claim, outbound).await {
            Ok((head, exchange)) => break (claim, head, exchange),
            Err(Failure { unsent: Some(unsent), .. }) if hold.is_allowed(&service, live) => {
                hold.wait(claim).await;
                body = unsent;
            }
            Err(Failure { error, .. }) => {
                claim.tally(match error {
                    Error::CutOff => Tally::Cut,
                    // The client broke its own request off.
                    Error::RequestBody(_) => Tally::Answered,
                    _ => Tally::Failed,
                });
                claim.end(Meter { began, status: error.status().as_u16(), bytes: 0 }.ended());
                return Err(error);
            }
        }
    };
    claim.tally(Tally::Answered);
    let meter = Meter { began, status: head.status.as_u16(), bytes: 0 };

    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let connection = exchange.into_connection().filter(|_| websocket);
        let Some(connection) = connection else { return Err(Error::Malformed("it switches protocols unasked")) };
        claim.end(meter.ended());
        let (stream, read) = connection.into_parts();
        client.leave_tunnel(Tunnel { stream, read, claim });
        return Ok(headers::prepare(head, request_id, AnswerBody::bytes("")));
    }
    let body = AnswerBody::upstream(exchange, claim, meter);
    Ok(headers::prepare(head, request_id, body))
}

/// A request's way, and its place on the run.
struct Routed<'r> {
    service: std::sync::Arc<Service>,
    claim: Claim,
    target: Cow<'r, str>,
}

/// Looks the service up and claims a place on its live run: load, claim, and where the run drains load again.
fn route<'r>(worker: &Worker, request: &'r Parts, authority: &Authority<'_>) -> Result<Routed<'r>, Error> {
    let path = request.uri.path();
    loop {
        let table = worker.table();
        let Some(Matched { service, prefix }) = table.find(&authority.host, path) else {
            return Err(if table.state_lost() { Error::NoVersion } else { Error::NoRoute });
        };
        if escapes(path, prefix) {
            return Err(Error::BadRequest("the path's dot segments lead out of its route"));
        }
        let live = service.live.as_ref().ok_or(Error::NoVersion)?;
        if let Some(claim) = live.run.claim(worker.index) {
            let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            let target = if service.strip_path { strip(target, prefix.trimmed()) } else { Cow::Borrowed(target) };
            return Ok(Routed { service: std::sync::Arc::clone(service), claim, target });
        }
    }
}

fn strip<'t>(target: &'t str, prefix: &str) -> Cow<'t, str> {
    match target.strip_prefix(prefix) {
        Some(rest) if rest.starts_with('/') => Cow::Borrowed(rest),
        Some(rest) => Cow::Owned(format!("/{rest}")),
        None => Cow::Borrowed(target),
    }
}

/// The client's own id for the request, else one of ours.
fn request_id(worker: &Worker, request: &Parts) -> HeaderValue {
    match request.headers.get(X_REQUEST_ID) {
        Some(id) if !id.is_empty() && id.len() <= 128 => id.clone(),
        _ => HeaderValue::try_from(worker.request_id()).expect("hexadecimal digits are a field value"),
    }
}

fn framing(request: &Parts, is_empty: bool) -> RequestFraming {
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

/// RFC 9110 section 10.1.1; of HTTP/1.0 clients the field is not heard.
fn expects_continue(request: &Parts) -> bool {
    let says = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    request.version != Version::HTTP_10 && request.headers.get(header::EXPECT).is_some_and(says)
}

/// Only a WebSocket may leave HTTP, and only by the client's explicit wish (RFC 6455 section 4.1).
fn asks_for_websocket(request: &Parts) -> bool {
    let says = |name, wanted: &str| {
        request.headers.get_all(name).iter().any(|value| {
            value.to_str().unwrap_or_default().split(',').any(|option| option.trim().eq_ignore_ascii_case(wanted))
        })
    };
    says(header::UPGRADE, "websocket") && says(header::CONNECTION, "upgrade")
}
