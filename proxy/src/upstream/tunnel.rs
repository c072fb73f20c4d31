//! What is left of an exchange that ended in a 101: the application's end of a tunnel.

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::run::Claim;

/// The application's end of a tunnel.
pub(crate) struct Tunnel {
    /// The connection.
    pub(crate) stream: TcpStream,
    /// What the application sent behind its 101.
    pub(crate) read: BytesMut,
    /// Held until the tunnel ends.
    pub(crate) claim: Claim,
}
