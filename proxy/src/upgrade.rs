//! Tunnels: what a connection becomes after a 101. A tunnel counts as in flight on its run until it ends; where its run is left
//! for good it is closed between two frames, with a handshake.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use bytes::Bytes;

use crate::client::{Client, Order};
use crate::socket::Socket;
use crate::upstream::run::{Claim, Tally};
use crate::upstream::tunnel::Tunnel;
use crate::websocket::{CLOSE_TO_CLIENT, Frames, close_to_application};

/// How much is carried at once.
const PIECE: usize = 8 * 1024;
/// The frame under way, then the client's `Close`, and after the application's end the client's are waited for so long (RFC 6455
/// section 7.1.1 leaves it to us).
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Carries bytes both ways until both ends have closed, or the worker orders otherwise.
pub(crate) async fn run(socket: Socket, early: Bytes, tunnel: Tunnel, client: &Rc<Client>) {
    let Tunnel { stream, read, claim, passed: _passed } = tunnel;
    let ordered = poll_fn(|cx| {
        loop {
            match client.poll_order(cx) {
                Some(Order::Look) if claim.is_cut_long() => return Poll::Ready(End::Cut),
                Some(Order::Look) if claim.is_closing() => return Poll::Ready(End::Close),
                Some(Order::Look | Order::Park | Order::Retire) => {}
                Some(Order::Finish) => return Poll::Ready(End::Close),
                Some(Order::Drop) => return Poll::Ready(End::Cut),
                None => return Poll::Pending,
            }
        }
    });
    let _long = claim.is_long();
    socket.keep_alive();
    let ways = Ways::new((&early, &read));
    match socket {
        Socket::Plain(mut socket) => join(&ways, socket.split(), stream, ordered, &claim).await,
        Socket::Tls(mut socket) => {
            join(&ways, tokio::io::split(&mut socket), stream, ordered, &claim).await;
            if ways.is_closed.get() {
                Socket::Tls(socket).say_goodbye().await;
            }
        }
    }
}

/// Joins a client's two ways to those of the application's socket.
async fn join(
    ways: &Ways<'_>,
    (from_client, to_client): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    application: impl AsyncRead + AsyncWrite,
    ordered: impl Future<Output = End>,
    claim: &Claim,
) {
    let (from_application, to_application) = tokio::io::split(application);
    let down = ways.down(from_application, to_client);
    let up = ways.up(from_client, to_application);
    carry(ways, down, up, ordered, claim).await;
}

/// Carries bytes both ways on one stream of HTTP/2 (RFC 8441), as [`run`] does on a connection: its connection goes on.
///
/// # Cancel safety
/// Dropping it resets the stream and closes the socket to the application.
pub(crate) async fn run_stream(upgrade: OnUpgrade, tunnel: Tunnel, client: Rc<Client>) {
    let Tunnel { stream, read, claim, passed: _passed } = tunnel;
    // As long as it lives the connection is in use.
    let _serving = client.serving();
    let number = client.next_stream();
    let ordered = poll_fn(|cx| {
        // An order to the connection wakes it; the connection's own end ends the stream.
        client.keep_stream(number, cx.waker());
        match (claim.is_cut_long(), claim.is_closing()) {
            (true, _) => Poll::Ready(End::Cut),
            (false, true) => Poll::Ready(End::Close),
            (false, false) => Poll::Pending,
        }
    });
    if let Ok(upgraded) = upgrade.await {
        let _long = claim.is_long();
        let ways = Ways::new((&[], &read));
        join(&ways, tokio::io::split(TokioIo::new(upgraded)), stream, ordered, &claim).await;
    }
    client.forget_stream(number);
}

/// How a tunnel is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With a handshake.
    Close,
    /// Now.
    Cut,
}

