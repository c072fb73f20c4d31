//! A request's body on its way from the client to the application.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::client::BodyWatch;
use crate::error::Error;

/// Why a request's body can't be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client broke it off, or framed it wrongly.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// It is longer than the service takes.
    #[error("the body is longer than the service takes")]
    TooLong,
}

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Client(error) => Self::RequestBody(error),
            BodyError::TooLong => Self::BodyOverLimit,
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
    /// What was collected before it is sent.
    Collected(Bytes),
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

    /// Reads all of it, for an application that has to know its length first.
    ///
    /// # Errors
    /// Where it is longer than `most`, or the client breaks it off.
    pub(crate) async fn collect(mut self, most: usize) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            let Ok(data) = frame?.into_data() else { continue };
            if all.len() + data.len() > most {
                return Err(Error::BodyTooLong);
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }
}

impl From<Bytes> for RequestBody {
    fn from(collected: Bytes) -> Self {
        Self { content: Content::Collected(collected), touched: false, allowed: u64::MAX }
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
                polled
            }
            Content::Collected(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Collected(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        };
        self.touched |= polled.is_ready();
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.allowed.checked_sub(length) {
                Some(left) => self.allowed = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLong))),
            }
        }
        polled.map_err(BodyError::Client)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Incoming(incoming, _) => incoming.is_end_stream(),
            Content::Collected(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Incoming(incoming, _) => incoming.size_hint(),
            Content::Collected(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
