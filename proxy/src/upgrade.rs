//! Tunnels: what a connection becomes after a 101. A tunnel counts as in flight on its run until it ends.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use crate::client::{Client, Order};
use crate::upstream::run::Tally;
use crate::upstream::socket::Socket;
use crate::upstream::tunnel::Tunnel;

/// Carries bytes both ways until both ends have closed, or the worker orders otherwise.
pub(crate) async fn run(mut socket: TcpStream, early: Bytes, tunnel: Tunnel, client: &Rc<Client>) {
    let Tunnel { mut stream, read, claim } = tunnel;
    let mut carry = pin!(carry(&mut socket, &early, &mut stream, &read));
    // How it ended is the ends' affair: a tunnel has no answer that could be called broken.
    poll_fn(|cx| {
        loop {
            match client.poll_order(cx) {
                Some(Order::Park) => {}
                Some(Order::Look) if !claim.run().is_cut_off() => {}
                Some(Order::Look | Order::Finish | Order::Drop) => {
                    claim.tally(Tally::Cut);
                    return Poll::Ready(());
                }
                None => return carry.as_mut().poll(cx).map(drop),
            }
        }
    })
    .await;
}

/// Carries bytes both ways on one stream of HTTP/2 (RFC 8441), as [`run`] does on a connection: its connection goes on.
///
/// # Cancel safety
/// Dropping it resets the stream and closes the socket to the application.
pub(crate) async fn run_stream(upgrade: OnUpgrade, tunnel: Tunnel, client: Rc<Client>) {
    let Tunnel { mut stream, read, claim } = tunnel;
    // As long as it lives the connection is in use.
    let _serving = client.serving();
    let number = client.next_stream();
    let mut carry = pin!(async {
        let upgraded = upgrade.await.map_err(io::Error::other)?;
        carry(&mut TokioIo::new(upgraded), &[], &mut stream, &read).await
    });
    poll_fn(|cx| {
        // An order to the connection wakes it; the connection's own end ends the stream.
        client.keep_stream(number, cx.waker());
        if claim.run().is_cut_off() {
            claim.tally(Tally::Cut);
            return Poll::Ready(());
        }
        carry.as_mut().poll(cx).map(drop)
    })
    .await;
    client.forget_stream(number);
}

/// Carries what each end has sent already, and then all that comes.
async fn carry(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    early: &[u8],
    application: &mut Socket,
    read: &[u8],
) -> io::Result<()> {
    client.write_all(read).await?;
    application.write_all(early).await?;
    copy_bidirectional(client, application).await.map(drop)
}
