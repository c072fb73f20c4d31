//! `bgproxy relay`: joins stdin and stdout to the admin socket, so that `exec` into the container reaches the proxy.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

const BUFFER: usize = 64 * 1024;

/// What kept a relay from its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing answers on the socket.
    #[error("no proxy answers on {path}: {source}")]
    NoProxy {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The streams broke.
    #[error("the relay broke: {0}")]
    Broken(#[from] io::Error),
}

/// Copies both ways. The end of stdin is passed on; the end of the socket ends the relay.
///
/// # Errors
/// [`Error::NoProxy`] where the socket can't be connected to.
pub fn run(path: &Path) -> Result<(), Error> {
    let socket =
        UnixStream::connect(path).map_err(|source| Error::NoProxy { path: path.display().to_string(), source })?;
    // The standard handles buffer lines, and the end of an answer is no line.
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let to_proxy = socket.try_clone()?;
    // Not joined: it may wait for input long after the proxy has said its last word.
    thread::Builder::new().name("relay-stdin".to_owned()).spawn(move || {
        // A proxy that closed its side is noticed by the other direction.
        drop(copy(stdin, &to_proxy));
        drop(to_proxy.shutdown(Shutdown::Write));
    })?;
    match copy(&socket, stdout) {
        // Whoever asked is gone, and wants no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        copied => Ok(copied?),
    }
}

fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
