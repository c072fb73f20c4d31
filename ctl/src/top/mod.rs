//! The live view of a proxy: what its counters came to between two looks, drawn on a terminal.
//!
//! A look is a status and the metrics that go with it. [`sample`] reads the metrics and compares two of them, [`recent`] words
//! what happened, [`board`] draws a [`board::View`] without knowing where, [`screen`] is the terminal.

pub mod board;
pub mod recent;
pub mod sample;
pub mod screen;
