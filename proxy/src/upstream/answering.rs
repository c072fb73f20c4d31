//! The rest of an answer after its head, whichever version of HTTP it comes in.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::connection::Connection;
use super::exchange::{AnswerFrame, Exchange};
use super::http2;
use crate::error::Error;

/// Where an answer's body comes from.
pub(crate) enum Answering {
    /// In a box from its beginning: what is large is not moved from hand to hand.
    Http1(Box<Exchange>),
    /// The same.
    Http2(Box<http2::Answer>),
}

impl Answering {
    /// Returns the next frame of the body; `None` is the end.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            Self::Http1(exchange) => exchange.poll_frame(cx).map(|frame| {
                frame.map(|frame| {
                    frame.map(|frame| match frame {
                        AnswerFrame::Data(data) => Frame::data(data),
                        AnswerFrame::Trailers(trailers) => Frame::trailers(trailers),
                    })
                })
            }),
            Self::Http2(answer) => answer.poll_frame(cx),
        }
    }

    /// Ends an exchange whose answer has no body.
    pub(crate) fn finish_empty(&mut self) {
        if let Self::Http1(exchange) = self {
            exchange.finish_empty();
        }
    }

    /// Tells whether the whole answer was taken.
    pub(crate) fn is_finished(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.is_finished(),
            Self::Http2(answer) => answer.is_finished(),
        }
    }

    /// Returns how many bytes of the body are still to come, where that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self {
            Self::Http1(exchange) => exchange.remaining(),
            Self::Http2(answer) => answer.remaining(),
        }
    }

    /// Takes the connection out, for a tunnel after 101, which only HTTP/1 has.
    pub(crate) fn take_connection(&mut self) -> Option<Box<Connection>> {
        match self {
            Self::Http1(exchange) => exchange.take_connection(),
            Self::Http2(_) => None,
        }
    }
}
