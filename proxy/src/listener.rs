//! Listening sockets: how they are bound, and the loop that accepts from one.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::client::{Client, Order};
use crate::connection;
use crate::socket::Port;
use crate::worker::{Stage, Worker};

/// Connections that the kernel keeps for us between two accepts.
const BACKLOG: i32 = 1024;
/// After an accept that failed for want of something (files, memory), the pause before the next.
const BACK_OFF: Duration = Duration::from_millis(50);
/// While that goes on, it is said so often.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// Binds one address with a socket for each worker. The first try is without SO_REUSEPORT, so that a port that someone
/// else listens on is an error and is not shared with them. It doesn't listen: who connected to it would be reset.
///
/// # Errors
/// The kernel's reason.
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let bound = open(address, false)?.local_addr()?.as_socket().unwrap_or(address);
    (0..workers).map(|_| open(bound, true).map(Into::into)).collect()
}

/// Adds to inherited sockets of an address what is lacking for as many workers; where there are more, all stay.
///
/// # Errors
/// The kernel's reason.
pub(crate) fn add(
    address: SocketAddr,
    mut inherited: Vec<std::net::TcpListener>,
    workers: usize,
) -> io::Result<Vec<std::net::TcpListener>> {
    while inherited.len() < workers {
        inherited.push(open(address, true)?.into());
    }
    Ok(inherited)
}

fn open(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // The connections of a proxy that just ended must not keep the next one from its port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    if shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// Accepts until the worker drains.
pub(crate) async fn accept(listener: &TcpListener, port: Port, worker: &Rc<Worker>, mut stage: watch::Receiver<Stage>) {
    let _accepting = worker.accepting();
    let mut told: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stage.wait_for(|stage| *stage != Stage::Serve) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                tokio::select! {
                    biased;
                    () = place(worker) => {}
                    // Whoever was taken out of the kernel's queue would be lost to a successor: one more is served here.
                    _ = stage.wait_for(|stage| *stage != Stage::Serve) => {
                        worker.shared.connections.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // The others may have been told while this one waited.
                let order = match *stage.borrow() {
                    Stage::Serve => None,
                    Stage::Retire => Some(Order::Retire),
                    Stage::Drain | Stage::Stop => Some(Order::Finish),
                };
                welcome(stream, port, peer, worker, order);
            }
            Err(error) if is_clients_fault(&error) => {}
            Err(error) => {
                // Not at each of twenty tries a second.
                if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                    told = Some(Instant::now());
                    tracing::warn!(%error, "can't accept connections; trying again");
                }
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Waits for a place for a connection: where there are as many as allowed, one waits here, served by nobody, and those behind it in
/// the kernel's queue.
///
/// # Cancel safety
/// Dropped, no place is taken.
async fn place(worker: &Worker) {
    let shared = &worker.shared;
    loop {
        let below_cap = shared.below_cap.notified();
        tokio::pin!(below_cap);
        below_cap.as_mut().enable();
        let most = worker.most_connections();
        let taken = |now: u64| (now < most).then_some(now + 1);
        if shared.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok() {
            return;
        }
        // A cap that a reload raised rings no bell.
        _ = tokio::time::timeout(Duration::from_secs(1), below_cap).await;
    }
}

/// Serves a connection that has its place.
fn welcome(stream: TcpStream, port: Port, peer: SocketAddr, worker: &Rc<Worker>, order: Option<Order>) {
    let client = Client::new(peer);
    order.into_iter().for_each(|order| client.order(order));
    let listed = worker.list(&client);
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let _listed = listed;
        connection::serve(stream, port, client, worker).await;
    });
}

/// Tells whether a failure to bind says that there is no IPv6 here.
pub(crate) fn is_without_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT))
}

/// The connection was gone before we could take it.
fn is_clients_fault(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_try_lets_nobody_in_and_the_sockets_behind_it_do() {
        let first = open(SocketAddr::from(([127, 0, 0, 1], 0)), false).unwrap();
        let address = first.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(std::net::TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        drop(first);
        let _sockets = bind(address, 2).unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
        assert_eq!(bind(address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
