//! One request and its answer on one connection, polled by whoever waits for the answer: no task, no channel.
//!
//! The request is still being sent while the answer may already come, so each poll for the answer also sends.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body as _;
use tokio::time::Sleep;

use super::balance::Busy;
use super::codec::{self, Chunked, Framing, Malformed, Piece, ResponseHead};
use super::connection::{Connection, Outgoing};
use super::pool::{Key, Pool};
use crate::error::{Error, Side};
use crate::scratch::Scratch;
use crate::upstream::request_body::RequestBody;

/// More interim answers than this to one request are not sane.
const INTERIM_ANSWERS: u32 = 16;
/// An application that knows nothing of `Expect` gets the body after this (RFC 9110 section 10.1.1).
const CONTINUE: Duration = Duration::from_secs(1);

/// The limits of an exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExchangeLimits {
    /// Connecting.
    pub(crate) connect: Duration,
    /// From the last byte of the request that could be sent until the head of the answer.
    pub(crate) response: Duration,
    /// Between two reads of the answer's body.
    pub(crate) body_idle: Duration,
    /// Bytes of the answer's head.
    pub(crate) header_bytes: usize,
    /// Fields of the answer's head.
    pub(crate) header_fields: usize,
}

/// How the request's body is framed for the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestFraming {
    /// By the Content-Length in the head, or there is none.
    Length,
    /// By chunked coding.
    Chunked,
}

/// One request and its answer on one connection.
pub(crate) struct Exchange {
    connection: Option<Box<Connection>>,
    /// The connection's timer runs for what is waited for now. Starting it costs a look at the clock, which an answer that
    /// is there need not pay.
    is_timed: bool,
    pool: Rc<Pool>,
    key: Key,
    limits: ExchangeLimits,
    method: Method,
    out: Outgoing,
    body: Option<RequestBody>,
    had_body: bool,
    /// The client waits for `100 Continue` before it sends its body, and hyper says it as soon as the body is asked for:
    /// so it is not, until the application says so, or this time is over.
    expects: Option<Pin<Box<Sleep>>>,
    request_framing: RequestFraming,
    written: u64,
    /// Bytes of the answer came, so the application has the request.
    answered: bool,
    interim: u32,
    /// The head of the final answer was taken.
    has_head: bool,
    framing: Framing,
    chunked: Chunked,
    keep_alive: bool,
    /// Counted as on its way to one of several endpoints.
    _busy: Option<Busy>,
}

/// What is sent.
pub(crate) struct Outbound {
    /// The method, which decides whether an answer has a body.
    pub(crate) method: Method,
    /// The encoded head.
    pub(crate) head: Bytes,
    /// The body; `None` where there is none.
    pub(crate) body: Option<RequestBody>,
    /// How it is framed.
    pub(crate) framing: RequestFraming,
    /// Whether the client waits for `100 Continue`.
    pub(crate) expects_continue: bool,
    /// Where the endpoint has company.
    pub(crate) busy: Option<Busy>,
}

/// A frame of an answer's body.
pub(crate) enum AnswerFrame {
    /// Data.
    Data(Bytes),
    /// Trailer fields; nothing comes behind them.
    Trailers(HeaderMap),
}

/// An exchange that failed before the head of an answer, with what is needed to try again.
pub(crate) struct Failed {
    /// Why.
    pub(crate) error: Error,
    /// The request, where nothing of its body was taken yet.
    pub(crate) body: Untouched,
    /// Not one byte reached the kernel.
    pub(crate) unwritten: bool,
    /// The connection broke before a byte of an answer.
    pub(crate) broke_silently: bool,
    /// It was used before: the application may just have closed it.
    pub(crate) reused: bool,
}

/// Whether a request's body can be sent once more.
pub(crate) enum Untouched {
    /// It was never polled; `None`: there is none.
    Yes(Option<RequestBody>),
    /// Part of it is gone.
    No,
}

impl Exchange {
    /// Begins an exchange; nothing is sent before it is polled.
    pub(crate) fn new(
        connection: Box<Connection>,
        (pool, key): (Rc<Pool>, Key),
        limits: ExchangeLimits,
        outbound: Outbound,
    ) -> Self {
        Self {
            connection: Some(connection),
            is_timed: false,
            pool,
            key,
            limits,
            method: outbound.method,
            out: Outgoing { head: outbound.head, ..Outgoing::default() },
            had_body: outbound.body.is_some(),
            expects: outbound.expects_continue.then(|| Box::pin(tokio::time::sleep(CONTINUE))),
            body: outbound.body,
            request_framing: outbound.framing,
            written: 0,
            answered: false,
            interim: 0,
            has_head: false,
            framing: Framing::Empty,
            chunked: Chunked::Size,
            keep_alive: false,
            _busy: outbound.busy,
        }
    }

