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

/// Why a request's body can't be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client broke it off, or framed it wrongly.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// It is longer than the service takes.
    #[error("the body is longer than the service takes")]
    TooLong,
    /// The disk refuses what was to be kept of it.
    #[error("the body can't be kept on disk")]
    Disk(#[source] io::Error),
}

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Client(error) => Self::RequestBody(error),
            BodyError::TooLong => Self::BodyOverLimit,
            BodyError::Disk(error) => Self::NotKept(error),
        }
    }
}

/// A request's body; knows whether anything of it was taken, and tells the connection while the client is slow, or where
/// its end was not waited for.
pub(crate) struct RequestBody {
    content: Content,
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
        Self { content: Content::Incoming(incoming, watch), touched: false, allowed: u64::MAX }
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

    /// Tells whether it was taken whole already.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.content, Content::Spooled(_))
    }

    /// Takes all of it, so that its length is known before it is sent.
    ///
    /// # Errors
    /// Where the client breaks it off, it is longer than it may be, or the disk refuses it.
    ///
    /// # Cancel safety
    /// Dropping it loses what was taken.
    pub(crate) async fn spool(mut self, mut spool: Spool) -> Result<Self, BodyError> {
        self.allowed = self.allowed.min(SPOOLED_BYTES);
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            let Ok(data) = frame?.into_data() else { continue };
            spool.add(&data).await.map_err(BodyError::Disk)?;
        }
        let spooled = spool.finish().await.map_err(BodyError::Disk)?;
        Ok(Self { content: Content::Spooled(spooled), touched: false, allowed: u64::MAX })
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
        let polled = match &mut self.content {
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
            Content::Incoming(incoming, _) => incoming.is_end_stream(),
            Content::Spooled(spooled) => spooled.remaining() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Incoming(incoming, _) => incoming.size_hint(),
            Content::Spooled(spooled) => SizeHint::with_exact(spooled.remaining()),
        }
    }
}
