//! The socket of a client connection, which notes what moves, and what is read of it again.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Client, HTTP2_PREFACE};
use crate::socket::{Seen, Socket};

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
