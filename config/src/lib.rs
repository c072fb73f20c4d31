//! The words, file formats and admin protocol that `bgproxy` and `bgctl` share.
//!
//! Both programs depend on this crate and never on each other: what one says to the other stands in [`admin`].
//! A file becomes a configuration in the order [`load`] -> [`mod@file`] -> [`validate`] -> [`model`].
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod acme;
pub mod admin;
pub mod brought;
pub mod certificate;
pub mod defaults;
pub mod diff;
pub mod duration;
pub mod edge;
pub mod error;
pub mod file;
pub mod health;
pub mod load;
pub mod model;
pub mod name;
pub mod network;
pub mod options;
pub mod paths;
pub mod project;
pub mod settings;
pub mod size;
pub mod validate;
pub mod watch;
pub mod webhook;
