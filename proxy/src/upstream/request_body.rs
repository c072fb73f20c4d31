//! A request's body on its way from the client to the application.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::spool::{Spool, Spooled};
use crate::client::BodyWatch;
use crate::error::Error;

/// What is taken whole is no longer than this, whatever the service takes: a disk has an end.
const SPOOLED_BYTES: u64 = 1024 * 1024 * 1024;
/// What hyper reads of trailers where it is asked for nothing else; where a long head made it have room for more, and in
/// HTTP/2, it is the same.
const TRAILER_FIELDS: usize = 100;

/// What is said of a trailer section of more.
pub(crate) const MANY_TRAILERS: &str = "the trailer section has too many fields";

/// Why a request's body can't be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client broke it off, or framed it wrongly.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// It is longer than the service takes.
    #[error("the body is longer than the service takes")]
    TooLong,
    /// More fields than anybody sends trail it.
    #[error("{MANY_TRAILERS}")]
    ManyTrailers,
    /// The disk refuses what was to be kept of it.
    #[error("the body can't be kept on disk")]
    Disk(#[source] io::Error),
}

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Client(error) => Self::RequestBody(error),
            BodyError::TooLong => Self::BodyOverLimit,
            BodyError::ManyTrailers => Self::BadRequest(MANY_TRAILERS),
            BodyError::Disk(error) => Self::NotKept(error),
        }
    }
}

/// A request's body; knows whether anything of it was taken, and tells the connection while the client is slow, or where
/// its end was not waited for.
pub(crate) struct RequestBody {
    content: Content,
    /// A piece that was taken and comes again.
    back: Bytes,
    touched: bool,
    /// What may still come of it.
    allowed: u64,
}

