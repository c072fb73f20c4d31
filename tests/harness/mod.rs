//! The harness: fakes, clients and load that a test is written with, so that it reads as a sentence.
//!
//! [`upstream()`] is an application that misbehaves as asked, [`proxy()`] is a real one on a free port, [`client()`] sends and reads bytes, [`load()`] is many
//! visitors with a verdict, [`eventually()`] waits for what must become true.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chance;
mod client;
mod eventually;
mod load;
mod message;
mod pebble;
mod proxy;
mod site;
mod skip;
mod terminal;
mod tls;
mod upstream;

pub use chance::Chance;
pub use client::{Client, Response, client, client_tls};
pub use eventually::eventually;
pub use load::{Asked, Load, Running, Verdict, load};
pub use pebble::{Pebble, Revocations, Rules, pebble};
pub use proxy::{Answer, Proxy, proxy, proxy_at, proxy_program};
pub use site::{Ended, Programs, Site, Started};
pub use skip::{is_soak, measured, skipped};
pub use terminal::Terminal;
pub use tls::{Authority, Issued, authority, connect_tls, shake_hands, version};
pub use upstream::{Behaviour, Seen, Upstream, upstream, upstream_at};
