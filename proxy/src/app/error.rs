//! Why a proxy did not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use config::error::Problem;

use crate::doors::Closed;
use crate::handover::take::Refusal;

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is refused.
    #[error("{}", .0.iter().map(Problem::render).collect::<Vec<_>>().join("\n"))]
    Config(Vec<Problem>),
    /// The state folder can't be used.
    #[error("the state folder {path} can't be used: {source}", path = path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another proxy has the state folder.
    #[error("another bgproxy uses the state folder {path}\nhint: end it, or give --state another folder", path = .0.display())]
    StateTaken(PathBuf),
    /// An address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// TLS can't be set up.
    #[error("TLS can't be set up: {0}")]
    Tls(rustls::Error),
    /// The admin socket can't be made.
    #[error("the admin socket {path} can't be made: {source}", path = path.display())]
    Admin {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The access log can't be opened.
    #[error("the access log {path} can't be opened: {source}", path = path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process that has the state folder keeps it.
    #[error("the running proxy was not taken over: {0}\nit serves on")]
    HandOver(String),
    /// The state of the process before us can't be read.
    #[error("this version can't read the saved state: {0}")]
    Unreadable(String),
    /// There are no more files to be had.
    #[error("can't keep a second handle of a socket: {0}")]
    Files(io::Error),
    /// A thread can't be started.
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
}

impl From<Closed> for StartError {
    fn from(Closed { address, source }: Closed) -> Self {
        Self::Listen { address, source }
    }
}

impl From<Refusal> for StartError {
    fn from(Refusal(why): Refusal) -> Self {
        Self::HandOver(why)
    }
}
