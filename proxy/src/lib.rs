//! `bgproxy`: a reverse proxy whose upstream is switched by one pointer swap.
//!
//! Two reading orders. A request: `listener` -> `connection` -> `handler` -> `forward` -> `upstream`. A switch:
//! `admin` -> `control` -> `health` -> `routing::live` -> `upstream::inflight`. If you read two files, read
//! `handler.rs` and `control/flip.rs`.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod acme;
pub mod admin;
mod answer;
pub mod app;
pub mod args;
mod aside;
mod asked;
mod belongings;
mod client;
mod clock;
mod compress;
mod connection;
pub mod control;
mod control_thread;
mod crowd;
mod delegate;
mod doors;
mod edge;
mod error;
mod event_stream;
mod files;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod handler;
mod handover;
mod headers;
mod health;
mod hold;
pub mod holder;
mod http2;
mod listener;
mod notify;
mod other_slot;
mod private_file;
pub mod program;
mod proxy_header;
mod replay;
mod respond;
pub mod routing;
mod scratch;
mod secure;
mod service;
pub mod signature;
mod socket;
mod sticky;
pub mod successor;
pub mod telemetry;
mod thread;
mod tls;
mod upgrade;
mod upgrading;
pub mod upstream;
mod way;
mod webhook;
mod websocket;
mod worker;
