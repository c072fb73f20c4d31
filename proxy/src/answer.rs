//! An answer's body, of which there is one type.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::client::Serving;
use crate::clock;
use crate::compress::Compressor;
use crate::edge::Passed;
use crate::error::{Error, Side};
use crate::event_stream::EventStream;
use crate::files::Reading;
use crate::telemetry::counters::Ended;
use crate::telemetry::record::Record;
use crate::upstream::answering::Answering;
use crate::upstream::run::{Claim, Long, Tally};

/// An answer's body. Its end, however it comes, is the end of the request.
pub(crate) struct AnswerBody {
    content: Content,
    /// Tells the client's connection when the request is over.
    serving: Option<Serving>,
    /// Writes the access log's line at its end.
    record: Option<Box<Record>>,
    /// What rules want held until then.
    passed: Option<Box<Passed>>,
}

enum Content {
    /// Made here, or nothing.
    Bytes(Bytes),
    /// Streamed from an application.
    Upstream(Upstream),
    /// Out of a file.
    File(Box<Reading>),
    /// One of these, compressed.
    Compressed(Box<Compressed>),
}

struct Compressed {
    compressor: Compressor,
    content: Content,
    /// What was given of it.
    bytes: u64,
}

struct Upstream {
    answering: Answering,
    /// Held until the body has ended: the run counts as in use so long.
    claim: Claim,
    /// Whether an end before its time was counted.
    counted: bool,
    /// An event stream was ended between two events.
    is_over: bool,
    /// How it broke, until what came before has been flushed: hyper throws away what it has not written when a body
    /// fails, and the client would see an empty close instead of the beginning of an answer.
    broken: Option<Box<Error>>,
    meter: Meter,
    /// Where the answer is an event stream.
    events: Option<Box<Events>>,
}

/// An event stream, which may last for hours, and ends between two events where its run is left for good.
struct Events {
    stream: EventStream,
    _long: Long,
    /// When it is its turn to end, once it is to.
    turn: Option<Pin<Box<Sleep>>>,
}

/// What is known of a request before its answer's end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter {
    /// When its head had come.
    pub(crate) began: Instant,
    /// From its sending to the head of the application's answer; `None` where none came.
    pub(crate) upstream: Option<Duration>,
    /// The status of its answer.
    pub(crate) status: u16,
    /// What was sent of the body so far.
    pub(crate) bytes: u64,
}

impl Meter {
    /// Returns how the request ended, now.
    pub(crate) fn ended(self) -> Ended {
        Ended {
            status: self.status,
            took: clock::now().duration_since(self.began),
            upstream: self.upstream,
            bytes: self.bytes,
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Its client took nothing until the deadline, so nobody asked it for more.
        let is_cut = match self.events {
            Some(_) => self.claim.is_cut_long(),
            None => self.claim.is_cut_off(),
        };
        if !self.counted && !self.answering.is_finished() && is_cut {
            self.claim.tally(Tally::Cut);
        }
        if std::thread::panicking() {
            // Whatever its head said, its visitor has half an answer.
            self.meter.status = 500;
        }
        self.claim.end(self.meter.ended());
    }
}

impl AnswerBody {
    /// Returns a body that was made here.
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self { content: Content::Bytes(bytes.into()), serving: None, record: None, passed: None }
    }

    /// Holds what rules count until the body has ended.
    #[must_use]
    pub(crate) fn let_in(mut self, passed: Option<Box<Passed>>) -> Self {
        self.passed = passed;
        self
    }

    /// Returns the body of an answer out of a file.
    pub(crate) fn file(reading: Reading) -> Self {
        Self { content: Content::File(Box::new(reading)), serving: None, record: None, passed: None }
    }

    /// Compresses it on the way.
    #[must_use]
    pub(crate) fn compressed(self, compressor: Compressor) -> Self {
        let compressed = Compressed { compressor, content: self.content, bytes: 0 };
        Self { content: Content::Compressed(Box::new(compressed)), ..self }
    }

    /// Holds the guard until the body has ended.
    #[must_use]
    pub(crate) fn until_end(mut self, serving: Serving) -> Self {
        self.serving = Some(serving);
        self
    }

