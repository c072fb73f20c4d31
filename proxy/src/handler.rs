//! The life of one request, step by step: connection -> **handler** -> forward. Each step is one call.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use crate::answer::{AnswerBody, Meter};
use crate::aside;
use crate::asked::{Asked, Goes};
use crate::client::{Client, Serving};
use crate::clock;
use crate::compress;
use crate::edge::Seen;
use crate::error::{Error, Side};
use crate::event_stream::EventStream;
use crate::forward::{self, Failure, Reached, Sent};
use crate::headers::{self, Fields};
use crate::hold::Hold;
use crate::respond;
use crate::routing::preview::{self, Look};
use crate::routing::table::Service;
use crate::secure::{self, Visitor};
use crate::telemetry::record::Record;
use crate::upstream::request_body::RequestBody;
use crate::upstream::run::{Claim, Tally};
use crate::upstream::spool::Spool;
use crate::upstream::tunnel::Tunnel;
use crate::way::{Cleared, Refusal, Routed, Way, route};
use crate::worker::Worker;
use crate::{other_slot, replay, sticky, upgrade};

/// A body that is taken whole is in memory up to this (nginx's client_body_buffer_size), and on disk beyond.
const BUFFERED_BYTES: usize = 16 * 1024;
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request as it came.
pub(crate) struct Arrived {
    /// Its head.
    pub(crate) head: Parts,
    /// Its body; `None` where it has none.
    pub(crate) body: Option<RequestBody>,
    /// What a WebSocket on a stream of HTTP/2 becomes. Only such a stream is taken over through hyper; a connection of HTTP/1
    /// is taken apart.
    pub(crate) upgrade: Option<OnUpgrade>,
}

/// Answers a request; every error leaves by the one door at the end.
///
/// What lives as long as the request is handed down by reference, here and below: a future has room for each argument twice.
pub(crate) async fn handle(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    Arrived { head: request, body, upgrade }: &mut Arrived,
    serving: Serving,
) -> Response<AnswerBody> {
    worker.count_request();
    let request = &*request;
    let fields = Fields::of(request);
    let request_id = request_id(worker, &fields);
    let address = worker.trust().client(client.peer(), &request.headers);
    let mut record = worker.access().and_then(|access| Record::new(&worker.log, access, address, request, &request_id));
    let mut received = Received {
        request,
        fields: &fields,
        request_id: &request_id,
        address,
        began: clock::now(),
        body,
        upgrade,
        record: record.as_deref_mut(),
    };
    match answer(worker, client, &mut received).await {
        Ok(response) => {
            if let Some(record) = &mut record {
                record.is_answered(response.status());
            }
            response.map(|body| body.until_end(serving).recorded(record))
        }
        Err(Refusal { error, service, is_counted }) => {
            if let Some(service) = service.as_ref().filter(|_| !is_counted) {
                aside::is_ours(worker, service, record.as_deref_mut(), error.status());
            }
            if let Some(record) = &mut record {
                record.is_answered(error.status());
                record.has_failed(&error);
            }
            // What a client does wrong is its own affair; what an application does wrong is someone's at 3 a.m.
            if error.side() == Side::Upstream {
                tracing::warn!(
                    path = request.uri.path(),
                    error = &error as &dyn std::error::Error,
                    "the application failed a request"
                );
            }
            tracing::debug!(peer = %client.peer(), method = %request.method, path = request.uri.path(), status = error.status().as_u16(), %error, "answered by ourselves");
            let options = service.as_ref().map(|service| &*service.options);
            let mut response = respond::error(&error, request, &request_id, options, serving);
            if let Some((service, edge)) = service.as_ref().and_then(|service| Some((service, service.edge.as_ref()?)))
            {
                let asked = headers::check(request, &fields, worker.limits.target_bytes);
                let seen = Seen {
                    request,
                    host: asked.as_ref().map_or("", |authority| &authority.host),
                    port: None,
                    address,
                    trusted: worker.trust().believes(client.peer()),
                    secure: client.is_secure(),
                    request_id: &request_id,
                    service: &service.name,
                    user: None,
                    slot: None,
                };
                edge.answer(response.headers_mut(), &seen);
            }
            response.headers_mut().insert(X_REQUEST_ID, request_id);
            response.map(|body| body.recorded(record))
        }
    }
}

