//! A request's body on its way from the client to the application.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::client::BodyWatch;

/// A request's body; knows whether anything of it was taken, and tells the connection while the client is slow.
pub(crate) struct RequestBody {
    incoming: Incoming,
    watch: BodyWatch,
    touched: bool,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, watch: BodyWatch) -> Self {
        Self { incoming, watch, touched: false }
    }

    /// Tells whether any of it was taken: then it can't be sent again.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        self.watch.waits_for_client(polled.is_pending());
        self.touched |= polled.is_ready();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
