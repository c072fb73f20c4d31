//! One client connection as the worker sees it: what it is doing, since when, and what it is ordered to do.
//!
//! A connection has no timer of its own. It notes what it does; the worker looks at all of them twice a second and
//! orders those that are overdue to end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock;
use crate::socket::{Seen, Socket};
use crate::upstream::run::RunId;
use crate::upstream::tunnel::Tunnel;

/// Long enough for whoever clicks again soon, short enough for the thousands who don't.
const PARK_AFTER: Duration = Duration::from_secs(5);
/// A client of HTTP/2 has so long to leave once it was told that its idle connection ends.
const GOODBYE: Duration = Duration::from_secs(5);
/// RFC 9113 section 3.4: what an HTTP/2 client begins with.
pub(crate) const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A head of more lines is read by a parser with more room: it costs more than most requests are worth.
const USUAL_LINES: usize = 100;

/// What a client connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between requests, since then.
    Idle(Instant),
    /// The same, and of HTTP nothing is kept.
    Parked(Instant),
    /// The first bytes of a request came then.
    Head(Instant),
    /// A request is being served.
    Serving,
    /// It became a tunnel: its own ends decide how long it lives.
    Tunnel,
}

/// What a request's body had when it was asked for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyAsked {
    /// Something, or its end.
    Came,
    /// Nothing yet: it waits for the client.
    Waits,
}

/// What happened on a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traces {
    /// The run that a request was sent to.
    pub(crate) run: Option<RunId>,
    /// An answer's body was asked for more.
    pub(crate) answer_asked: bool,
    /// A request's body was.
    pub(crate) body_asked: Option<BodyAsked>,
}

/// What the worker wants of a connection; a later one takes the place of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Look again at the run that serves it, and at the socket.
    Look,
    /// Between two requests: keep the bare socket alone.
    Park,
    /// End after the requests under way.
    Finish,
    /// End now.
    Drop,
}

/// The time-outs of client connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientLimits {
    /// From the first byte of a request to the end of its head.
    pub(crate) header: Duration,
    /// Without a request.
    pub(crate) idle: Duration,
    /// While a body moves in neither direction because of the client.
    pub(crate) body_idle: Duration,
}

/// One client connection.
pub(crate) struct Client {
    /// Its address: the socket's, or the one that a load balancer in front of us tells.
    peer: Cell<IpAddr>,
    /// The same as text, as each request tells it to the application.
    peer_text: RefCell<Rc<str>>,
    /// It speaks TLS with us.
    is_secure: Cell<bool>,
    phase: Cell<Phase>,
    /// Requests under way: one at the most in HTTP/1, many in HTTP/2.
    requests: Cell<u32>,
    /// It speaks HTTP/2: what comes between requests begins no head.
    is_http2: Cell<bool>,
    /// Bytes moved since the last look.
    moved: Cell<bool>,
    /// The client does not take what we write.
    write_blocked: Cell<bool>,
    /// A request's body is wanted and doesn't come.
    awaits_body: Cell<bool>,
    last_move: Cell<Instant>,
    /// Whether the socket should be asked if the client has closed it, and whether it has.
    asks_for_end: Cell<bool>,
    has_ended: Cell<bool>,
    /// A request was answered before its body had come to its end.
    unread_body: Cell<bool>,
    /// The run that the last request was sent to.
    run: Cell<Option<RunId>>,
    /// Runs of which nothing may be left, as HTTP/2 streams find them.
    cut_runs: RefCell<Vec<RunId>>,
    /// What the last poll left behind: see [`Client::take_traces`].
    answer_asked: Cell<bool>,
    body_asked: Cell<Option<BodyAsked>>,
    /// A request was served, so what begins now is not the beginning of HTTP/2.
    has_served: Cell<bool>,
    /// Lines of the head under way so far.
    head_lines: Cell<usize>,
    /// They are more than the parser has room for, and are kept until there is another.
    is_crowded: Cell<bool>,
    order: Cell<Option<Order>>,
    /// It was told to end after the requests under way.
    is_finishing: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// The tasks of HTTP/2 streams, which look again too.
    streams: RefCell<HashMap<u64, Waker>>,
    next_stream: Cell<u64>,
    /// What takes the connection over after a 101.
    tunnel: RefCell<Option<Tunnel>>,
}

