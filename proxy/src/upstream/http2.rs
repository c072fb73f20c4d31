//! HTTP/2 by prior knowledge to an application: the way of gRPC, and of services that ask for it.
//!
//! Requests of one worker to one address share a connection, up to so many at once; then there is another one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep};

use super::balance::Busy;
use super::pool::Key;
use super::request_body::{BodyError, MANY_TRAILERS, RequestBody};
use super::run::{Claim, RunId};
use super::socket::Socket;
use crate::error::{Error, Side};

/// Requests of one connection at once: what servers commonly allow at the least (RFC 9113 section 6.5.2).
const STREAMS: usize = 100;
/// What an application may send of one answer, and of all, before its clients took it.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The connections of one worker.
pub(crate) struct Links {
    links: RefCell<HashMap<Key, Vec<Link>>>,
    /// One without a request for so long is closed.
    timeout: Duration,
}

/// A connection, and how many requests are on it.
#[derive(Clone)]
pub(crate) struct Link {
    sender: SendRequest<OutgoingBody>,
    streams: Rc<Cell<usize>>,
    since: Rc<Cell<Instant>>,
    /// It carried a request before: the application may just have closed it.
    pub(crate) reused: bool,
}

/// A request's place on a connection; given back when dropped.
struct Stream(Link);

impl Stream {
    fn begin(link: Link) -> Self {
        link.streams.set(link.streams.get() + 1);
        Self(link)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.since.set(Instant::now());
    }
}

impl Links {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { links: RefCell::default(), timeout }
    }

    /// Returns a connection that can carry another request.
    pub(crate) fn take(&self, key: &Key) -> Option<Link> {
        let mut links = self.links.borrow_mut();
        let links = links.get_mut(key)?;
        links.retain(|link| !link.sender.is_closed());
        let link = links.iter().find(|link| link.streams.get() < STREAMS)?;
        Some(Link { reused: true, ..link.clone() })
    }

    /// Makes a connection of a socket.
    ///
    /// # Errors
    /// Where HTTP/2 can't be begun.
    pub(crate) async fn open(&self, key: &Key, socket: Socket) -> io::Result<Link> {
        let (sender, connection) = http2::Builder::new(Local)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            // How it ends, each of its requests is told.
            _ = connection.await;
        });
        let link = Link { sender, streams: Rc::default(), since: Rc::new(Cell::new(Instant::now())), reused: false };
        self.links.borrow_mut().entry(key.clone()).or_default().push(link.clone());
        Ok(link)
    }

    /// Closes what was idle for too long, and all that is of runs that `keeps` refuses, once nothing is on it.
    pub(crate) fn sweep(&self, keeps: impl Fn(RunId) -> bool) {
        self.links.borrow_mut().retain(|(run, _), links| {
            links.retain(|link| {
                let is_busy = link.streams.get() > 0;
                !link.sender.is_closed() && (is_busy || keeps(*run) && link.since.get().elapsed() < self.timeout)
            });
            !links.is_empty()
        });
    }
}

/// Runs hyper's tasks on the thread that they are begun on.
#[derive(Clone, Copy)]
pub(crate) struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move { drop(task.await) });
    }
}

/// A request's body on its way; notes when something of it was sent.
pub(crate) struct OutgoingBody {
    body: Option<RequestBody>,
    moved: Rc<Cell<Instant>>,
}

impl Body for OutgoingBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if polled.is_ready() {
            self.moved.set(Instant::now());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// A request that got no answer.
pub(crate) struct Unanswered {
    /// Why.
    pub(crate) error: Error,
    /// The body, where it can be sent again: nothing of the request was.
    pub(crate) unsent: Option<Option<RequestBody>>,
}

/// The time-outs of an exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// From the last of the request until the head of the answer.
    pub(crate) response: Duration,
    /// Between two frames of the answer's body.
    pub(crate) body_idle: Duration,
}

/// Sends a request and waits for the head of its answer.
///
/// # Errors
/// Where none came; with the body where it can be sent again.
///
/// # Cancel safety
/// Dropping it resets the stream: the application learns that the client has gone.
pub(crate) async fn send(
    mut link: Link,
    request: Request<Option<RequestBody>>,
    claim: &Claim,
    patience: Patience,
    busy: Option<Busy>,
) -> Result<(StatusCode, HeaderMap, Answer), Unanswered> {
    let moved = Rc::new(Cell::new(Instant::now()));
    let request = request.map(|body| OutgoingBody { body, moved: Rc::clone(&moved) });
    let stream = Stream::begin(link.clone());
    let mut answer = pin!(link.sender.try_send_request(request));
    let mut timer = pin!(tokio::time::sleep(patience.response));
    let outcome = std::future::poll_fn(|cx| {
        if claim.is_cut_off() {
            return Poll::Ready(Err(Unanswered { error: Error::CutOff, unsent: None }));
        }
        if let Poll::Ready(outcome) = answer.as_mut().poll(cx) {
            return Poll::Ready(outcome.map_err(|mut error| {
                let unsent = error.take_message().map(|request| request.into_body().body);
                Unanswered { error: broken(error.into_error()), unsent }
            }));
        }
        while timer.as_mut().poll(cx).is_ready() {
            let due = moved.get() + patience.response;
            if due <= Instant::now() {
                return Poll::Ready(Err(Unanswered { error: Error::Silent, unsent: None }));
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await;
    let (head, incoming) = outcome.map(Response::into_parts)?;
    let timer = Box::pin(tokio::time::sleep(patience.body_idle));
    let body_idle = patience.body_idle;
    Ok((head.status, head.headers, Answer { incoming, timer, body_idle, is_over: false, _stream: stream, _busy: busy }))
}

/// The body of an answer.
pub(crate) struct Answer {
    incoming: Incoming,
    timer: Pin<Box<Sleep>>,
    body_idle: Duration,
    is_over: bool,
    _stream: Stream,
    _busy: Option<Busy>,
}

impl Answer {
    /// Returns the next frame; `None` is the end.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.timer.as_mut().reset(Instant::now() + self.body_idle);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(broken(error)))),
            Poll::Ready(None) => {
                self.is_over = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(self.timer.as_mut().poll(cx));
                Poll::Ready(Some(Err(Error::Silent)))
            }
        }
    }

    /// Tells whether the whole answer was taken.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_over || self.incoming.is_end_stream()
    }

    /// Returns how many bytes are still to come, where that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }
}

/// Whose fault it is: an exchange also fails where the client breaks its request off.
fn broken(error: hyper::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(body) = inner.downcast_ref::<BodyError>() {
            return match body {
                BodyError::TooLong => Error::BodyOverLimit,
                BodyError::ManyTrailers => Error::BadRequest(MANY_TRAILERS),
                BodyError::Client(_) => Error::RequestBody(error),
                BodyError::Disk(cause) => Error::NotKept(io::Error::new(cause.kind(), cause.to_string())),
            };
        }
        cause = inner.source();
    }
    let error = Error::Broken(io::Error::other(error));
    debug_assert_eq!(error.side(), Side::Upstream);
    error
}
