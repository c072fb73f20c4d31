//! The sockets for TLS, which are opened when there is something to show there: at the start, or with the first certificate.

use std::io;
use std::net::{SocketAddr, TcpListener};

use config::model::{Listen, Model};
use tokio::sync::mpsc;

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

/// For each address, a socket for each worker.
pub(crate) type Sockets = Vec<Vec<TcpListener>>;

/// Opens doors of workers that run already.
pub(crate) struct Doors {
    /// The addresses of the command line; empty: the file's.
    pub(crate) asked: Vec<SocketAddr>,
    /// Where each worker takes its own.
    pub(crate) workers: Vec<mpsc::UnboundedSender<Door>>,
    /// They are open already.
    pub(crate) are_open: bool,
}

impl Doors {
    /// Binds what a new configuration needs and is not open yet.
    ///
    /// # Errors
    /// The first address that is not to be had.
    pub(crate) fn bind(&self, model: &Model) -> Result<Sockets, Closed> {
        match wanted(&self.asked, model) {
            Some(listen) if !self.are_open => bind(&listen, Port::Tls, self.workers.len()),
            _ => Ok(Sockets::new()),
        }
    }

    /// Gives the sockets to the workers, and returns their addresses.
    pub(crate) fn open(&mut self, sockets: Sockets) -> Vec<SocketAddr> {
        let addresses = addresses(&sockets);
        self.are_open |= !sockets.is_empty();
        for (socket, worker) in sockets.into_iter().flat_map(|group| group.into_iter().zip(&self.workers)) {
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

/// Binds every address.
///
/// # Errors
/// The first that is not to be had.
pub(crate) fn bind(listen: &Listen, port: Port, workers: usize) -> Result<Sockets, Closed> {
    let usual = match port {
        Port::Plain => 80,
        Port::Tls => 443,
    };
    let mut sockets = Vec::new();
    for address in listen.addresses(usual) {
        match listener::bind(address, workers) {
            Ok(group) => sockets.push(group),
            Err(error) if *listen == Listen::Default && address.is_ipv6() && listener::is_without_ipv6(&error) => {
                tracing::warn!(%address, "this host has no IPv6, so it is not listened on");
            }
            Err(source) => return Err(Closed { address, source }),
        }
    }
    Ok(sockets)
}

/// Returns the addresses of bound sockets.
pub(crate) fn addresses(sockets: &Sockets) -> Vec<SocketAddr> {
    sockets.iter().filter_map(|group| group.first()?.local_addr().ok()).collect()
}
