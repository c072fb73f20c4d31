//! What a switch costs, and what a request costs, measured on real proxies under load. `README.md` says what is measured and what was found.
//!
//! Reading order: `round` (one proxy, its load, its switches), `measure` (what is counted of it), `table`; `cost` and `instructions` for themselves.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics has failed"))]

pub mod backend;
pub mod child;
pub mod contender;
pub mod cost;
pub mod error;
pub mod instructions;
pub mod load;
pub mod measure;
pub mod round;
pub mod table;
mod visitor;
