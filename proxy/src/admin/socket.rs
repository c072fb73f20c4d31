//! The admin socket as a file: taking the place of a dead proxy's, never of a live one's, and going away at the end.

use std::fs;
use std::io::{self, ErrorKind};
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
            Ok(identity) => Ok(Self { listener, file: SocketFile { path: path.to_owned(), identity } }),
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
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
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

fn identity(path: &Path) -> io::Result<(u64, u64)> {
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