impl Client {
    pub(crate) fn new(peer: SocketAddr) -> Rc<Self> {
        let peer = peer.ip().to_canonical();
        let now = clock::now();
        Rc::new(Self {
            peer: Cell::new(peer),
            peer_text: RefCell::new(peer.to_string().into()),
            is_secure: Cell::new(false),
            // The first request is awaited as if it had begun: who connects has something to say.
            phase: Cell::new(Phase::Head(now)),
            requests: Cell::new(0),
            is_http2: Cell::new(false),
            moved: Cell::new(false),
            write_blocked: Cell::new(false),
            awaits_body: Cell::new(false),
            last_move: Cell::new(now),
            asks_for_end: Cell::new(false),
            has_ended: Cell::new(false),
            unread_body: Cell::new(false),
            run: Cell::new(None),
            cut_runs: RefCell::default(),
            answer_asked: Cell::new(false),
            body_asked: Cell::new(None),
            has_served: Cell::new(false),
            head_lines: Cell::new(0),
            is_crowded: Cell::new(false),
            order: Cell::new(None),
            is_finishing: Cell::new(false),
            waker: RefCell::new(None),
            streams: RefCell::default(),
            next_stream: Cell::new(0),
            tunnel: RefCell::new(None),
        })
    }

    /// Returns its address.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer.get()
    }

    /// Returns its address as text.
    pub(crate) fn peer_text(&self) -> Rc<str> {
        Rc::clone(&self.peer_text.borrow())
    }

    /// Notes whose connection it really is.
    pub(crate) fn is_from(&self, peer: SocketAddr) {
        let peer = peer.ip().to_canonical();
        self.peer.set(peer);
        self.peer_text.replace(peer.to_string().into());
    }

    /// Notes that it speaks TLS with us; its first request has its time from now on.
    pub(crate) fn is_within_tls(&self) {
        self.is_secure.set(true);
        self.phase.set(Phase::Head(clock::now()));
    }

    /// Tells whether it speaks TLS with us.
    pub(crate) fn is_secure(&self) -> bool {
        self.is_secure.get()
    }

    /// Notes that a request is being served, until the guard is dropped.
    pub(crate) fn serving(self: &Rc<Self>) -> Serving {
        self.requests.set(self.requests.get() + 1);
        self.has_served.set(true);
        self.phase.set(Phase::Serving);
        self.last_move.set(clock::now());
        Serving(Rc::clone(self))
    }

    /// Notes the run that the request under way is sent to.
    pub(crate) fn is_sent_to(&self, run: RunId) {
        self.run.set(Some(run));
    }

    /// Returns what happened on the connection since the last call. Around the poll of one stream it is that stream's.
    pub(crate) fn take_traces(&self) -> Traces {
        Traces { run: self.run.take(), answer_asked: self.answer_asked.take(), body_asked: self.body_asked.take() }
    }

    /// Tells whether nothing may be left of a run.
    pub(crate) fn has_cut(&self, run: RunId) -> bool {
        self.cut_runs.borrow().contains(&run)
    }

    /// Tells whether a request was served already.
    pub(crate) fn has_served(&self) -> bool {
        self.has_served.get()
    }

    /// Ends what is left of these runs: an answer ends itself when it is polled next, but nobody polls it while the client
    /// takes nothing.
    pub(crate) fn cut(&self, runs: &[RunId]) {
        if self.is_http2.get() {
            self.cut_runs.replace(runs.to_vec());
        }
        let is_stuck = self.phase.get() == Phase::Serving && self.write_blocked.get();
        // Of a connection with several requests only those of the run are to end.
        let is_cut = !self.is_http2.get() && self.run.get().is_some_and(|run| runs.contains(&run));
        self.order(if is_stuck && is_cut { Order::Drop } else { Order::Look });
    }

    /// Leaves what the connection becomes after the 101 that is about to be sent.
    pub(crate) fn leave_tunnel(&self, tunnel: Tunnel) {
        *self.tunnel.borrow_mut() = Some(tunnel);
    }

    /// Takes the tunnel; the connection's time-outs end here.
    pub(crate) fn take_tunnel(&self) -> Option<Tunnel> {
        let tunnel = self.tunnel.borrow_mut().take();
        if tunnel.is_some() {
            self.phase.set(Phase::Tunnel);
        }
        tunnel
    }

    /// Gives an order and wakes the connection's task.
    pub(crate) fn order(&self, order: Order) {
        self.is_finishing.set(self.is_finishing.get() || order == Order::Finish);
        self.order.set(self.order.get().max(Some(order)));
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
        self.streams.borrow().values().for_each(Waker::wake_by_ref);
    }

    /// Tells whether it was told to end after the requests under way.
    pub(crate) fn is_finishing(&self) -> bool {
        self.is_finishing.get()
    }

    /// Notes that the connection speaks HTTP/2.
    pub(crate) fn speaks_http2(&self) {
        self.is_http2.set(true);
        self.phase.set(Phase::Idle(clock::now()));
    }

    /// Returns a number for a stream's task, unlike that of any other.
    pub(crate) fn next_stream(&self) -> u64 {
        let number = self.next_stream.get();
        self.next_stream.set(number + 1);
        number
    }

    /// Keeps the waker of a stream's task, by the stream's number.
    pub(crate) fn keep_stream(&self, number: u64, waker: &Waker) {
        let mut streams = self.streams.borrow_mut();
        if !streams.get(&number).is_some_and(|known| known.will_wake(waker)) {
            streams.insert(number, waker.clone());
        }
    }

    /// Forgets a stream's task.
    pub(crate) fn forget_stream(&self, number: u64) {
        self.streams.borrow_mut().remove(&number);
    }

    /// Takes the order, where there is one; the task is woken by the next.
    pub(crate) fn poll_order(&self, cx: &Context<'_>) -> Option<Order> {
        let order = self.order.take();
        if order.is_none() {
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        order
    }

    /// Tells whether a head waits for a parser with more room, and all is written that was answered before.
    pub(crate) fn awaits_room(&self) -> bool {
        self.is_crowded.get() && !self.write_blocked.get()
    }

    /// Counts the lines of the head under way, of which `piece` has come; tells whether they are more than usual.
    fn is_long_head(&self, piece: &[u8]) -> bool {
        if !matches!(self.phase.get(), Phase::Idle(_) | Phase::Head(_)) || self.is_http2.get() {
            return false;
        }
        if matches!(self.phase.get(), Phase::Idle(_)) {
            self.head_lines.set(0);
        }
        // In parts that one byte can count, which the compiler makes a few instructions of.
        let lines = |part: &[u8]| usize::from(part.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>());
        self.head_lines.set(self.head_lines.get() + piece.chunks(255).map(lines).sum::<usize>());
        self.head_lines.get() > USUAL_LINES
    }

    /// Tells whether nothing is under way, nothing was begun, and all that was answered is written.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase.get(), Phase::Idle(_)) && !self.write_blocked.get() && !self.is_http2.get()
    }

    /// Notes that it is parked; the time that it has been idle goes on.
    pub(crate) fn park(&self) {
        if let Phase::Idle(since) = self.phase.get() {
            self.phase.set(Phase::Parked(since));
        }
        // Nothing large for something that happens now and then.
        self.streams.take();
    }

    /// Notes that it is parked no more.
    pub(crate) fn unpark(&self) {
        if let Phase::Parked(since) = self.phase.get() {
            self.phase.set(Phase::Idle(since));
        }
    }

    /// Returns what is to become of the connection, given how long it has done what it does.
    pub(crate) fn judge(&self, now: Instant, limits: &ClientLimits) -> Option<Order> {
        let after =
            |since: Instant, limit: Duration, order: Order| (now.duration_since(since) >= limit).then_some(order);
        match self.phase.get() {
            // Told first, so that no request of its client meets the end (RFC 9113 section 6.8); then it is over.
            Phase::Idle(since) if self.is_http2.get() => {
                after(since, limits.idle + GOODBYE, Order::Drop).or_else(|| after(since, limits.idle, Order::Finish))
            }
            Phase::Idle(since) => after(since, limits.idle, Order::Drop)
                .or_else(|| after(since, PARK_AFTER, Order::Park).filter(|_| self.is_idle())),
            Phase::Parked(since) => after(since, limits.idle, Order::Drop),
            Phase::Head(since) => after(since, limits.header, Order::Drop),
            Phase::Serving => self.judge_serving(now, limits),
            Phase::Tunnel => None,
        }
    }

    fn judge_serving(&self, now: Instant, limits: &ClientLimits) -> Option<Order> {
        let moved = self.moved.take();
        // Of many requests each is looked after by its stream; what they share is the way to the client.
        let waits_for_client = self.write_blocked.get() || self.awaits_body.get() && !self.is_http2.get();
        if moved || !waits_for_client {
            self.last_move.set(now);
        }
        // Who has closed and is given nothing until the next look has gone; half-closed clients are few, and rarely wait
        // longer.
        if self.has_ended.get() && !moved {
            return Some(Order::Drop);
        }
        self.asks_for_end.set(true);
        let is_stuck = now.duration_since(self.last_move.get()) >= limits.body_idle;
        Some(if is_stuck { Order::Drop } else { Order::Look })
    }

    /// Tells whether closing the socket now would reset it under an answer.
    pub(crate) fn has_unread_body(&self) -> bool {
        self.unread_body.get()
    }

    fn has_read(&self) {
        // A client of HTTP/2 that asks whether we are there takes nothing by it.
        if !self.is_http2.get() {
            self.moved.set(true);
        }
        if let (Phase::Idle(_), false) = (self.phase.get(), self.is_http2.get()) {
            self.phase.set(Phase::Head(clock::now()));
        }
    }
}

