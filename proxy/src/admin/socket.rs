//! The admin socket as a file: taking the place of a dead proxy's, never of a live one's, and going away at the end.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// A bound admin socket; dropping it removes the file, where it is still ours.
pub(crate) struct AdminSocket {
    /// Accepts without blocking.
    pub(crate) listener: UnixListener,
    /// Its file.
    pub(crate) file: SocketFile,
}

/// The file of a bound socket.
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    /// Another process has it.
    is_left: bool,
}

impl SocketFile {
    /// Returns what tells the file from any other: its device and its number there.
    pub(crate) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Has it for itself: the process before us serves no more.
    pub(crate) fn keep(&mut self) {
        self.is_left = false;
    }

    /// Leaves it to another process.
    pub(crate) fn leave(&mut self) {
        self.is_left = true;
    }
}

impl AdminSocket {
    /// Binds the socket.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`] where a live process answers there, [`ErrorKind::AlreadyExists`] where the file is no
    /// socket, else the kernel's reason.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(ErrorKind::AlreadyExists, "a file that is not a socket is there"));
            }
            Ok(_) if answers(path)? => {
                return Err(io::Error::new(ErrorKind::AddrInUse, "another proxy answers there"));
            }
            // What is there is dead.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Self::replace(path)
    }

    /// Takes the socket over that a process before us has bound.
    ///
    /// # Errors
    /// Where its file is not there.
    pub(crate) fn inherit(path: &Path, listener: OwnedFd) -> io::Result<Self> {
        // Until the other one has left, it is that one's to remove.
        let file = SocketFile { path: path.to_owned(), identity: identity(path)?, is_left: true };
        Ok(Self { listener: listener.into(), file })
    }

    /// Binds the socket in the place of what is there.
    ///
    /// # Errors
    /// The kernel's reason.
    pub(crate) fn replace(path: &Path) -> io::Result<Self> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        remove(&temporary)?;
        let listener = UnixListener::bind(&temporary)?;
        // Nobody finds it by its name before its mode is right.
        let placed = (|| {
            listener.set_nonblocking(true)?;
            fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
            let identity = identity(&temporary)?;
            fs::rename(&temporary, path)?;
            Ok(identity)
        })();
        match placed {
            Ok(identity) => Ok(Self { listener, file: SocketFile { path: path.to_owned(), identity, is_left: false } }),
            Err(error) => {
                // The first error says more than one of tidying up.
                drop(remove(&temporary));
                Err(error)
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_left && identity(&self.path).is_ok_and(|found| found == self.identity) {
            drop(remove(&self.path));
        }
    }
}

/// Tells whether a process listens there. Does not wait for one whose queue is full.
fn answers(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns what tells a file from any other.
///
/// # Errors
/// Where it is not there.
pub(crate) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        let live = AdminSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(AdminSocket::bind(&path).err().unwrap().kind(), ErrorKind::AddrInUse);
        drop(live);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert_eq!(AdminSocket::bind(&path).err().unwrap().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
