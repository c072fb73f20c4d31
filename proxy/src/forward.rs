//! Sends a claimed request to an endpoint of its run and waits for the head of the answer: handler -> **forward** -> upstream.
//!
//! The retry rule (RFC 9110 section 9.2.2): a request goes out a second time, and no third, where its connection broke before
//! a byte of an answer, and either nothing of it was written or its method may be repeated and its body was not begun. The
//! connection must have been used before, or there be another endpoint: else the application itself fails on the request.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use config::options::ServiceOptions;
use http::{Method, StatusCode};
use tokio::sync::oneshot;

use crate::error::{Error, Side};
use crate::routing::table::{Endpoint, Target};
use crate::upstream::balance::Busy;
use crate::upstream::codec::ResponseHead;
use crate::upstream::connection::Connection;
use crate::upstream::exchange::{Exchange, Failed, Outbound, RequestFraming, Untouched};
use crate::upstream::pool::Key;
use crate::upstream::request_body::RequestBody;
use crate::upstream::run::{Claim, Tally};
use crate::worker::{Resolve, Worker};

/// A body without a length is kept up to this for an HTTP/1.0 application.
const COLLECTED_BYTES: usize = 1024 * 1024;

/// A request, ready to be sent.
pub(crate) struct Request {
    /// Its method.
    pub(crate) method: Method,
    /// Its encoded head.
    pub(crate) head: Bytes,
    /// Its body.
    pub(crate) body: Option<RequestBody>,
    /// How that is framed.
    pub(crate) framing: RequestFraming,
    /// Whether the client waits for `100 Continue`.
    pub(crate) expects_continue: bool,
    /// The endpoint that the visitor was with, by its place in the target.
    pub(crate) wanted: Option<usize>,
}

/// A request that was answered.
pub(crate) struct Sent {
    /// The head of the answer.
    pub(crate) head: ResponseHead,
    /// Where its body comes from.
    pub(crate) exchange: Exchange,
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

/// Sends a request and returns the head of the answer, with the exchange that its body comes from.
///
/// # Errors
/// Where no answer came: see [`Error`]; with the request where nothing of it was sent and it could not be connected.
///
/// # Cancel safety
/// Dropping it closes the upstream connection: the application learns that the client has gone.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    target: &Target,
    options: &ServiceOptions,
    claim: &Claim,
    mut request: Request,
) -> Result<Sent, Failure> {
    let mut reuse = Reuse::Allowed;
    let limits = worker.exchange_limits(options);
    loop {
        let way = Way { target, claim, timeout: limits.connect, wanted: request.wanted };
        let Connected { connection, key, place, busy } = match connect(worker, way, reuse).await {
            Ok(connected) => connected,
            Err(error) => return Err(Failure { error, unsent: Some(request.body) }),
        };
        if request.framing == RequestFraming::Chunked && worker.pool.speaks_http10(key) {
            give_length(&mut request).await.map_err(Failure::from)?;
        }
        let outbound = Outbound {
            method: request.method.clone(),
            head: request.head.clone(),
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
            Ok(head) => {
                judge(worker, target, claim, place, is_gateway_failure(head.status));
                return Ok(Sent { head, exchange, place });
            }
            Err(error) => error,
        };
        judge(worker, target, claim, place, error.side() == Side::Upstream);
        match exchange.into_failed(error) {
            Failed { broke_silently: true, reused, body: Untouched::Yes(body), unwritten, .. }
                if reuse == Reuse::Allowed
                    && (reused || target.endpoints.len() > 1)
                    && (unwritten || request.method.is_idempotent()) =>
            {
                claim.tally(Tally::Retried);
                request.body = body;
                reuse = Reuse::Fresh;
            }
            Failed { error, .. } => return Err(error.into()),
        }
    }
}