/// Notes that a request is being served; dropped with the end of its answer.
pub(crate) struct Serving(Rc<Client>);

impl Serving {
    /// Notes that the answer's body was asked for more.
    pub(crate) fn asks_for_more(&self) {
        self.0.answer_asked.set(true);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.awaits_body.set(false);
        self.0.requests.set(self.0.requests.get() - 1);
        if self.0.phase.get() == Phase::Serving && self.0.requests.get() == 0 {
            self.0.phase.set(Phase::Idle(clock::now()));
        }
    }
}

/// Lets a request's body note whether it waits for the client.
pub(crate) struct BodyWatch(Rc<Client>);

impl BodyWatch {
    pub(crate) fn new(client: &Rc<Client>) -> Self {
        Self(Rc::clone(client))
    }

    pub(crate) fn waits_for_client(&self, waits: bool) {
        self.0.awaits_body.set(waits);
        self.0.body_asked.set(Some(if waits { BodyAsked::Waits } else { BodyAsked::Came }));
    }

    pub(crate) fn is_left_unread(&self) {
        self.0.unread_body.set(true);
    }
}

/// The socket of a client connection, which notes what moves.
pub(crate) struct ClientStream {
    stream: Socket,
    client: Rc<Client>,
    /// What was read and is to be read again: see [`ClientStream::put_back`].
    put_back: Bytes,
    /// Nothing was handed on yet, so it may still be the preface of HTTP/2 that comes in pieces.
    at_beginning: bool,
    /// The parser has room for any.
    is_roomy: bool,
}

