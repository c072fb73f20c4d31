//! Header fields on their way through: what a message may say of itself, what ends here, what we add.

mod authority;
mod http2;
mod request;
mod response;
mod trust;
mod wishes;

pub(crate) use authority::{Authority, check};
pub(crate) use http2::{Http2Head, is_grpc};
pub(crate) use request::{Forwarded, RequestHead};
pub(crate) use response::{prepare, without_handshake};
pub(crate) use trust::Trust;
pub(crate) use wishes::{asks_for_websocket, expects_continue, framing};

#[cfg(test)]
mod tests;
