//! Sends a claimed request to an endpoint of its run and waits for the head of the answer: handler -> **forward** -> upstream.
//!
//! The retry rule (RFC 9110 section 9.2.2): a request goes out a second time, and no third, where its connection broke before
//! a byte of an answer, and either nothing of it was written or its method may be repeated and its body was not begun. The
//! connection must have been used before, or there be another endpoint: else the application itself fails on the request.

mod connect;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use config::options::ServiceOptions;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body as _;

use self::connect::{Connected, Reuse, Way, connect};
use crate::error::{Error, Side};
use crate::headers::Http2Head;
use crate::routing::table::Target;
use crate::upstream::answering::Answering;
use crate::upstream::codec::ResponseHead;
use crate::upstream::connection::Connection;
use crate::upstream::exchange::{Exchange, ExchangeLimits, Failed, Outbound, RequestFraming, Untouched};
use crate::upstream::http2::{self, Link, Patience, Unanswered};
use crate::upstream::request_body::RequestBody;
use crate::upstream::run::{Claim, Tally};
use crate::upstream::spool::Spool;
use crate::worker::Worker;

/// A body without a length is kept in memory up to this for an HTTP/1.0 application, and on disk beyond.
const KEPT_BYTES: usize = 1024 * 1024;

/// A request, ready to be sent.
pub(crate) struct Request {
    /// Its method.
    pub(crate) method: Method,
    /// Its head.
    pub(crate) head: Head,
    /// Its body.
    pub(crate) body: Option<RequestBody>,
    /// How that is framed.
    pub(crate) framing: RequestFraming,
    /// Whether the client waits for `100 Continue`.
    pub(crate) expects_continue: bool,
    /// The endpoint that the visitor was with, by its place in the target.
    pub(crate) wanted: Option<usize>,
}

/// The head of a request, in the version of HTTP that the application speaks.
pub(crate) enum Head {
    /// Encoded.
    Http1(Bytes),
    /// In its parts.
    Http2(Http2Head),
}

/// A request that was answered.
pub(crate) struct Sent {
    /// The status of the answer.
    pub(crate) status: StatusCode,
    /// Its fields.
    pub(crate) headers: HeaderMap,
    /// Where its body comes from.
    pub(crate) answering: Answering,
    /// The endpoint that answers, by its place in the target.
    pub(crate) place: usize,
}

/// Why there is no answer.
pub(crate) struct Failure {
    /// Why.
    pub(crate) error: Error,
    /// The body, where there is one, of a request of which nothing was sent: it may be tried again.
    pub(crate) unsent: Option<Option<RequestBody>>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, unsent: None }
    }
}

/// Sends a request and returns the head of the answer, with what its body comes from.
///
/// # Errors
/// Where no answer came: see [`Error`]; with the request where nothing of it was sent and it could not be connected.
///
/// # Cancel safety
/// Dropping it closes the upstream connection, or resets the stream: the application learns that the client has gone.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    target: &Target,
    options: &ServiceOptions,
    claim: &Claim,
    request: Request,
) -> Result<Sent, Failure> {
    let limits = worker.exchange_limits(options);
    let way = Way { target, claim, timeout: limits.connect, wanted: request.wanted, reuse: Reuse::Allowed };
    match request.head {
        Head::Http1(ref head) => {
            let head = head.clone();
            send_http1(worker, way, limits, request, head).await
        }
        Head::Http2(ref head) => {
            let head = head.clone();
            // Boxed, here and below, so that the usual request need not make room for the unusual.
            Box::pin(send_http2(worker, way, limits, request, head)).await
        }
    }
}