impl ClientStream {
    pub(crate) fn new(stream: Socket, client: Rc<Client>) -> Self {
        let put_back = Bytes::new();
        Self { stream, client, put_back, at_beginning: true, is_roomy: false }
    }

    /// Returns the stream of a connection of which no preface of HTTP/2 is expected: it has spoken HTTP/1 before, or agreed
    /// on what it speaks.
    pub(crate) fn agreed(stream: Socket, client: Rc<Client>) -> Self {
        Self { at_beginning: false, ..Self::new(stream, client) }
    }

    /// Makes bytes that were read come again before all others.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        self.put_back = bytes;
    }

    /// Makes what was read of a head come again, before what was put back already; tells whether that is anything.
    pub(crate) fn takes_back(&mut self, read: &[u8]) -> bool {
        if !read.is_empty() {
            self.put_back = [read, &self.put_back].concat().into();
        }
        !self.put_back.is_empty()
    }

    /// Returns the stream for a parser with room for any head; of the one under way `read` was handed on already.
    #[must_use]
    pub(crate) fn for_any_head(mut self, read: &[u8]) -> Self {
        self.takes_back(read);
        self.is_roomy = true;
        self.client.is_crowded.set(false);
        self
    }

    /// Tells whether the parser has to have room for any head.
    pub(crate) fn is_roomy(&self) -> bool {
        self.is_roomy
    }

    /// Reads the beginning of a connection. The preface of HTTP/2 is handed on whole: hyper tells it from HTTP/1 by its
    /// first read.
    fn poll_beginning(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut piece = [0; HTTP2_PREFACE.len()];
            let wanted = HTTP2_PREFACE.len() - self.put_back.len();
            let mut piece = ReadBuf::new(&mut piece[..wanted]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
            let has_ended = piece.filled().is_empty();
            self.put_back = [&self.put_back, piece.filled()].concat().into();
            if has_ended || self.put_back.len() == HTTP2_PREFACE.len() || !HTTP2_PREFACE.starts_with(&self.put_back) {
                self.at_beginning = false;
                self.replay(buf);
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn replay(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.put_back.len().min(buf.remaining());
        buf.put_slice(&self.put_back.split_to(length));
    }

    pub(crate) fn into_inner(self) -> Socket {
        self.stream
    }

    /// Looks whether the client has closed its side. HTTP/2 reads all the time and sees it by itself.
    fn look_for_end(&mut self, cx: &mut Context<'_>) {
        let may_take = self.put_back.is_empty() && !self.client.is_http2.get();
        let seen = self.stream.look_for_end(cx, may_take);
        self.client.has_ended.set(seen == Seen::Ended);
        if let Seen::Byte(byte) = seen {
            self.put_back = Bytes::copy_from_slice(&[byte]);
        }
    }

    fn note_write(&self, polled: &Poll<io::Result<usize>>) {
        self.client.write_blocked.set(polled.is_pending());
        if polled.is_ready() {
            self.client.moved.set(true);
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.client.is_crowded.get() {
            return Poll::Pending;
        }
        if self.at_beginning && !self.put_back.is_empty() {
            return self.poll_beginning(cx, buf);
        }
        if !self.put_back.is_empty() {
            self.replay(buf);
            self.client.has_read();
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = &buf.filled()[before..];
        if self.at_beginning && !read.is_empty() {
            if read.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(read) {
                self.put_back = Bytes::copy_from_slice(read);
                buf.set_filled(before);
                self.client.has_read();
                return self.poll_beginning(cx, buf);
            }
            self.at_beginning = false;
        }
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            let is_crowded = !self.is_roomy && self.client.is_long_head(read);
            self.client.has_read();
            if is_crowded {
                self.put_back = Bytes::copy_from_slice(read);
                self.client.is_crowded.set(true);
                buf.set_filled(before);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        polled
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_write(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called at every look at the connection, so also where nobody reads: a request under way.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.client.asks_for_end.take() {
            self.look_for_end(cx);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
