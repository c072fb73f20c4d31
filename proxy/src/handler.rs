//! The life of one request, step by step: connection -> **handler** -> forward. Each step is one call.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use config::options::Protocol;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::answer::{AnswerBody, Meter};
use crate::client::{BodyWatch, Client, Serving};
use crate::error::{Error, Side};
use crate::forward::{self, Failure, Head, Request as Forward, Sent};
use crate::headers::{self, Authority, Forwarded, RequestHead};
use crate::hold::Hold;
use crate::respond;
use crate::routing::table::{Matched, Service, escapes};
use crate::telemetry::record::Record;
use crate::upstream::exchange::RequestFraming;
use crate::upstream::request_body::RequestBody;
use crate::upstream::run::{Claim, Tally};
use crate::upstream::spool::Spool;
use crate::upstream::tunnel::Tunnel;
use crate::worker::Worker;
use crate::{sticky, upgrade};

/// A body that is taken whole is in memory up to this (nginx's client_body_buffer_size), and on disk beyond.
const BUFFERED_BYTES: usize = 16 * 1024;
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers a request; every error leaves by the one door at the end.
pub(crate) async fn handle(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    mut request: Request<Incoming>,
    serving: Serving,
) -> Response<AnswerBody> {
    worker.count_request();
    let began = Instant::now();
    // Only a stream of HTTP/2 is taken over through hyper; a connection of HTTP/1 is taken apart.
    let upgrade = (request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let request_id = request_id(worker, &parts);
    let address = worker.trust().client(client.peer(), &parts.headers);
    let mut record = Record::new(&worker.log, worker.access(), address, &parts, &request_id);
    let received = Received {
        request: &parts,
        request_id: &request_id,
        address,
        incoming: body,
        upgrade,
        began,
        record: record.as_deref_mut(),
    };
    match answer(worker, client, received).await {
        Ok(response) => {
            if let Some(record) = &mut record {
                record.is_answered(response.status());
            }
            response.map(|body| body.until_end(serving).recorded(record))
        }
        Err(Refusal { error, service }) => {
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
            tracing::debug!(peer = %client.peer(), method = %parts.method, path = parts.uri.path(), status = error.status().as_u16(), %error, "answered by ourselves");
            let options = service.as_ref().map(|service| &*service.options);
            let mut response = respond::error(&error, &parts, &request_id, options, serving);
            response.headers_mut().insert(X_REQUEST_ID, request_id);
            response.map(|body| body.recorded(record))
        }
    }
}

/// Why we answer ourselves, and for which service.
struct Refusal {
    error: Error,
    service: Option<Arc<Service>>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, service: None }
    }
}

/// A request as it came, and the id that it goes by.
struct Received<'r> {
    request: &'r Parts,
    request_id: &'r HeaderValue,
    /// The client's address, as far as it is to be believed.
    address: IpAddr,
    incoming: Incoming,
    /// What a WebSocket on a stream of HTTP/2 becomes.
    upgrade: Option<OnUpgrade>,
    began: Instant,
    record: Option<&'r mut Record>,
}