async fn send_http1(
    worker: &Rc<Worker>,
    mut way: Way<'_>,
    limits: ExchangeLimits,
    mut request: Request,
    mut head: Bytes,
) -> Result<Sent, Failure> {
    let Way { target, claim, .. } = way;
    loop {
        let Connected { connection, key, place, busy } = match connect::<Box<Connection>>(worker, way).await {
            Ok(connected) => connected,
            Err(error) => return Err(Failure { error, unsent: Some(request.body) }),
        };
        if request.framing == RequestFraming::Chunked && worker.pool.speaks_http10(&key) {
            head = Box::pin(give_length(worker, &mut request, &head)).await?;
        }
        let outbound = Outbound {
            method: request.method.clone(),
            head: head.clone(),
            body: request.body.take(),
            framing: request.framing,
            expects_continue: request.expects_continue,
            busy,
        };
        let mut exchange = Exchange::new(connection, (Rc::clone(&worker.pool), key), limits, outbound);
        let outcome = poll_fn(|cx| match exchange.poll_head(cx) {
            Poll::Pending if claim.run().is_cut_off() => Poll::Ready(Err(Error::CutOff)),
            polled => polled,
        })
        .await;
        let error = match outcome {
            Ok(ResponseHead { status, headers, .. }) => {
                judge(worker, way, place, is_gateway_failure(status));
                return Ok(Sent { status, headers, answering: Answering::Http1(exchange), place });
            }
            Err(error) => error,
        };
        judge(worker, way, place, error.side() == Side::Upstream);
        match exchange.into_failed(error) {
            Failed { broke_silently: true, reused, body: Untouched::Yes(body), unwritten, .. }
                if way.reuse == Reuse::Allowed
                    && (reused || target.endpoints.len() > 1)
                    && (unwritten || request.method.is_idempotent()) =>
            {
                claim.tally(Tally::Retried);
                request.body = body;
                way.reuse = Reuse::Fresh;
            }
            Failed { error, .. } => return Err(error.into()),
        }
    }
}

async fn send_http2(
    worker: &Rc<Worker>,
    mut way: Way<'_>,
    limits: ExchangeLimits,
    mut request: Request,
    head: Http2Head,
) -> Result<Sent, Failure> {
    let patience = Patience { response: limits.response, body_idle: limits.body_idle };
    loop {
        let Connected { connection: link, place, busy, .. } = match connect::<Link>(worker, way).await {
            Ok(connected) => connected,
            Err(error) => return Err(Failure { error, unsent: Some(request.body) }),
        };
        let is_second_chance = link.reused || way.target.endpoints.len() > 1;
        let had_body = request.body.is_some();
        let outbound = head.request(request.body.take());
        let Unanswered { error, unsent } = match http2::send(link, outbound, way.claim.run(), patience, busy).await {
            Ok((status, headers, answer)) => {
                judge(worker, way, place, is_gateway_failure(status));
                return Ok(Sent { status, headers, answering: Answering::Http2(answer), place });
            }
            Err(unanswered) => unanswered,
        };
        judge(worker, way, place, error.side() == Side::Upstream);
        let may_repeat = !had_body && request.method.is_idempotent() && matches!(error, Error::Broken(_));
        match unsent.or_else(|| may_repeat.then_some(None)) {
            Some(body) if way.reuse == Reuse::Allowed && is_second_chance => {
                way.claim.tally(Tally::Retried);
                request.body = body;
                way.reuse = Reuse::Fresh;
            }
            _ => return Err(error.into()),
        }
    }
}

/// Tells whether an application says that it can't serve: itself, or for one behind it.
fn is_gateway_failure(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Notes how an endpoint that has company did.
fn judge(worker: &Worker, way: Way<'_>, place: usize, failed: bool) {
    if way.target.endpoints.len() > 1 && worker.balance.judge(way.target.run.id(), place, failed) {
        way.claim.tally(Tally::Ejected);
    }
}

/// Collects a body that came without a length, for an application that knows no chunked coding; returns the head that tells
/// its length.
async fn give_length(worker: &Worker, request: &mut Request, head: &Bytes) -> Result<Bytes, Error> {
    let Some(body) = request.body.take() else { return Ok(head.clone()) };
    let body = body.spool(Spool::new(KEPT_BYTES, worker.shared.spool.clone())).await?;
    // With the line before it: a client's own field may end in the same words.
    let chunked = b"\r\ntransfer-encoding: chunked\r\n";
    let at = head.windows(chunked.len()).position(|bytes| bytes == chunked);
    let at = at.expect("the head of a chunked request says so");
    let length = format!("\r\ncontent-length: {}\r\n", body.size_hint().lower());
    let head = [&head[..at], length.as_bytes(), &head[at + chunked.len()..]].concat();
    request.framing = RequestFraming::Length;
    request.expects_continue = false;
    request.body = Some(body);
    Ok(head.into())
}
