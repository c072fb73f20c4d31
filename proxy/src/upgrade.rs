//! Tunnels: what a connection becomes after a 101. A tunnel counts as in flight on its run until it ends.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use crate::client::{Client, Order};
use crate::upstream::run::Tally;
use crate::upstream::tunnel::Tunnel;

/// Carries bytes both ways until both ends have closed, or the worker orders otherwise.
pub(crate) async fn run(mut socket: TcpStream, early: Bytes, mut tunnel: Tunnel, client: &Rc<Client>) {
    let mut carry = pin!(async {
        socket.write_all(&tunnel.read).await?;
        tunnel.stream.write_all(&early).await?;
        copy_bidirectional(&mut socket, &mut tunnel.stream).await?;
        io::Result::Ok(())
    });
    let claim = &tunnel.claim;
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
