//! The sockets for TLS, which are opened when there is something to show there: at the start, or with the first certificate.

use std::io;
use std::net::{SocketAddr, TcpListener};

use config::model::{Listen, Model};
use tokio::sync::mpsc;

use crate::belongings::Belongings;
use crate::listener;
use crate::socket::Port;

/// A socket to accept from, and what is spoken there.
pub(crate) type Door = (Port, TcpListener);

/// An address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {source}")]
pub(crate) struct Closed {
    pub(crate) address: SocketAddr,
    pub(crate) source: io::Error,
}

/// For each address, a socket for each worker at least.
pub(crate) type Sockets = Vec<Vec<TcpListener>>;

/// Opens doors of workers that run already.
pub(crate) struct Doors {
    /// The addresses of the command line; empty: the file's.
    pub(crate) asked: Vec<SocketAddr>,
    /// Where each worker takes its own.
    pub(crate) workers: Vec<mpsc::UnboundedSender<Door>>,
    /// They are open already.
    pub(crate) are_open: bool,
    /// What the process before us had open for TLS, until the start is over.
    pub(crate) inherited: Vec<Door>,
    /// Where every socket is kept for a successor.
    pub(crate) belongings: Belongings,
}

impl Doors {
    /// Binds what a new configuration needs and is not open yet.
    ///
    /// # Errors
    /// The first address that is not to be had.
    pub(crate) fn bind(&mut self, model: &Model) -> Result<Sockets, Closed> {
        match wanted(&self.asked, model) {
            Some(listen) if !self.are_open => bind(&listen, Port::Tls, self.workers.len(), &mut self.inherited),
            _ => Ok(Sockets::new()),
        }
    }

    /// As [`Doors::bind`], whether or not there is something to show yet.
    ///
    /// # Errors
    /// The first address that is not to be had.
    pub(crate) fn bind_any(&mut self, model: &Model) -> Result<Sockets, Closed> {
        if self.are_open {
            return Ok(Sockets::new());
        }
        let listen = wanted(&self.asked, model).unwrap_or(Listen::Default);
        bind(&listen, Port::Tls, self.workers.len(), &mut self.inherited)
    }

    /// Gives the sockets to the workers, and returns their addresses.
    pub(crate) fn open(&mut self, sockets: Sockets) -> Vec<SocketAddr> {
        let addresses = addresses(&sockets);
        self.are_open |= !sockets.is_empty();
        for (socket, worker) in sockets.into_iter().flat_map(|group| group.into_iter().zip(self.workers.iter().cycle()))
        {
            if let Err(error) = self.belongings.keep_door(Port::Tls, &socket) {
                tracing::warn!(%error, "a socket can't be kept for a successor, which will have to open it anew");
            }
            // A worker that is gone is the process that ends.
            drop(worker.send((Port::Tls, socket)));
        }
        addresses
    }
}

/// Returns where to listen for TLS; `None` where nobody asked and there is nothing to show.
pub(crate) fn wanted(asked: &[SocketAddr], model: &Model) -> Option<Listen> {
    match (asked, &model.listen_tls) {
        ([], Listen::Default) => (!model.certificates.is_empty()).then_some(Listen::Default),
        ([], listen @ Listen::Asked(_)) => Some(listen.clone()),
        (asked, _) => Some(Listen::Asked(asked.to_vec())),
    }
}

/// Binds every address, but for what was inherited and is taken up: a socket that has connections in its queue is never closed.
///
/// # Errors
/// The first that is not to be had.
pub(crate) fn bind(listen: &Listen, port: Port, workers: usize, inherited: &mut Vec<Door>) -> Result<Sockets, Closed> {
    let usual = match port {
        Port::Plain => 80,
        Port::Tls => 443,
    };
    let mut sockets = Vec::new();
    for address in listen.addresses(usual) {
        let bound = match take_up(inherited, port, address) {
            (_, none) if none.is_empty() => listener::bind(address, workers),
            (has, group) => listener::add(has, group, workers),
        };
        match bound {
            Ok(group) => sockets.push(group),
            Err(error) if *listen == Listen::Default && address.is_ipv6() && listener::is_without_ipv6(&error) => {
                tracing::warn!(%address, "this host has no IPv6, so it is not listened on");
            }
            Err(source) => return Err(Closed { address, source }),
        }
    }
    Ok(sockets)
}

/// Takes the inherited sockets of an address, and returns them with the address that they have.
fn take_up(inherited: &mut Vec<Door>, port: Port, wanted: SocketAddr) -> (SocketAddr, Vec<TcpListener>) {
    // Where the port is left open there may be several, and the first one is as good as any.
    let has = |(spoken, socket): &Door| socket.local_addr().ok().filter(|has| *spoken == port && is_of(*has, wanted));
    let Some(address) = inherited.iter().find_map(has) else { return (wanted, Vec::new()) };
    let (group, rest) = std::mem::take(inherited).into_iter().partition(|door| has(door) == Some(address));
    *inherited = rest;
    let group: Vec<Door> = group;
    (address, group.into_iter().map(|(_, socket)| socket).collect())
}

/// Tells whether a socket that has an address is the one for a wanted address, whose port may be left open.
pub(crate) fn is_of(has: SocketAddr, wanted: SocketAddr) -> bool {
    has == wanted || (wanted.port() == 0 && has.ip() == wanted.ip())
}

/// Returns the addresses of bound sockets.
pub(crate) fn addresses(sockets: &Sockets) -> Vec<SocketAddr> {
    sockets.iter().filter_map(|group| group.first()?.local_addr().ok()).collect()
}
