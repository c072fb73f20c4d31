//! The life of one request, step by step: connection -> **handler** -> forward. Each step is one call.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use config::options::Protocol;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

use crate::answer::{AnswerBody, Meter};
use crate::client::{Client, Serving};
use crate::clock;
use crate::error::{Error, Side};
use crate::event_stream::EventStream;
use crate::forward::{self, Content, Failure, Head, Reached, Request as Forward, Sent};
use crate::headers::{self, Authority, Fields, Forwarded, RequestHead};
use crate::hold::Hold;
use crate::respond;
use crate::routing::canary::Visit;
use crate::routing::closed::{Closed, Gate};
use crate::routing::preview::{self, Entry, Look};
use crate::routing::table::{Matched, Service, escapes};
use crate::telemetry::record::Record;
use crate::upstream::exchange::RequestFraming;
use crate::upstream::request_body::RequestBody;
use crate::upstream::run::{Claim, Tally};
use crate::upstream::spool::Spool;
use crate::upstream::tunnel::Tunnel;
use crate::worker::Worker;
use crate::{replay, sticky, upgrade};

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
        Err(Refusal { error, service }) => {
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
    let mut hold = Hold::new();
    let mut is_admitted = false;
    // Of a request that waited for its body or its turn, the last time that it was sent.
    let mut sent_at = began;
    let (service, claim, sent, cookies) = loop {
        let Routed { service, claim, target, visit, look } = match route(worker, request, &asked.authority, address)? {
            Way::Open(routed) => routed,
            Way::Closed(service, gate) => {
                if let Some(live) = &service.live {
                    live.run.tally(worker.index, Tally::Held);
                }
                if !Box::pin(gate.pass()).await {
                    return Err(Refusal { error: Error::Paused, service: Some(service) });
                }
                sent_at = clock::now();
                continue;
            }
            Way::Healthy => return Ok(respond::healthy(request_id)),
            Way::Enter(entry) => return Ok(respond::entered(*entry, request_id)),
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
                    return Err(match route(worker, request, &asked.authority, address)? {
                        Way::Open(Routed { service, claim, .. }) => refuse(service, &claim, began, error.into()),
                        Way::Closed(..) | Way::Healthy | Way::Enter(_) => Error::from(error).into(),
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
        let mut outbound = asked.outbound(worker, &service, &target, body.take(), wanted);
        let mut failure = match forward::send(worker, live, &service.options, &claim, &mut outbound).await {
            Ok(sent) => {
                let is_new = is_sticky && wanted != Some(sent.place);
                let cookie = is_new.then(|| sticky::set_cookie(&service.name, &live.endpoints[sent.place]));
                break (service, claim, sent, [cookie, visit.and_then(|visit| visit.set_cookie)]);
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
                let mut again = asked.outbound(worker, &service, &target, body.take(), None);
                match Box::pin(forward::send(worker, back, &service.options, &replay, &mut again)).await {
                    Ok(sent) => break (service, replay, sent, [None, None]),
                    Err(second) => failure.reached = second.reached,
                }
                *body = again.content.body;
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
    for cookie in cookies.into_iter().flatten() {
        headers.append(header::SET_COOKIE, cookie);
    }
    if seen.get().is_some() {
        // No cache on the way may take it for what everybody sees.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    claim.tally(Tally::Answered);
    let meter =
        Meter { began, upstream: Some(clock::now().duration_since(sent_at)), status: status.as_u16(), bytes: 0 };
    if is_switch && let Some(connection) = answering.take_connection() {
        claim.end(meter.ended());
        let (stream, read) = connection.into_parts();
        let status = open_tunnel(client, upgrade.take(), &mut headers, Tunnel { stream, read, claim });
        return Ok(headers::prepare(status, headers, request_id, AnswerBody::bytes("")));
    }
    let events = EventStream::of(&headers);
    if events.is_some() {
        client.is_sent_to(claim.run().id().long());
    }
    let body = AnswerBody::upstream(answering, claim, meter, events);
    Ok(headers::prepare(status, headers, request_id, body))
}

/// What a request asks, whichever version of the service it is sent to.
struct Asked<'r> {
    request: &'r Parts,
    fields: &'r Fields<'r>,
    request_id: &'r HeaderValue,
    authority: Authority<'r>,
    peer: Rc<str>,
    /// The client behind the peer, where there is one that is to be believed.
    behind: Option<String>,
    trusted: bool,
    secure: bool,
    framing: RequestFraming,
}

impl Asked<'_> {
    /// Returns the request as the application gets it.
    fn outbound(
        &self,
        worker: &Worker,
        service: &Service,
        target: &str,
        body: Option<RequestBody>,
        wanted: Option<usize>,
    ) -> Forward {
        let length = body.as_ref().filter(|body| body.is_whole()).map(|body| body.size_hint().lower());
        let framing = if length.is_some() { RequestFraming::Length } else { self.framing };
        let websocket = self.fields.asks_for_websocket;
        let is_http2 = !websocket && (service.options.protocol == Protocol::H2c || self.fields.is_grpc);
        let expects_continue = self.fields.expects_continue && length.is_none() && !is_http2;
        let head = RequestHead {
            request: self.request,
            fields: self.fields,
            authority: &self.authority,
            target,
            framing,
            length,
            websocket,
            expects_continue,
            forwarded: Forwarded {
                peer: &self.peer,
                client: self.behind.as_deref().unwrap_or(&self.peer),
                trusted: self.trusted,
                secure: self.secure,
                request_id: self.request_id,
            },
        };
        let head = if is_http2 {
            Head::Http2(head.http2())
        } else {
            Head::Http1(worker.scratch.bytes(|out| head.encode(out)))
        };
        let content = Content { method: self.request.method.clone(), body, framing, expects_continue };
        Forward { head, content, wanted }
    }
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
    Refusal { error, service: Some(service) }
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

/// A request's way, and its place on the run.
struct Routed<'r> {
    service: Arc<Service>,
    claim: Claim,
    target: Cow<'r, str>,
    /// Where a share of the visitors is on another slot.
    visit: Option<Visit>,
    /// Where it is shown to whoever has a link.
    look: Look,
}

/// Where a request goes from here.
enum Way<'r> {
    /// To the live version.
    Open(Routed<'r>),
    /// Nowhere until the gate opens.
    Closed(Arc<Service>, Arc<Gate>),
    /// It is a health check of a service that is closed on purpose.
    Healthy,
    /// To the version that waits for its flip, with the next request.
    Enter(Box<Entry>),
}

/// Looks the service up and claims a place on its live run: load, claim, and where the run drains load again.
fn route<'r>(
    worker: &Worker,
    request: &'r Parts,
    authority: &Authority<'_>,
    client: IpAddr,
) -> Result<Way<'r>, Refusal> {
    let path = request.uri.path();
    loop {
        let table = worker.table();
        let Some(Matched { service, prefix }) = table.find(&authority.host, path) else {
            return Err(if table.state_lost() { Error::NoVersion.into() } else { Error::NoRoute.into() });
        };
        let refused = |error| Refusal { error, service: Some(Arc::clone(service)) };
        if escapes(path, prefix) {
            return Err(refused(Error::BadRequest("the path's dot segments lead out of its route")));
        }
        if let Some(closed) = &service.closed
            && let Some(way) = closed_way(service, closed, request, client)?
        {
            return Ok(way);
        }
        let live = service.live.as_ref().ok_or_else(|| refused(Error::NoVersion))?;
        let look = match service.preview.as_ref().map(|preview| preview.look(&service.name, request)) {
            Some(Look::Enter(entry)) => return Ok(Way::Enter(entry)),
            Some(Look::Refused) => return Err(refused(Error::BadRequest("this link to a preview holds no more"))),
            look => look.unwrap_or(Look::Live),
        };
        let shown = service.preview.as_ref().filter(|_| look == Look::Idle);
        let id = || String::from_utf8_lossy(worker.request_id().as_bytes()).into_owned();
        let visit = service
            .canary
            .as_ref()
            .filter(|_| shown.is_none())
            .map(|canary| canary.visit(&service.name, &request.headers, id));
        let to = match (shown, &service.canary, &visit) {
            (Some(preview), _, _) => &preview.target,
            (None, Some(canary), Some(Visit { is_canary: true, .. })) => &canary.target,
            _ => live,
        };
        if let Some(claim) = to.run.claim(worker.index) {
            let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            let target = if service.strip_path { strip(target, prefix.trimmed()) } else { Cow::Borrowed(target) };
            return Ok(Way::Open(Routed { service: Arc::clone(service), claim, target, visit, look }));
        }
    }
}

/// Returns the way of a request to a service that is closed on purpose; `None`: it is served all the same.
fn closed_way(
    service: &Arc<Service>,
    closed: &Closed,
    request: &Parts,
    client: IpAddr,
) -> Result<Option<Way<'static>>, Refusal> {
    let maintenance = closed.maintenance.as_ref();
    let maintenance = maintenance.filter(|page| !page.lets_in(&service.name, client, &request.headers));
    if maintenance.is_none() && closed.gate.is_none() {
        return Ok(None);
    }
    if closed.health_path.as_deref() == Some(request.uri.path()) {
        return Ok(Some(Way::Healthy));
    }
    match (maintenance, &closed.gate) {
        (Some(page), _) => {
            let error = Error::Maintenance(Arc::clone(&page.message));
            Err(Refusal { error, service: Some(Arc::clone(service)) })
        }
        (None, gate) => Ok(gate.as_ref().map(|gate| Way::Closed(Arc::clone(service), Arc::clone(gate)))),
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
fn request_id(worker: &Worker, fields: &Fields<'_>) -> HeaderValue {
    match fields.request_id {
        Some(id) if !id.is_empty() && id.len() <= 128 => id.clone(),
        _ => worker.request_id(),
    }
}