    /// Sends the request and waits for the head of the answer. Interim answers are skipped, but for 101.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> Poll<Result<ResponseHead, Error>> {
        let mut sent = self.poll_send(cx);
        loop {
            let connection = self.connection.as_mut().expect("an exchange has its connection until its answer ends");
            if !connection.read.is_empty() {
                self.answered = true;
                let fields = || scratch.take_fields();
                let before = connection.read.len();
                match codec::parse_into(&mut connection.read, &self.method, self.limits.header_fields, fields) {
                    // All of it may have come at once.
                    Ok(Some(_)) if before - connection.read.len() > self.limits.header_bytes => {
                        return Poll::Ready(Err(Error::Malformed("its head is too long")));
                    }
                    Ok(Some(head)) if is_interim(head.status) => {
                        self.interim += 1;
                        if self.interim > INTERIM_ANSWERS {
                            return Poll::Ready(Err(Error::Malformed("too many interim answers")));
                        }
                        if head.status == StatusCode::CONTINUE && self.expects.take().is_some() {
                            sent = self.poll_send(cx);
                        }
                        continue;
                    }
                    Ok(Some(head)) => {
                        self.has_head = true;
                        self.framing = head.framing;
                        self.keep_alive = head.keep_alive;
                        self.pool.note_version(&self.key, head.http10);
                        self.is_timed = false;
                        return Poll::Ready(Ok(head));
                    }
                    Ok(None) if connection.read.len() > self.limits.header_bytes => {
                        return Poll::Ready(Err(Error::Malformed("its head is too long")));
                    }
                    Ok(None) => {}
                    Err(Malformed(what)) => return Poll::Ready(Err(Error::Malformed(what))),
                }
            }
            match connection.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.ended(sent))),
                Poll::Ready(Ok(_)) => {}
                // An application may answer and close without reading the request: its answer counts, so a failure
                // to write is only told where reading fails too.
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(match sent {
                        Poll::Ready(Err(error)) => error,
                        _ => Error::Broken(error),
                    }));
                }
                Poll::Pending => {
                    if let Poll::Ready(Err(error)) = sent
                        && error.side() == Side::Client
                    {
                        return Poll::Ready(Err(error));
                    }
                    if connection.poll_timer(cx).is_ready() {
                        return Poll::Ready(Err(Error::Silent));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Returns the next frame of the answer's body, sending what is left of the request meanwhile; `None` is the end,
    /// and then the connection has gone back to the pool where it can be used again.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<AnswerFrame, Error>>> {
        if self.connection.is_none() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(Err(error)) = self.poll_send(cx)
            && error.side() == Side::Client
        {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            match self.take_frame() {
                Ok(Some(AnswerFrame::Data(data))) if data.is_empty() => return Poll::Ready(None),
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) => {}
                Err(Malformed(what)) => return Poll::Ready(Some(Err(Error::Malformed(what)))),
            }
            let Some(connection) = self.connection.as_mut() else { return Poll::Ready(None) };
            match connection.poll_fill(cx) {
                Poll::Ready(Ok(0)) if self.framing == Framing::UntilClose => {
                    self.connection = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Some(Err(Error::Broken(io::ErrorKind::UnexpectedEof.into()))));
                }
                Poll::Ready(Ok(_)) => self.is_timed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(Error::Broken(error)))),
                Poll::Pending => {
                    if !std::mem::replace(&mut self.is_timed, true) {
                        connection.set_timer(self.limits.body_idle);
                    }
                    if connection.poll_timer(cx).is_ready() {
                        return Poll::Ready(Some(Err(Error::Silent)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Tells whether the whole answer was taken.
    pub(crate) fn is_finished(&self) -> bool {
        self.connection.is_none()
    }

    /// Returns how many bytes of the answer's body are still to come, where that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self.framing {
            Framing::Empty => Some(0),
            Framing::Length(left) => Some(left),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }

    /// Ends an exchange whose answer has no body.
    pub(crate) fn finish_empty(&mut self) {
        if self.framing == Framing::Empty {
            self.finish();
        }
    }

    /// Takes the connection out, for a tunnel after 101.
    pub(crate) fn take_connection(&mut self) -> Option<Box<Connection>> {
        self.connection.take()
    }

    /// Takes the exchange apart after [`Self::poll_head`] failed.
    pub(crate) fn into_failed(mut self: Box<Self>, error: Error) -> Failed {
        let reused = self.connection.as_ref().is_some_and(|connection| connection.reused);
        let broke_silently = !self.answered && matches!(error, Error::Broken(_));
        let body = match self.body.take() {
            // The piece that was to go with the head can still go with another.
            Some(mut body) if self.written == 0 && !self.out.data.is_empty() => {
                body.put_back(std::mem::take(&mut self.out.data));
                Untouched::Yes(Some(body))
            }
            Some(body) if body.is_touched() => Untouched::No,
            None if self.had_body => Untouched::No,
            body => Untouched::Yes(body),
        };
        Failed { error, body, unwritten: self.written == 0, broke_silently, reused }
    }

    /// Sends as much of the request as the application takes.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // What has come of the body already goes with the head: one packet to the application, and one time that it wakes.
        if self.written == 0
            && self.request_framing == RequestFraming::Length
            && self.expects.is_none()
            && self.out.data.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_piece(cx)
        {
            return Poll::Ready(Err(error));
        }
        loop {
            let Some(connection) = self.connection.as_mut() else { return Poll::Ready(Ok(())) };
            let before = self.written;
            let outcome = connection.poll_write_all(cx, &mut self.out, &mut self.written);
            // Until the final answer begins: an upload that an interim one let go on takes its time.
            if !self.has_head && (self.written > before || !self.is_timed) {
                connection.set_timer(self.limits.response);
                self.is_timed = true;
            }
            match outcome {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Error::Broken(error))),
                Poll::Ready(Ok(())) => {}
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            if let Some(expects) = &mut self.expects {
                // A final answer is all that the client needs.
                if self.has_head || expects.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.expects = None;
            }
            ready!(self.poll_piece(cx))?;
        }
    }

    /// Takes the next piece of the request's body, where there is one, to be written.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Err(error)) => return Poll::Ready(Err(error.into())),
            Some(Ok(frame)) => match (frame.into_data(), self.request_framing) {
                (Ok(data), _) if data.is_empty() => {}
                (Ok(data), RequestFraming::Length) => self.out.data = data,
                (Ok(data), RequestFraming::Chunked) => {
                    self.out.head = Bytes::from(format!("{:x}\r\n", data.len()));
                    self.out.data = data;
                    self.out.tail = b"\r\n";
                }
                (Err(frame), RequestFraming::Chunked) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.body = None;
                        self.out.head = codec::last_chunk(&trailers);
                    }
                }
                // With a known length there is no place for trailers in HTTP/1.
                (Err(_), RequestFraming::Length) => {}
            },
            None => {
                self.body = None;
                if self.request_framing == RequestFraming::Chunked {
                    self.out.tail = b"0\r\n\r\n";
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a frame out of what was read; an empty one is the end, `None`: read more.
    fn take_frame(&mut self) -> Result<Option<AnswerFrame>, Malformed> {
        let Some(connection) = self.connection.as_mut() else { return Ok(Some(AnswerFrame::Data(Bytes::new()))) };
        let data = match self.framing {
            Framing::Empty => {
                self.finish();
                Bytes::new()
            }
            Framing::Length(_) | Framing::UntilClose if connection.read.is_empty() => return Ok(None),
            Framing::Length(left) => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(connection.read.len());
                let data = connection.read.split_to(taken).freeze();
                self.framing = Framing::Length(left - taken as u64);
                if left == taken as u64 {
                    self.finish();
                }
                data
            }
            Framing::UntilClose => connection.read.split().freeze(),
            Framing::Chunked => match self.chunked.next(&mut connection.read)? {
                None => return Ok(None),
                Some(Piece::Data(data)) => data,
                Some(Piece::End(trailers)) => {
                    self.finish();
                    return Ok(Some(trailers.map_or(AnswerFrame::Data(Bytes::new()), AnswerFrame::Trailers)));
                }
            },
        };
        Ok(Some(AnswerFrame::Data(data)))
    }

    /// Ends the exchange: the connection goes back to the pool where both messages are complete and nothing else came.
    fn finish(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let sent =
            self.body.is_none() && self.out.head.is_empty() && self.out.data.is_empty() && self.out.tail.is_empty();
        if self.keep_alive && sent && connection.read.is_empty() {
            self.pool.put(self.key.clone(), connection);
        }
    }

    /// The application closed before a head was complete.
    fn ended(&self, sent: Poll<Result<(), Error>>) -> Error {
        match sent {
            Poll::Ready(Err(error)) => error,
            _ if self.answered => Error::Malformed("it ends within its head"),
            _ => Error::Broken(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}