/// Tells whether an application says that it can't serve: itself, or for one behind it.
fn is_gateway_failure(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Notes how an endpoint that has company did.
fn judge(worker: &Worker, target: &Target, claim: &Claim, place: usize, failed: bool) {
    if target.endpoints.len() > 1 && worker.balance.judge(target.run.id(), place, failed) {
        claim.tally(Tally::Ejected);
    }
}

/// Collects a body that came without a length, for an application that knows no chunked coding.
async fn give_length(request: &mut Request) -> Result<(), Error> {
    let Some(body) = request.body.take() else { return Ok(()) };
    let body = body.collect(COLLECTED_BYTES).await?;
    // With the line before it: a client's own field may end in the same words.
    let chunked = b"\r\ntransfer-encoding: chunked\r\n";
    let at = request.head.windows(chunked.len()).position(|bytes| bytes == chunked);
    let at = at.expect("the head of a chunked request says so");
    let length = format!("\r\ncontent-length: {}\r\n", body.len());
    request.head = [&request.head[..at], length.as_bytes(), &request.head[at + chunked.len()..]].concat().into();
    request.framing = RequestFraming::Length;
    request.expects_continue = false;
    request.body = Some(body.into());
    Ok(())
}

/// Whether an idle connection will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Allowed,
    Fresh,
}

/// Where a request may go.
#[derive(Clone, Copy)]
struct Way<'w> {
    target: &'w Target,
    claim: &'w Claim,
    /// For connecting.
    timeout: Duration,
    /// The endpoint to try first.
    wanted: Option<usize>,
}

/// A connection to an endpoint of a run.
struct Connected {
    connection: Box<Connection>,
    key: Key,
    /// The endpoint's.
    place: usize,
    /// Where the endpoint has company.
    busy: Option<Busy>,
}

/// Returns a connection to an endpoint of the run: the first that takes one, in the order of
/// [`Balance::order`](crate::upstream::balance::Balance::order).
async fn connect(worker: &Worker, way: Way<'_>, reuse: Reuse) -> Result<Connected, Error> {
    let target = way.target;
    if let [endpoint] = &target.endpoints[..] {
        let (connection, key) = connect_endpoint(worker, way, endpoint, reuse).await?;
        return Ok(Connected { connection, key, place: 0, busy: None });
    }
    let run = target.run.id();
    let healthy: Vec<bool> = target.endpoints.iter().map(|endpoint| endpoint.healthy).collect();
    let mut failure = None;
    for place in worker.balance.order(run, &healthy, worker.turn(), way.wanted) {
        // Counted while it connects too: a slow connect is the first sign of trouble.
        let busy = worker.balance.busy(run, place);
        match connect_endpoint(worker, way, &target.endpoints[place], reuse).await {
            Ok((connection, key)) => return Ok(Connected { connection, key, place, busy: Some(busy) }),
            Err(error) => {
                worker.balance.eject(run, place);
                way.claim.tally(Tally::Ejected);
                failure = Some(error);
            }
        }
    }
    Err(failure.unwrap_or(Error::NoVersion))
}

async fn connect_endpoint(
    worker: &Worker,
    way: Way<'_>,
    endpoint: &Endpoint,
    reuse: Reuse,
) -> Result<(Box<Connection>, Key), Error> {
    let (run, timeout) = (way.target.run.id(), way.timeout);
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in &endpoint.addresses {
        let key = (run, *address);
        if reuse == Reuse::Allowed
            && let Some(connection) = worker.pool.take(key)
        {
            return Ok((connection, key));
        }
        match Connection::open(*address, timeout).await {
            Ok(connection) => return Ok((connection, key)),
            Err(error) => failure = error,
        }
    }
    // The container may have been started again with another address: ask once, and try what is new.
    let (reply, answer) = oneshot::channel();
    let asked = worker.shared.resolver.send(Resolve { run, endpoint: endpoint.address.clone(), reply });
    if asked.is_ok() && endpoint.address.literal().is_none() {
        for address in answer.await.unwrap_or_default() {
            if endpoint.addresses.contains(&address) {
                continue;
            }
            match Connection::open(address, timeout).await {
                Ok(connection) => return Ok((connection, (run, address))),
                Err(error) => failure = error,
            }
        }
    }
    Err(Error::Connect { address: endpoint.address.to_string(), source: failure })
}
