//! What is left of an exchange that ended in a 101: the application's end of a tunnel.

use super::run::Claim;
use super::socket::Socket;
use crate::edge::Passed;
use bytes::BytesMut;

/// The application's end of a tunnel.
pub(crate) struct Tunnel {
    /// The connection.
    pub(crate) stream: Socket,
    /// What the application sent behind its 101.
    pub(crate) read: BytesMut,
    /// Held until the tunnel ends.
    pub(crate) claim: Claim,
    /// The same, where there are rules.
    pub(crate) passed: Option<Box<Passed>>,
}
