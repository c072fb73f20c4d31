//! Listening sockets: how they are bound, and the loop that accepts from one.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::client::Client;
use crate::connection;
use crate::socket::Port;
use crate::worker::{Stage, Worker};

/// Connections that the kernel keeps for us between two accepts.
const BACKLOG: i32 = 1024;
/// After an accept that failed for want of something (files, memory), the pause before the next.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Binds one address with a socket for each worker. The first try is without SO_REUSEPORT, so that a port that someone
/// else has is an error and is not shared with them.
///
/// # Errors
/// The kernel's reason.
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let bound = open(address, false)?.local_addr()?.as_socket().unwrap_or(address);
    (0..workers).map(|_| open(bound, true).map(Into::into)).collect()
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
    } else {
        // Bound and not listening says nothing yet: a second bind of the same kind would succeed.
        socket.listen(1)?;
    }
    Ok(socket)
}

/// Accepts until the worker drains.
pub(crate) async fn accept(listener: TcpListener, port: Port, worker: Rc<Worker>, mut stage: watch::Receiver<Stage>) {
    loop {
        tokio::select! {
            _ = stage.wait_for(|stage| *stage != Stage::Serve) => return,
            accepted = next(&listener, &worker) => match accepted {
                Ok((stream, peer)) => welcome(stream, port, peer, &worker),
                Err(error) if is_clients_fault(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "can't accept connections; trying again");
                    tokio::time::sleep(BACK_OFF).await;
                }
            },
        }
    }
}

/// Waits for the next connection, and then for a place for it: where there are as many as allowed, one waits here, served by
/// nobody, and those behind it in the kernel's queue.
///
/// # Cancel safety
/// A connection that waits for its place is closed.
async fn next(listener: &TcpListener, worker: &Worker) -> io::Result<(TcpStream, SocketAddr)> {
    let accepted = listener.accept().await?;
    let shared = &worker.shared;
    loop {
        let below_cap = shared.below_cap.notified();
        tokio::pin!(below_cap);
        below_cap.as_mut().enable();
        let most = worker.most_connections();
        let taken = |now: u64| (now < most).then_some(now + 1);
        if shared.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok() {
            return Ok(accepted);
        }
        // A cap that a reload raised rings no bell.
        _ = tokio::time::timeout(Duration::from_secs(1), below_cap).await;
    }
}

/// Serves a connection that has its place.
fn welcome(stream: TcpStream, port: Port, peer: SocketAddr, worker: &Rc<Worker>) {
    let client = Client::new(peer);
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
