//! The words, file formats and admin protocol that `bgproxy` and `bgctl` share.
//!
//! Both programs depend on this crate and never on each other: what one says to the other stands in [`admin`].
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod admin;
pub mod defaults;
pub mod duration;
pub mod health;
pub mod name;
pub mod paths;
