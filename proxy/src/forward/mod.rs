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
use crate::upstream::exchange::{Exchange, Failed, Outbound, RequestFraming, Untouched};
use crate::upstream::http2::{self, Link, Patience, Unanswered};
use crate::upstream::request_body::RequestBody;
use crate::upstream::run::{Claim, Tally};
use crate::upstream::spool::Spool;
use crate::worker::Worker;

/// A body without a length is kept in memory up to this for an HTTP/1.0 application, and on disk beyond.
const KEPT_BYTES: usize = 1024 * 1024;

/// A request, ready to be sent.
pub(crate) struct Request {
    /// Its head.
    pub(crate) head: Head,
    /// All else.
    pub(crate) content: Content,
    /// The endpoint that the visitor was with, by its place in the target.
    pub(crate) wanted: Option<usize>,
}

/// What a request is besides its head.
pub(crate) struct Content {
    /// Its method.
    pub(crate) method: Method,
    /// Its body.
    pub(crate) body: Option<RequestBody>,
    /// How that is framed.
    pub(crate) framing: RequestFraming,
    /// Whether the client waits for `100 Continue`.
    pub(crate) expects_continue: bool,
}

/// The head of a request, in the version of HTTP that the application speaks.
pub(crate) enum Head {
    /// Encoded.
    Http1(Bytes),
    /// In its parts.
    Http2(Box<Http2Head>),
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
    /// How far it got.
    pub(crate) reached: Reached,
}

/// How far a request got that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// Nothing was sent, and the request still has its body: it may be tried again.
    Nothing,
    /// Not one byte of an answer came. It may be tried again where its method may be repeated and its body was kept.
    Silence,
    /// Some of an answer came, or the time for one was over.
    Answer,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, reached: Reached::Answer }
    }
}

/// Sends a request, whose body it takes, and returns the head of the answer with what its body comes from.
///
/// # Errors
/// Where no answer came: see [`Error`].
///
/// # Cancel safety
/// Dropping it closes the upstream connection, or resets the stream: the application learns that the client has gone.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    target: &Target,
    options: &ServiceOptions,
    claim: &Claim,
    request: &mut Request,
) -> Result<Sent, Failure> {
    let mut way = Way { target, claim, options, wanted: request.wanted, failed: None, reuse: Reuse::Allowed };
    match &mut request.head {
        Head::Http1(head) => send_http1(worker, &mut way, head, &mut request.content).await,
        // Boxed, here and below, so that the usual request need not make room for the unusual.
        Head::Http2(head) => Box::pin(send_http2(worker, &mut way, head, &mut request.content)).await,
    }
}

async fn send_http1(
    worker: &Rc<Worker>,
    way: &mut Way<'_>,
    head: &mut Bytes,
    request: &mut Content,
) -> Result<Sent, Failure> {
    loop {
        let Connected { connection, key, place, busy } = match connect::<Box<Connection>>(worker, way).await {
            Ok(connected) => connected,
            Err(error) => return Err(Failure { error, reached: Reached::Nothing }),
        };
        if request.framing == RequestFraming::Chunked && worker.pool.speaks_http10(&key) {
            Box::pin(give_length(worker, head, request)).await?;
        }
        let outbound = Outbound {
            method: request.method.clone(),
            head: head.clone(),
            body: request.body.take(),
            framing: request.framing,
            expects_continue: request.expects_continue,
            busy,
        };
        let limits = worker.exchange_limits(way.options);
        let mut exchange = Box::new(Exchange::new(connection, (Rc::clone(&worker.pool), key), limits, outbound));
        let outcome = poll_fn(|cx| match exchange.poll_head(cx, &worker.scratch) {
            Poll::Pending if way.claim.is_cut_off() => Poll::Ready(Err(Error::CutOff)),
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
                    && (reused || way.target.endpoints.len() > 1)
                    && (unwritten || request.method.is_idempotent()) =>
            {
                way.claim.tally(Tally::Retried);
                request.body = body;
                way.reuse = Reuse::Fresh;
                way.failed = Some(place);
            }
            Failed { error, broke_silently: true, body, unwritten, .. } => {
                let reached = match body {
                    Untouched::Yes(body) if unwritten => {
                        request.body = body;
                        Reached::Nothing
                    }
                    _ => Reached::Silence,
                };
                return Err(Failure { error, reached });
            }
            Failed { error, .. } => return Err(error.into()),
        }
    }
}

async fn send_http2(
    worker: &Rc<Worker>,
    way: &mut Way<'_>,
    head: &Http2Head,
    request: &mut Content,
) -> Result<Sent, Failure> {
    let limits = worker.exchange_limits(way.options);
    let patience = Patience { response: limits.response, body_idle: limits.body_idle };
    loop {
        let Connected { connection: link, place, busy, .. } = match connect::<Link>(worker, way).await {
            Ok(connected) => connected,
            Err(error) => return Err(Failure { error, reached: Reached::Nothing }),
        };
        let is_second_chance = link.reused || way.target.endpoints.len() > 1;
        let had_body = request.body.is_some();
        let outbound = head.request(request.body.take());
        let Unanswered { error, unsent } = match http2::send(link, outbound, way.claim, patience, busy).await {
            Ok((status, headers, answer)) => {
                judge(worker, way, place, is_gateway_failure(status));
                return Ok(Sent { status, headers, answering: Answering::Http2(Box::new(answer)), place });
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
                way.failed = Some(place);
            }
            Some(body) => {
                request.body = body;
                return Err(Failure { error, reached: Reached::Nothing });
            }
            None if matches!(error, Error::Broken(_)) => return Err(Failure { error, reached: Reached::Silence }),
            None => return Err(error.into()),
        }
    }
}

/// Tells whether an application says that it can't serve: itself, or for one behind it.
fn is_gateway_failure(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Notes how an endpoint that has company did.
fn judge(worker: &Worker, way: &Way<'_>, place: usize, failed: bool) {
    if way.target.endpoints.len() > 1 && worker.balance.judge(way.target.run.id(), place, failed) {
        way.claim.tally(Tally::Ejected);
    }
}

/// Collects a body that came without a length, for an application that knows no chunked coding, and tells its length in the
/// head.
async fn give_length(worker: &Worker, head: &mut Bytes, request: &mut Content) -> Result<(), Error> {
    let Some(body) = request.body.take() else { return Ok(()) };
    let body = body.spool(Spool::new(KEPT_BYTES, worker.shared.spool.clone())).await?;
    // With the line before it: a client's own field may end in the same words.
    let chunked = b"\r\ntransfer-encoding: chunked\r\n";
    let at = head.windows(chunked.len()).position(|bytes| bytes == chunked);
    let at = at.expect("the head of a chunked request says so");
    let length = format!("\r\ncontent-length: {}\r\n", body.size_hint().lower());
    *head = [&head[..at], length.as_bytes(), &head[at + chunked.len()..]].concat().into();
    request.framing = RequestFraming::Length;
    request.expects_continue = false;
    request.body = Some(body);
    Ok(())
}
