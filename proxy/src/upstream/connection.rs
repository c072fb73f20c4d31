//! One connection to an application: buffered reads, gathered writes, one timer.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::Sleep;

use super::socket::Socket;
use crate::clock;

/// The first read of an answer; most answers fit.
const SMALL_READ: usize = 8 * 1024;
/// Reads grow to this while an answer keeps filling them: few system calls for large bodies.
const LARGE_READ: usize = 128 * 1024;

/// A connection to an application.
pub(crate) struct Connection {
    stream: Socket,
    /// What was read and not yet taken.
    pub(crate) read: BytesMut,
    read_size: usize,
    /// Kept over requests: moving a registered timer later costs next to nothing.
    timer: Pin<Box<Sleep>>,
    /// Whether it carried a request before.
    pub(crate) reused: bool,
}

/// Bytes on their way out, in the order of the fields.
#[derive(Default)]
pub(crate) struct Outgoing {
    /// A head, or a chunk's size line.
    pub(crate) head: Bytes,
    /// Data of the body, not copied.
    pub(crate) data: Bytes,
    /// What ends the data's chunk.
    pub(crate) tail: &'static [u8],
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.head.is_empty() && self.data.is_empty() && self.tail.is_empty()
    }

    fn advance(&mut self, mut written: usize) {
        let part = written.min(self.head.len());
        self.head.advance(part);
        written -= part;
        let part = written.min(self.data.len());
        self.data.advance(part);
        written -= part;
        self.tail = &self.tail[written..];
    }
}

impl Connection {
    /// Returns a connection that has carried nothing yet.
    pub(crate) fn new(stream: Socket) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            read_size: SMALL_READ,
            // Set anew by each exchange before it counts.
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            reused: false,
        }
    }

    /// Tells whether an idle connection can carry another request: the application has neither closed it nor sent
    /// anything that nobody asked for.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut probe = [0; 1];
        matches!(self.stream.try_read(&mut probe), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads more into [`Self::read`]; 0 is the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < SMALL_READ / 2 {
            self.read.reserve(self.read_size);
        }
        let room = self.read.capacity() - self.read.len();
        let count = ready!(pin!(self.stream.read_buf(&mut self.read)).poll(cx))?;
        if count == room {
            self.read_size = (self.read_size * 4).min(LARGE_READ);
        }
        Poll::Ready(Ok(count))
    }

    /// Writes until nothing is left; counts the bytes into `written`.
    pub(crate) fn poll_write_all(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
        written: &mut u64,
    ) -> Poll<io::Result<()>> {
        while !out.is_empty() {
            let stream = Pin::new(&mut self.stream);
            // A head by itself is what most requests are, and a plain write is the cheaper system call.
            let polled = if out.data.is_empty() && out.tail.is_empty() {
                stream.poll_write(cx, &out.head)
            } else {
                let parts = [IoSlice::new(&out.head), IoSlice::new(&out.data), IoSlice::new(out.tail)];
                stream.poll_write_vectored(cx, &parts)
            };
            let count = ready!(polled)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(count);
            *written += count as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Starts the timer anew.
    pub(crate) fn set_timer(&mut self, timeout: Duration) {
        self.timer.as_mut().reset((clock::now() + timeout).into());
    }

    /// Is ready once the time since [`Self::set_timer`] is over.
    pub(crate) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll(cx)
    }

    /// Makes the connection ready to wait for its next request: large buffers are not kept.
    pub(crate) fn rest(&mut self) {
        self.reused = true;
        self.read_size = SMALL_READ;
        if self.read.capacity() > 2 * SMALL_READ {
            self.read = BytesMut::new();
        }
    }

    /// Gives up HTTP on this connection: the socket, and what was read beyond the answer.
    pub(crate) fn into_parts(self) -> (Socket, BytesMut) {
        (self.stream, self.read)
    }
}