    /// Returns the body of an application's answer, which may be an event stream.
    pub(crate) fn upstream(mut answering: Answering, claim: Claim, meter: Meter, events: Option<EventStream>) -> Self {
        answering.finish_empty();
        if answering.is_finished() {
            claim.end(meter.ended());
            return Self::bytes(Bytes::new());
        }
        let events = events.map(|stream| Box::new(Events { stream, _long: claim.is_long(), turn: None }));
        Self {
            content: Content::Upstream(Upstream {
                answering,
                claim,
                counted: false,
                is_over: false,
                broken: None,
                meter,
                events,
            }),
            serving: None,
            record: None,
            passed: None,
        }
    }

    /// Keeps the request's record until the body has ended.
    #[must_use]
    pub(crate) fn recorded(mut self, record: Option<Box<Record>>) -> Self {
        self.record = record;
        self
    }
}

impl Upstream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(*error)));
        }
        match self.poll_next(cx) {
            Poll::Ready(Some(Err(error))) => {
                self.broken = Some(Box::new(error));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let is_cut = match &mut self.events {
            None => self.claim.is_cut_off(),
            Some(events) if self.claim.is_closing() => {
                if events.poll_turn(&self.claim, cx).is_ready() && events.stream.is_between() {
                    return self.close();
                }
                self.claim.is_cut_long()
            }
            Some(_) => false,
        };
        if is_cut {
            self.counted = true;
            self.claim.tally(Tally::Cut);
            return Poll::Ready(Some(Err(Error::CutOff)));
        }
        if self.events.is_some() {
            return self.poll_events(cx);
        }
        self.poll_answer(cx)
    }

    /// Ends an event stream between two events.
    fn close(&mut self) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        (self.counted, self.is_over) = (true, true);
        self.claim.tally(Tally::Closed);
        Poll::Ready(None)
    }

    /// The next of an event stream; where it is its turn to end, up to the end of the event under way.
    fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = self.poll_answer(cx);
        let (Some(events), Poll::Ready(Some(Ok(frame)))) = (&mut self.events, &polled) else { return polled };
        let Some(data) = frame.data_ref() else { return polled };
        let end = events.stream.take(data);
        match end.filter(|_| events.turn.as_ref().is_some_and(|turn| turn.is_elapsed())) {
            Some(end) => {
                let event = data.slice(..end);
                (self.counted, self.is_over) = (true, true);
                self.claim.tally(Tally::Closed);
                Poll::Ready(Some(Ok(Frame::data(event))))
            }
            None => polled,
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.answering.poll_frame(cx).map(|frame| {
            frame.map(|frame| match frame {
                Ok(frame) => {
                    self.meter.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                    Ok(frame)
                }
                Err(error) => {
                    self.counted = true;
                    if error.side() != Side::Client {
                        self.claim.tally(Tally::Failed);
                    }
                    Err(error)
                }
            })
        })
    }
}

impl Events {
    /// Waits until it is this one's turn to end.
    fn poll_turn(&mut self, claim: &Claim, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.turn.get_or_insert_with(|| Box::pin(tokio::time::sleep(claim.turn())));
        turn.as_mut().poll(cx)
    }
}

impl Content {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            Self::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Upstream(upstream) => upstream.poll_frame(cx),
            Self::File(reading) => reading.poll_piece(cx).map(|piece| piece.map(|piece| piece.map(Frame::data))),
            Self::Compressed(compressed) => compressed.poll_frame(cx),
        }
    }
}

impl Compressed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Self { compressor, content, bytes } = self;
        let polled = compressor.poll_frame(cx, |cx| content.poll_frame(cx));
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            *bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        // What is counted is what the client is sent.
        if let Content::Upstream(upstream) = content {
            upstream.meter.bytes = *bytes;
        }
        polled
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(serving) = &self.serving {
            serving.asks_for_more();
        }
        let polled = self.content.poll_frame(cx);
        if let Some(record) = &mut self.record {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => record.sends(frame.data_ref().map_or(0, Bytes::len)),
                Poll::Ready(Some(Err(error))) => record.has_failed(error),
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Bytes(bytes) => bytes.is_empty(),
            Content::Upstream(upstream) => upstream.is_over || upstream.answering.is_finished(),
            Content::File(reading) => reading.remaining() == 0,
            Content::Compressed(compressed) => compressed.compressor.is_finished(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Upstream(upstream) => match upstream.answering.remaining() {
                Some(left) => SizeHint::with_exact(left),
                None => SizeHint::default(),
            },
            Content::File(reading) => SizeHint::with_exact(reading.remaining()),
            Content::Compressed(_) => SizeHint::default(),
        }
    }
}
