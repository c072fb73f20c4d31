//! `bgctl`: deploys, switches, operates.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

#[cfg_attr(not(test), expect(dead_code, reason = "the command that runs it is not there yet"))]
pub mod demo;
pub mod engine;
