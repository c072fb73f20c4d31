//! The socket of a client: bare, or within TLS.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::delegate::delegate_io;

/// A client of a tunnel that was silent so long is asked whether it is there,
const SILENCE: Duration = Duration::from_secs(60);
/// again so much later,
const INTERVAL: Duration = Duration::from_secs(15);
/// and this often before it is given up.
const TRIES: u32 = 4;

/// What is spoken at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// HTTP.
    Plain,
    /// HTTP within TLS.
    Tls,
}

/// A client's socket.
pub(crate) enum Socket {
    /// HTTP.
    Plain(TcpStream),
    /// HTTP within TLS. Boxed: those who don't speak it keep no room for it.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Whether a client has closed its side, as far as was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is there, or was not asked.
    Open,
    /// It has, or is gone.
    Ended,
    /// It said this, and the byte is taken.
    Byte(u8),
}

impl Socket {
    /// Waits until the client has something to say, or is gone.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.get_ref().0.poll_read_ready(cx),
        }
    }

    /// Looks whether the client has closed its side. Within TLS that is a record like any other, so that a byte of what
    /// comes may have to be taken to see it: only where `may_take` says so.
    pub(crate) fn look_for_end(&mut self, cx: &mut Context<'_>, may_take: bool) -> Seen {
        let has_ended = match self {
            Self::Plain(stream) => match recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((_, length)) => length == 0,
                Err(error) => error != Errno::WOULDBLOCK && error != Errno::INTR,
            },
            Self::Tls(_) if !may_take => false,
            Self::Tls(stream) => {
                let mut byte = [0];
                let mut buf = ReadBuf::new(&mut byte);
                match Pin::new(stream).poll_read(cx, &mut buf) {
                    Poll::Pending => false,
                    Poll::Ready(Err(_)) => true,
                    Poll::Ready(Ok(())) => match buf.filled() {
                        [] => true,
                        [byte, ..] => return Seen::Byte(*byte),
                    },
                }
            }
        };
        if has_ended { Seen::Ended } else { Seen::Open }
    }

    /// Has the kernel ask now and then whether the client is still there, where it may be silent for as long as it likes.
    pub(crate) fn keep_alive(&self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        let asked = TcpKeepalive::new().with_time(SILENCE).with_interval(INTERVAL).with_retries(TRIES);
        // Without it the tunnel lasts until the application speaks or leaves.
        _ = SockRef::from(stream).set_tcp_keepalive(&asked);
    }

    /// Tells a client of TLS that nothing more comes (RFC 8446 section 6.1), as far as it takes that at once. Without it
    /// an end is a connection that broke off.
    pub(crate) async fn say_goodbye(&mut self) {
        if let Self::Tls(stream) = self {
            poll_fn(|cx| {
                _ = Pin::new(&mut *stream).poll_shutdown(cx);
                Poll::Ready(())
            })
            .await;
        }
    }
}

delegate_io!(Socket: Plain, Tls);
