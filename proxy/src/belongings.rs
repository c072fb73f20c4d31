//! What a proxy has that no other process can have beside it, and that its successor is given: its sockets, and the lock of its
//! state folder.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::socket::Port;

/// One of the things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "thing")]
pub(crate) enum Thing {
    /// A socket of visitors.
    Plain,
    /// One of those who speak TLS.
    Tls,
    /// The admin socket, and what tells its file from any other.
    Admin {
        /// The file's device.
        device: u64,
        /// Its number there.
        inode: u64,
    },
    /// The socket of the metrics.
    Metrics,
    /// The lock of the state folder.
    Lock,
}

/// Things on their way.
pub(crate) type Parcel = Vec<(Thing, OwnedFd)>;

/// The things that a proxy has, beside those who use them.
#[derive(Clone, Default)]
pub(crate) struct Belongings(Arc<Mutex<Parcel>>);

impl Belongings {
    /// Keeps a socket of visitors, too.
    ///
    /// # Errors
    /// Where there are no more files to be had.
    pub(crate) fn keep_door(&self, port: Port, socket: &TcpListener) -> io::Result<()> {
        let thing = match port {
            Port::Plain => Thing::Plain,
            Port::Tls => Thing::Tls,
        };
        self.keep(thing, socket)
    }

    /// Keeps the admin socket, too.
    ///
    /// # Errors
    /// Where there are no more files to be had.
    pub(crate) fn keep_admin(&self, (device, inode): (u64, u64), socket: &UnixListener) -> io::Result<()> {
        self.keep(Thing::Admin { device, inode }, socket)
    }

    /// Keeps the socket of the metrics, too.
    ///
    /// # Errors
    /// Where there are no more files to be had.
    pub(crate) fn keep_metrics(&self, socket: &TcpListener) -> io::Result<()> {
        self.keep(Thing::Metrics, socket)
    }

    /// Keeps the lock of the state folder, which nobody else uses: it is free when this is let go.
    pub(crate) fn keep_lock(&self, lock: File) {
        self.things().push((Thing::Lock, lock.into()));
    }

    fn keep(&self, thing: Thing, socket: impl AsFd) -> io::Result<()> {
        let kept = socket.as_fd().try_clone_to_owned()?;
        self.things().push((thing, kept));
        Ok(())
    }

    /// Returns a second one of each.
    ///
    /// # Errors
    /// Where there are no more files to be had.
    pub(crate) fn parcel(&self) -> io::Result<Parcel> {
        self.things().iter().map(|(thing, fd)| Ok((*thing, fd.try_clone()?))).collect()
    }

    /// Lets the sockets of visitors go: with the last one of each, its port is closed.
    pub(crate) fn close_doors(&self) {
        self.things().retain(|(thing, _)| !matches!(thing, Thing::Plain | Thing::Tls));
    }

    /// Lets everything go.
    pub(crate) fn let_go(&self) {
        self.things().clear();
    }

    fn things(&self) -> MutexGuard<'_, Parcel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
