//! The admin side: HTTP/1.1 and JSON on a Unix socket. Calls are read and answered here and done in `control`.

mod api;
pub mod relay;
pub(crate) mod scrape;
pub(crate) mod server;
pub(crate) mod socket;
mod stream;
