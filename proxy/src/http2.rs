//! A client connection that speaks HTTP/2 by prior knowledge (RFC 9113 section 3.3): connection -> **http2** -> handler.
//!
//! Each stream is a request of its own with a claim of its own; routing, drain and counters are those of HTTP/1.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::client::{BodyAsked, Client, ClientStream, Order, Traces};
use crate::clock;
use crate::service::Service;
use crate::upstream::run::RunId;
use crate::worker::Worker;

/// Requests of one connection at once: what nginx and Apache allow.
const STREAMS: u32 = 128;
/// What a client may send of one request's body, and of all, before we took it: enough for a fast sender some
/// milliseconds away, little enough to be kept for all streams.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is kept of one answer that its client does not take.
const SEND_BUFFER: usize = 128 * 1024;
/// Streams that a client opened and reset before we took them (CVE-2023-44487): more end the connection.
const PENDING_RESETS: usize = 20;
/// Streams that we reset for a client's faults: more end the connection.
const OWN_RESETS: usize = 128;
/// A stream whose run is cut ends itself when it is polled; one that does not, for want of a window, is ended after so many
/// polls, of which there are two a second.
const LAST_POLLS: u32 = 3;
/// A client that is silent for so long is asked whether it is there, and has so long to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Serves a connection until it ends.
///
/// # Cancel safety
/// Dropping it closes the socket; its streams end with it.
pub(crate) async fn serve(stream: ClientStream, client: Rc<Client>, worker: Rc<Worker>) {
    client.speaks_http2();
    if client.is_retiring() {
        // It was told while it shook hands.
        client.order(Order::Retire);
    }
    let header_bytes = u32::try_from(worker.limits.header_bytes).unwrap_or(u32::MAX);
    let stuck_after = worker.body_idle_timeout();
    let service = Service { client: Rc::clone(&client), worker };
    let streams = Streams { client: Rc::clone(&client), stuck_after };
    let mut http = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(header_bytes)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(OWN_RESETS)
        .enable_connect_protocol()
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .serve_connection(TokioIo::new(stream), service);
    poll_fn(|cx| {
        loop {
            match client.poll_order(cx) {
                Some(Order::Drop) => return Poll::Ready(()),
                // Told twice before it ends, so that no request of the client meets it (RFC 9113 section 6.8).
                Some(Order::Finish | Order::Retire) => Pin::new(&mut http).graceful_shutdown(),
                // The streams were woken too, and look for themselves.
                Some(Order::Look | Order::Park) => {}
                // How it ended is the client's affair.
                None => return clock::turn(|| Pin::new(&mut http).poll(cx)).map(drop),
            }
        }
    })
    .await;
}

/// Runs the streams of one connection on its worker.
#[derive(Clone)]
struct Streams {
    client: Rc<Client>,
    /// A stream whose client takes nothing of its answer for so long is ended.
    stuck_after: Duration,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let task = Stream {
            stream: Box::pin(stream),
            client: Rc::clone(&self.client),
            number: self.client.next_stream(),
            run: None,
            moved: None,
            awaited: None,
            stuck_after: self.stuck_after,
            last_polls: LAST_POLLS,
        };
        tokio::task::spawn_local(task);
    }
}

/// A stream's task, which an order to the connection wakes too. hyper asks an answer for more only while the client's window
/// has room, so a client that takes nothing is found here, and so is one that sends nothing of a body that is awaited:
/// dropping the inner future resets the stream.
struct Stream<F> {
    stream: Pin<Box<F>>,
    client: Rc<Client>,
    number: u64,
    /// The run that its request was sent to.
    run: Option<RunId>,
    /// When its answer was last asked for more; `None` while there is no answer.
    moved: Option<Instant>,
    /// Since when more of its request is awaited; `None` while it is not.
    awaited: Option<Instant>,
    stuck_after: Duration,
    /// How often it may still be polled once its run is cut.
    last_polls: u32,
}

impl<F> Stream<F> {
    /// Tells whether it is to be ended, given what its last poll left behind.
    fn is_stuck(&mut self) -> bool {
        let Traces { run, answer_asked, body_asked } = self.client.take_traces();
        self.run = run.or(self.run);
        if answer_asked {
            self.moved = Some(clock::now());
        }
        match body_asked {
            Some(BodyAsked::Waits) => self.awaited = self.awaited.or_else(|| Some(clock::now())),
            Some(BodyAsked::Came) => self.awaited = None,
            None => {}
        }
        if self.run.is_some_and(|run| self.client.has_cut(run)) {
            self.last_polls = self.last_polls.saturating_sub(1);
        }
        let mut since = [self.moved, self.awaited].into_iter().flatten();
        self.last_polls == 0 || since.any(|since| clock::now().duration_since(since) >= self.stuck_after)
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.client.keep_stream(self.number, cx.waker());
        // What other tasks of the connection left is none of ours.
        _ = self.client.take_traces();
        clock::turn(|| match self.stream.as_mut().poll(cx) {
            Poll::Pending if self.is_stuck() => Poll::Ready(()),
            polled => polled,
        })
    }
}

impl<F> Drop for Stream<F> {
    fn drop(&mut self) {
        self.client.forget_stream(self.number);
    }
}