enum Content {
    Incoming(Incoming, BodyWatch),
    /// What was taken whole before it is sent.
    Spooled(Spooled),
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, watch: BodyWatch) -> Self {
        Self { content: Content::Incoming(incoming, watch), back: Bytes::new(), touched: false, allowed: u64::MAX }
    }

    /// Lets it be no longer than `most`; false where it says itself that it is.
    pub(crate) fn limit(&mut self, most: u64) -> bool {
        self.allowed = most;
        self.size_hint().lower() <= most
    }

    /// Tells whether any of it was taken: then it can't be sent again.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched
    }

    /// Takes the one piece back that was taken of it: now it is whole again.
    pub(crate) fn put_back(&mut self, piece: Bytes) {
        self.allowed = self.allowed.saturating_add(piece.len() as u64);
        self.back = piece;
        self.touched = false;
    }

    /// Tells whether it was taken whole already.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.content, Content::Spooled(_))
    }

    /// Returns a body that is there as a whole.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        let content = Content::Spooled(Spooled::Memory(bytes));
        Self { content, back: Bytes::new(), touched: false, allowed: u64::MAX }
    }

    /// Returns all of it, where it was taken whole, nothing of it was sent, and it is in memory.
    pub(crate) fn in_memory(&self) -> Option<Bytes> {
        match &self.content {
            Content::Spooled(Spooled::Memory(bytes)) if self.back.is_empty() && !self.touched => Some(bytes.clone()),
            Content::Spooled(_) | Content::Incoming(..) => None,
        }
    }

    /// Takes all of it, so that its length is known before it is sent.
    ///
    /// # Errors
    /// Where the client breaks it off, it is longer than it may be, or the disk refuses it.
    ///
    /// # Cancel safety
    /// Dropping it loses what was taken.
    pub(crate) async fn spool(mut self, mut spool: Spool) -> Result<Self, BodyError> {
        if !self.limit(self.allowed.min(SPOOLED_BYTES)) {
            return Err(BodyError::TooLong);
        }
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            let Ok(data) = frame?.into_data() else { continue };
            spool.add(&data).await.map_err(BodyError::Disk)?;
        }
        let spooled = spool.finish().await.map_err(BodyError::Disk)?;
        Ok(Self { content: Content::Spooled(spooled), back: Bytes::new(), touched: false, allowed: u64::MAX })
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Content::Incoming(incoming, watch) = &self.content
            && !incoming.is_end_stream()
        {
            watch.is_left_unread();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let back = std::mem::take(&mut self.back);
        let polled = match &mut self.content {
            _ if !back.is_empty() => Poll::Ready(Some(Ok(Frame::data(back)))),
            Content::Incoming(incoming, watch) => {
                let polled = Pin::new(incoming).poll_frame(cx);
                watch.waits_for_client(polled.is_pending());
                polled.map_err(BodyError::Client)
            }
            Content::Spooled(spooled) => {
                spooled.poll_next(cx).map(|piece| piece.map(|piece| piece.map(Frame::data).map_err(BodyError::Disk)))
            }
        };
        self.touched |= polled.is_ready();
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if frame.trailers_ref().is_some_and(|trailers| trailers.len() > TRAILER_FIELDS) {
                return Poll::Ready(Some(Err(BodyError::ManyTrailers)));
            }
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.allowed.checked_sub(length) {
                Some(left) => self.allowed = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLong))),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            _ if !self.back.is_empty() => false,
            Content::Incoming(incoming, _) => incoming.is_end_stream(),
            Content::Spooled(spooled) => spooled.remaining() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let back = self.back.len() as u64;
        match &self.content {
            Content::Incoming(incoming, _) => {
                let rest = incoming.size_hint();
                let mut hint = SizeHint::new();
                rest.upper().into_iter().for_each(|most| hint.set_upper(most.saturating_add(back)));
                hint.set_lower(rest.lower() + back);
                hint
            }
            Content::Spooled(spooled) => SizeHint::with_exact(spooled.remaining() + back),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use http::Method;
    use tokio::net::UnixStream;

    use super::*;
    use crate::scratch::Scratch;
    use crate::upstream::connection::Connection;
    use crate::upstream::exchange::{Exchange, ExchangeLimits, Failed, Outbound, RequestFraming, Untouched};
    use crate::upstream::pool::Pool;
    use crate::upstream::run::Run;
    use crate::upstream::socket::{Address, Socket};

    async fn body(text: &str) -> RequestBody {
        let mut spool = Spool::new(1024, std::env::temp_dir());
        spool.add(&Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
        let content = Content::Spooled(spool.finish().await.unwrap());
        RequestBody { content, back: Bytes::new(), touched: false, allowed: u64::MAX }
    }

    async fn next(body: &mut RequestBody) -> Option<Bytes> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        frame.unwrap().into_data().ok()
    }

    #[tokio::test]
    async fn a_piece_that_was_put_back_comes_again_and_counts_once() {
        let mut body = body("abc").await;
        assert!(body.limit(3));
        let piece = next(&mut body).await.unwrap();
        assert!(body.is_touched() && body.is_end_stream());
        body.put_back(piece);
        assert!(!body.is_touched() && !body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(next(&mut body).await.as_deref(), Some(&b"abc"[..]));
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test]
    async fn a_body_of_which_nothing_was_written_can_go_with_another_request() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let connection = Box::new(Connection::new(Socket::Unix(ours)));
        let outbound = Outbound {
            method: Method::POST,
            head: Bytes::from_static(b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\n"),
            body: Some(body("abc").await),
            framing: RequestFraming::Length,
            expects_continue: false,
            busy: None,
        };
        let key = (Run::new(config::name::Slot::Blue, 1).id(), Address::Tcp(([127, 0, 0, 1], 1).into()));
        let second = Duration::from_secs(1);
        let limits = ExchangeLimits {
            connect: second,
            response: second,
            body_idle: second,
            header_bytes: 1024,
            header_fields: 10,
        };
        let pool = Rc::new(Pool::new(second, 1));
        let mut exchange = Box::new(Exchange::new(connection, (pool, key), limits, outbound));
        let error = std::future::poll_fn(|cx| exchange.poll_head(cx, &Scratch::default())).await.unwrap_err();
        let Failed { body: Untouched::Yes(Some(mut body)), unwritten: true, .. } = exchange.into_failed(error) else {
            panic!("nothing of it was written");
        };
        assert_eq!(next(&mut body).await.as_deref(), Some(&b"abc"[..]));
    }
}