/// Runs both ways to their ends. Where the application has gone, its client is given a while to go, too: one that is not there
/// any more, or never closes, would keep its tunnel for ever.
async fn to_the_end(
    down: impl Future<Output = io::Result<()>>,
    up: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let (mut down, mut up) = (pin!(down), pin!(up));
    tokio::select! {
        ended = &mut down => {
            ended?;
            tokio::time::timeout(HANDSHAKE, up).await.unwrap_or(Ok(()))
        }
        ended = &mut up => {
            ended?;
            down.await
        }
    }
}

/// Runs both ways until they end, or an order ends them. How a tunnel ended by itself is the ends' affair: it has no answer
/// that could be called broken.
async fn carry(
    ways: &Ways<'_>,
    down: impl Future<Output = io::Result<()>>,
    up: impl Future<Output = io::Result<()>>,
    ordered: impl Future<Output = End>,
    claim: &Claim,
) {
    let mut both = pin!(to_the_end(down, up));
    let mut ordered = pin!(ordered);
    let end = tokio::select! {
        biased;
        end = &mut ordered => end,
        _ = &mut both => return,
    };
    if end == End::Close {
        // Not all at once: each of them comes back a moment later.
        if tokio::time::timeout(claim.turn(), &mut both).await.is_ok() {
            return;
        }
        ways.close();
        let closed = tokio::time::timeout(HANDSHAKE, &mut both).await;
        if closed.is_ok() && ways.is_closed.get() {
            claim.tally(Tally::Closed);
            return;
        }
    }
    claim.tally(Tally::Cut);
}

/// Sends a piece to the client. TLS keeps what the socket does not take at once; it must not stay there until the next.
async fn send(to: &mut (impl AsyncWrite + Unpin), piece: &[u8]) -> io::Result<()> {
    to.write_all(piece).await?;
    to.flush().await
}

/// Both directions of a tunnel.
struct Ways<'t> {
    /// What each end sent before the tunnel began: the client, and the application.
    early: (&'t [u8], &'t [u8]),
    is_closing: Cell<bool>,
    /// Rings when it does.
    closing: Notify,
    /// The client has answered our `Close`.
    is_closed: Cell<bool>,
}

impl<'t> Ways<'t> {
    fn new(early: (&'t [u8], &'t [u8])) -> Self {
        Self { early, is_closing: Cell::new(false), closing: Notify::new(), is_closed: Cell::new(false) }
    }

    fn close(&self) {
        self.is_closing.set(true);
        self.closing.notify_waiters();
    }

    /// From the application to the client, to the end of the frame under way where the tunnel is to close; then our `Close`.
    async fn down(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut frames = Frames::default();
        let mut piece = vec![0; PIECE];
        frames.take_all(self.early.1);
        send(&mut to, self.early.1).await?;
        loop {
            if self.is_closing.get() && frames.is_between() {
                return send(&mut to, &CLOSE_TO_CLIENT).await;
            }
            let closing = self.closing.notified();
            let count = tokio::select! {
                biased;
                () = closing, if !self.is_closing.get() => continue,
                count = from.read(&mut piece) => count?,
            };
            let read = &piece[..count];
            if count == 0 {
                return to.shutdown().await;
            }
            let taken = match self.is_closing.get() {
                true => frames.take_one(read).bytes,
                false => {
                    frames.take_all(read);
                    count
                }
            };
            send(&mut to, &read[..taken]).await?;
        }
    }

    /// From the client to the application. Where the tunnel is closing, the client's `Close` answers ours and ends it; the
    /// application is told in our own words.
    async fn up(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let mut frames = Frames::default();
        frames.take_all(self.early.0);
        to.write_all(self.early.0).await?;
        loop {
            let count = from.read(&mut piece).await?;
            let read = &piece[..count];
            if count == 0 {
                return to.shutdown().await;
            }
            let close = frames.take_all(read);
            if let Some(before) = close.filter(|_| self.is_closing.get()) {
                to.write_all(&read[..before]).await?;
                self.is_closed.set(true);
                to.write_all(&close_to_application()).await?;
                return to.shutdown().await;
            }
            to.write_all(read).await?;
        }
    }
}
