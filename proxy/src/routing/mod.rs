//! From host and path to the service that takes a request: one immutable table, swapped as a whole.

pub mod canary;
pub mod closed;
pub mod live;
pub mod preview;
pub mod rate;
pub mod secure;
pub mod table;
pub mod target;
pub mod waiting;

#[cfg(test)]
mod tests;