/// A request, and what is known of it before it goes anywhere.
struct Received<'r> {
    request: &'r Parts,
    fields: &'r Fields<'r>,
    request_id: &'r HeaderValue,
    /// The client's address, as far as it is to be believed.
    address: IpAddr,
    began: Instant,
    body: &'r mut Option<RequestBody>,
    upgrade: &'r mut Option<OnUpgrade>,
    record: Option<&'r mut Record>,
}

async fn answer(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    received: &mut Received<'_>,
) -> Result<Response<AnswerBody>, Refusal> {
    let Received { request, fields, request_id, address, began, body, upgrade, record } = received;
    let (request, fields, request_id, address, began) = (*request, *fields, *request_id, *address, *began);
    let body: &mut Option<RequestBody> = body;
    // The parser of HTTP/1 counts them itself, that of HTTP/2 does not.
    if request.headers.len() > worker.limits.header_fields {
        return Err(Error::TooManyFields.into());
    }
    if let Some(answered) = secure::challenge(&worker.shared.tls, request) {
        return Ok(answered);
    }
    let is_empty = body.is_none();
    let seen = OnceCell::new();
    let mut asked = Asked {
        request,
        request_id,
        authority: headers::check(request, fields, worker.limits.target_bytes)?,
        peer: client.peer_text(),
        behind: (address != client.peer()).then(|| address.to_string()),
        trusted: worker.trust().believes(client.peer()),
        secure: client.is_secure(),
        framing: fields.framing(request.version, is_empty),
        fields,
    };
    let visitor = Visitor { address, is_secure: asked.secure, trusted: asked.trusted, guard: client.guard() };
    let mut hold = Hold::new();
    let mut is_admitted = false;
    let mut cleared = Cleared::default();
    // Of a request that waited for its body or its turn, the last time that it was sent.
    let mut sent_at = began;
    let (service, claim, sent, cookies) = loop {
        let way = route(worker, request, &asked.authority, &visitor, &cleared)?;
        let Routed { service, claim, target, visit, look } = match way {
            Way::Open(routed) => routed,
            // Boxed, here and below, so that the usual request need not make room for the unusual.
            way => match Box::pin(aside::go(worker, &asked, address, way, &mut cleared, record)).await? {
                Some(answer) => return Ok(answer),
                None => {
                    sent_at = clock::now();
                    continue;
                }
            },
        };
        if look != Look::Live {
            asked.request = seen.get_or_init(|| Box::new(preview::without_cookie(request, &service.name)));
        }
        client.is_sent_to(claim.run().id());
        if let Some(record) = record {
            record.is_sent_to(&service, claim.run().slot());
        }
        let admitted = if is_admitted { Ok(()) } else { admit(&service, address, began) };
        is_admitted = true;
        if let Err(error) = admitted.and_then(|()| limit(&service, body.as_mut())) {
            return Err(refuse(service, &claim, began, error));
        }
        let is_buffered = service.options.buffer_requests && !fields.is_grpc;
        if let Some(unread) = body.take_if(|body| is_buffered && !body.is_whole()) {
            // A slow upload keeps no version from draining: the claim is taken when there is something to send.
            drop(claim);
            let spool = Spool::new(BUFFERED_BYTES, worker.shared.spool.clone());
            match Box::pin(unread.spool(spool)).await {
                Ok(whole) => *body = Some(whole),
                // It is counted where it would have gone.
                Err(error) => {
                    return Err(match route(worker, request, &asked.authority, &visitor, &cleared)? {
                        Way::Open(Routed { service, claim, .. }) => refuse(service, &claim, began, error.into()),
                        _ => Error::from(error).into(),
                    });
                }
            }
            sent_at = clock::now();
            continue;
        }
        let canary = service.canary.as_ref().filter(|_| visit.as_ref().is_some_and(|v| v.is_canary));
        let (live, back) = match (service.preview.as_ref().filter(|_| look == Look::Idle), canary) {
            (Some(preview), _) => (&preview.target, None),
            (None, Some(canary)) => (&canary.target, service.live.as_ref()),
            (None, None) => (service.live.as_ref().ok_or(Error::NoVersion)?, service.back.as_ref()),
        };
        let is_sticky = service.options.sticky && live.endpoints.len() > 1;
        let wanted = is_sticky.then(|| sticky::wanted(&request.headers, &service.name, live)).flatten();
        let kept = match back {
            Some(_) => match Box::pin(replay::keep(body, &request.method)).await {
                Ok(kept) => kept,
                Err(error) => return Err(refuse(service, &claim, began, error)),
            },
            None => None,
        };
        let goes = Goes { target: &target, address, slot: claim.run().slot(), user: cleared.user() };
        let mut outbound = asked.outbound(worker, &service, &goes, body.take(), wanted);
        let mut failure = match forward::send(worker, live, &service.options, &claim, &mut outbound).await {
            Ok(sent) => {
                let is_new = is_sticky && wanted != Some(sent.place);
                let cookie = is_new.then(|| sticky::set_cookie(&service.name, &live.endpoints[sent.place]));
                let cookies = [cookie, visit.and_then(|visit| visit.set_cookie)];
                let may_be_elsewhere = service.options.old_assets.is_some()
                    && look == Look::Live
                    && other_slot::may_have(&service, &request.method, request.uri.path(), !is_empty, sent.status);
                if may_be_elsewhere && let Some(other) = other_slot::find(&service, claim.run().slot(), worker) {
                    let (slot, run) = (other.1.run().slot(), other.1.run().id());
                    let again = asked.outbound(worker, &service, &Goes { slot, ..goes }, None, None);
                    if let Some((other, old)) = Box::pin(other_slot::ask(worker, &service, other, again)).await {
                        client.is_sent_to(run);
                        if let Some(record) = record {
                            record.is_sent_to(&service, slot);
                        }
                        break (service, other, old, cookies);
                    }
                }
                break (service, claim, sent, cookies);
            }
            Err(failure) => failure,
        };
        *body = outbound.content.body;
        if let Some(back) = back.filter(|_| failure.error.side() == Side::Upstream) {
            worker.suspect(claim.run());
            let may_go = replay::may_go(failure.reached, &request.method, is_empty, kept.is_some());
            // The proxy may have flipped back meanwhile, and of a canary it is the live slot: then as any other request.
            let again = || back.run.claim_replay(worker.index).or_else(|| back.run.claim(worker.index));
            if let Some(replay) = may_go.then(again).flatten() {
                *body = kept.map(RequestBody::whole).or(body.take());
                claim.tally(Tally::Retried);
                if let Some(record) = record {
                    record.is_sent_to(&service, replay.run().slot());
                }
                let user = cleared.user();
                let goes = Goes { target: &target, address, slot: replay.run().slot(), user };
                let again = asked.outbound(worker, &service, &goes, body.take(), None);
                match Box::pin(replay::send(worker, back, &service, replay, again)).await {
                    Ok((replay, sent)) => break (service, replay, sent, [None, None]),
                    Err(second) => (failure.reached, *body) = (second.reached, second.body),
                }
            }
        }
        let Failure { error, reached } = failure;
        if !(reached == Reached::Nothing && hold.is_allowed(&service, live)) {
            claim.tally(match error {
                Error::CutOff => Tally::Cut,
                // The client broke its own request off.
                _ if error.side() == Side::Client => Tally::Answered,
                _ => Tally::Failed,
            });
            return Err(refuse(service, &claim, began, error));
        }
        hold.wait(claim).await;
        sent_at = clock::now();
    };
    let Sent { status, mut headers, mut answering, .. } = sent;
    // Unasked, a switch of protocols is no answer; asked for on a stream, anything else that looks like success is taken for
    // the open tunnel by its client.
    let is_switch = status == StatusCode::SWITCHING_PROTOCOLS;
    if is_switch && !fields.asks_for_websocket || !is_switch && upgrade.is_some() && status.is_success() {
        claim.tally(Tally::Failed);
        let wrong = if is_switch { "it switches protocols unasked" } else { "it does not open the WebSocket" };
        return Err(refuse(service, &claim, began, Error::Malformed(wrong)));
    }
    if let Some(edge) = service.edge.as_ref().filter(|_| !is_switch) {
        let user = cleared.user();
        edge.answer(&mut headers, &Seen { slot: Some(claim.run().slot()), user, ..asked.seen(&service, address) });
    }
    for cookie in cookies.into_iter().flatten() {
        headers.append(header::SET_COOKIE, cookie);
    }
    if seen.get().is_some() {
        // No cache on the way may take it for what everybody sees.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Some(hsts) = service.secure.as_ref().filter(|_| asked.secure).and_then(|secure| secure.hsts.as_ref()) {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    claim.tally(Tally::Answered);
    let meter =
        Meter { began, upstream: Some(clock::now().duration_since(sent_at)), status: status.as_u16(), bytes: 0 };
    if is_switch && let Some(connection) = answering.take_connection() {
        claim.end(meter.ended());
        let (stream, read) = connection.into_parts();
        let status =
            open_tunnel(client, upgrade.take(), &mut headers, Tunnel { stream, read, claim, passed: cleared.passed });
        return Ok(headers::prepare(status, headers, request_id, AnswerBody::bytes("")));
    }
    let events = EventStream::of(&headers);
    if events.is_some() {
        client.is_sent_to(claim.run().id().long());
    }
    let coding = service.options.compress.as_ref().and_then(|rules| {
        compress::apply(rules, (&request.method, &request.headers), status, &mut headers, &worker.compressing)
    });
    let body = AnswerBody::upstream(answering, claim, meter, events).let_in(cleared.passed);
    let body = if let Some(coding) = coding { body.compressed(coding) } else { body };
    Ok(headers::prepare(status, headers, request_id, body))
}

/// Counts a request into the rate of its client's address.
fn admit(service: &Service, address: IpAddr, began: Instant) -> Result<(), Error> {
    let Some(rate) = service.rate() else { return Ok(()) };
    service.rates.admit(address, rate, began).map_err(|wait| Error::TooManyRequests { wait })
}

/// Lets a body be no longer than the service takes.
fn limit(service: &Service, body: Option<&mut RequestBody>) -> Result<(), Error> {
    let (Some(body), Some(most)) = (body, service.options.request_bytes) else { return Ok(()) };
    if body.limit(most) { Ok(()) } else { Err(Error::BodyOverLimit) }
}

/// Counts a request that we answer ourselves.
fn refuse(service: Arc<Service>, claim: &Claim, began: Instant, error: Error) -> Refusal {
    claim.end(Meter { began, upstream: None, status: error.status().as_u16(), bytes: 0 }.ended());
    Refusal { error, service: Some(service), is_counted: true }
}

/// Leaves the application's end of a WebSocket to what carries it, and returns the status that tells the client so.
fn open_tunnel(client: &Rc<Client>, upgrade: Option<OnUpgrade>, headers: &mut HeaderMap, tunnel: Tunnel) -> StatusCode {
    match upgrade {
        Some(upgrade) => {
            tokio::task::spawn_local(upgrade::run_stream(upgrade, tunnel, Rc::clone(client)));
            headers::without_handshake(headers);
            StatusCode::OK
        }
        None => {
            client.leave_tunnel(tunnel);
            StatusCode::SWITCHING_PROTOCOLS
        }
    }
}

/// The client's own id for the request, else one of ours.
fn request_id(worker: &Worker, fields: &Fields<'_>) -> HeaderValue {
    match fields.request_id {
        Some(id) if !id.is_empty() && id.len() <= 128 => id.clone(),
        _ => worker.request_id(),
    }
}
