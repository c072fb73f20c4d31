//! `bgctl`: deploys, switches, operates.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod engine;
