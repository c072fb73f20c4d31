//! An address of an application and a connection to it: TCP, or a Unix socket of this host.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use crate::delegate::delegate_io;

/// Where an application can be connected to, once its name is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(Arc<Path>),
}

impl Address {
    /// Returns the same host with another port; a Unix socket has none.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        match self {
            Self::Tcp(address) => Self::Tcp(SocketAddr::new(address.ip(), port)),
            unix @ Self::Unix(_) => unix.clone(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects within the time-out.
    ///
    /// # Errors
    /// The kernel's reason, or `TimedOut`.
    ///
    /// # Cancel safety
    /// Dropping it closes the socket.
    pub(crate) async fn connect(address: &Address, timeout: Duration) -> io::Result<Self> {
        let connected = tokio::time::timeout(timeout, async {
            match address {
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Ok(Self::Tcp(stream))
                }
                // A fault of ours in the midst of a request, for the test of what such a one ends.
                #[cfg(test)]
                Address::Unix(path) if path.ends_with("panics.sock") => panic!("as the test wants it"),
                Address::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            }
        });
        connected.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock` where nothing is there.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }
}

delegate_io!(Socket: Tcp, Unix);
