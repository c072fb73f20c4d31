//! Header fields on their way through: what a message may say of itself, what ends here, what we add.

mod authority;
mod fields;
mod http2;
mod request;
mod response;
mod trust;

pub(crate) use authority::{Authority, check};
pub(crate) use fields::Fields;
pub(crate) use http2::Http2Head;
pub(crate) use request::{Forwarded, RequestHead};
pub(crate) use response::{prepare, without_handshake};
pub(crate) use trust::Trust;

#[cfg(test)]
mod tests;
