//! The way to an application: slot runs, their connections, and the HTTP/1 codec that is spoken on them.

pub(crate) mod answering;
pub(crate) mod balance;
pub(crate) mod codec;
pub(crate) mod connection;
pub(crate) mod exchange;
pub(crate) mod http2;
pub mod inflight;
pub(crate) mod leaving;
pub(crate) mod pool;
pub(crate) mod request_body;
pub(crate) mod resolve;
pub mod run;
pub mod socket;
pub(crate) mod spool;
mod tally;
pub(crate) mod tunnel;