async fn answer(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    Received { request, request_id, address, incoming, upgrade, began, mut record }: Received<'_>,
) -> Result<Response<AnswerBody>, Refusal> {
    // The parser of HTTP/1 counts them itself, that of HTTP/2 does not.
    if request.headers.len() > worker.limits.header_fields {
        return Err(Error::TooManyFields.into());
    }
    let authority = headers::check(request, worker.limits.target_bytes)?;
    let websocket = headers::asks_for_websocket(request);
    let framing = headers::framing(request, upgrade.is_some() || incoming.is_end_stream());
    let peer = client.peer_text();
    let behind = (address != client.peer()).then(|| address.to_string());
    let mut is_admitted = false;
    let expects_continue = headers::expects_continue(request);
    // The stream of a tunnel is no body.
    let mut body =
        (upgrade.is_none() && !incoming.is_end_stream()).then(|| RequestBody::new(incoming, BodyWatch::new(client)));
    let mut hold = Hold::new();
    // Of a request that waited for its body or its turn, the last time that it was sent.
    let mut sent_at = began;
    let (claim, sent, cookie) = loop {
        let Routed { service, claim, target } = route(worker, request, &authority)?;
        let refused = |error| Refusal { error, service: Some(Arc::clone(&service)) };
        if let (Some(body), Some(most)) = (&mut body, service.options.request_bytes)
            && !body.limit(most)
        {
            return Err(refused(Error::BodyOverLimit));
        }
        client.is_sent_to(claim.run().id());
        if let Some(record) = &mut record {
            record.is_sent_to(service.name.as_str(), claim.run().slot());
            if !service.options.access_log {
                record.is_unwanted();
            }
        }
        if let Some(rate) = service.rate().filter(|_| !std::mem::replace(&mut is_admitted, true)) {
            service.rates.admit(address, rate, began).map_err(|wait| refused(Error::TooManyRequests { wait }))?;
        }
        if service.options.buffer_requests
            && !headers::is_grpc(request)
            && let Some(unread) = body.take_if(|body| !body.is_whole())
        {
            // A slow upload keeps no version from draining: the claim is taken when there is something to send.
            drop(claim);
            let spool = Spool::new(BUFFERED_BYTES, worker.shared.spool.clone());
            body = Some(Box::pin(unread.spool(spool)).await.map_err(|error| refused(error.into()))?);
            sent_at = Instant::now();
            continue;
        }
        let length = body.as_ref().filter(|body| body.is_whole()).map(|body| body.size_hint().lower());
        let framing = if length.is_some() { RequestFraming::Length } else { framing };
        let is_http2 = !websocket && (service.options.protocol == Protocol::H2c || headers::is_grpc(request));
        let head = RequestHead {
            request,
            authority: &authority,
            target: &target,
            framing,
            length,
            websocket,
            expects_continue: expects_continue && !is_http2 && length.is_none(),
            forwarded: Forwarded {
                peer: &peer,
                client: behind.as_deref().unwrap_or(&peer),
                trusted: worker.trust().believes(client.peer()),
                request_id,
            },
        };
        let head = if is_http2 { Head::Http2(head.http2()) } else { Head::Http1(head.encode()) };
        let live = service.live.as_ref().ok_or(Error::NoVersion)?;
        let is_sticky = service.options.sticky && live.endpoints.len() > 1;
        let outbound = Forward {
            method: request.method.clone(),
            head,
            body: body.take(),
            framing,
            expects_continue: expects_continue && length.is_none(),
            wanted: is_sticky.then(|| sticky::wanted(&request.headers, &service.name, live)).flatten(),
        };
        let wanted = outbound.wanted;
        match forward::send(worker, live, &service.options, &claim, outbound).await {
            Ok(sent) => {
                let is_new = is_sticky && wanted != Some(sent.place);
                let cookie = is_new.then(|| sticky::cookie(&service.name, &live.endpoints[sent.place]));
                break (claim, sent, cookie);
            }
            Err(Failure { unsent: Some(unsent), .. }) if hold.is_allowed(&service, live) => {
                hold.wait(claim).await;
                sent_at = Instant::now();
                body = unsent;
            }
            Err(Failure { error, .. }) => {
                claim.tally(match error {
                    Error::CutOff => Tally::Cut,
                    // The client broke its own request off.
                    _ if error.side() == Side::Client => Tally::Answered,
                    _ => Tally::Failed,
                });
                claim.end(Meter { began, upstream: None, status: error.status().as_u16(), bytes: 0 }.ended());
                return Err(refused(error));
            }
        }
    };
    let Sent { status, mut headers, answering, .. } = sent;
    if let Some(cookie) = cookie {
        headers.append(header::SET_COOKIE, cookie);
    }
    claim.tally(Tally::Answered);
    let meter = Meter { began, upstream: Some(sent_at.elapsed()), status: status.as_u16(), bytes: 0 };

    if status == StatusCode::SWITCHING_PROTOCOLS {
        let connection = answering.into_connection().filter(|_| websocket);
        let Some(connection) = connection else { return Err(Error::Malformed("it switches protocols unasked").into()) };
        claim.end(meter.ended());
        let (stream, read) = connection.into_parts();
        let tunnel = Tunnel { stream, read, claim };
        let status = match upgrade {
            Some(upgrade) => {
                tokio::task::spawn_local(upgrade::run_stream(upgrade, tunnel, Rc::clone(client)));
                headers::without_handshake(&mut headers);
                StatusCode::OK
            }
            None => {
                client.leave_tunnel(tunnel);
                status
            }
        };
        return Ok(headers::prepare(status, headers, request_id, AnswerBody::bytes("")));
    }
    if upgrade.is_some() && status.is_success() {
        // To the client of a stream it would say that the tunnel is open.
        return Err(Error::Malformed("it does not switch to the WebSocket that was asked for").into());
    }
    let body = AnswerBody::upstream(answering, claim, meter);
    Ok(headers::prepare(status, headers, request_id, body))
}

/// A request's way, and its place on the run.
struct Routed<'r> {
    service: Arc<Service>,
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
            return Ok(Routed { service: Arc::clone(service), claim, target });
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
        _ => HeaderValue::from_bytes(&worker.request_id()).expect("hexadecimal digits are a field value"),
    }
}
