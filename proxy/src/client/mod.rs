//! One client connection as the worker sees it: what it is doing, since when, and what it is ordered to do.
//!
//! A connection has no timer of its own. It notes what it does; the worker looks at all of them twice a second and
//! orders those that are overdue to end.

mod guards;
mod judge;
mod lines;
mod stream;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Instant;

pub(crate) use guards::{BodyWatch, Serving};
pub(crate) use judge::ClientLimits;
use lines::HeadLines;
pub(crate) use stream::ClientStream;

use crate::clock;
use crate::tls::Guard;
use crate::upstream::run::RunId;
use crate::upstream::tunnel::Tunnel;

/// RFC 9113 section 3.4: what an HTTP/2 client begins with.
pub(crate) const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
    /// End with the next answer, which says so; who is idle may stay.
    Retire,
    /// End after the requests under way.
    Finish,
    /// End now.
    Drop,
}

/// One client connection.
pub(crate) struct Client {
    /// Its address: the socket's, or the one that a load balancer in front of us tells.
    peer: Cell<IpAddr>,
    /// The same as text, as each request tells it to the application.
    peer_text: RefCell<Rc<str>>,
    /// It speaks TLS with us.
    is_secure: Cell<bool>,
    /// It showed a certificate in the handshake, or could have.
    guard: OnceCell<Box<Guard>>,
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
    head_lines: HeadLines,
    /// They are more than the parser has room for, and are kept until there is another.
    is_crowded: Cell<bool>,
    order: Cell<Option<Order>>,
    /// It was told to end after the requests under way.
    is_finishing: Cell<bool>,
    /// It was told to end with the next answer.
    is_retiring: Cell<bool>,
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
            guard: OnceCell::new(),
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
            head_lines: HeadLines::default(),
            is_crowded: Cell::new(false),
            order: Cell::new(None),
            is_finishing: Cell::new(false),
            is_retiring: Cell::new(false),
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

    /// Notes that its handshake was one for which clients show certificates.
    pub(crate) fn is_guarded(&self, guard: Guard) {
        // A connection has one handshake.
        _ = self.guard.set(Box::new(guard));
    }

    /// Returns whose certificate it had to show, and for which host.
    pub(crate) fn guard(&self) -> Option<&Guard> {
        self.guard.get().map(|guard| &**guard)
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
        self.is_retiring.set(self.is_retiring.get() || order == Order::Retire);
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

    /// Tells whether its next answer is to say that it ends: in HTTP/2 the connection says that by itself.
    pub(crate) fn announces_end(&self) -> bool {
        self.is_retiring.get() && !self.is_http2.get()
    }

    /// Tells whether it was told to end with the next answer.
    pub(crate) fn is_retiring(&self) -> bool {
        self.is_retiring.get()
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

    /// Tells whether the client does not take what was to be written last.
    pub(crate) fn is_write_blocked(&self) -> bool {
        self.write_blocked.get()
    }

    /// Tells whether a head waits for a parser with more room, and all is written that was answered before.
    pub(crate) fn awaits_room(&self) -> bool {
        self.is_crowded.get() && !self.write_blocked.get()
    }

    /// Counts the lines of the head under way, of which `piece` has come; tells whether they are more than usual.
    fn is_long_head(&self, piece: &[u8]) -> bool {
        match self.phase.get() {
            Phase::Idle(_) | Phase::Head(_) if !self.is_http2.get() => self.head_lines.take_piece(piece),
            // The parser reads a body when it has nothing left, so none of this is a head that began before.
            _ => {
                self.head_lines.forget();
                false
            }
        }
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
