//! Header fields on their way through: what a message may say of itself, what ends here, what we add.

mod authority;
mod request;
mod response;

pub(crate) use authority::{Authority, check};
pub(crate) use request::{Forwarded, RequestHead};
pub(crate) use response::prepare;

#[cfg(test)]
mod tests;
