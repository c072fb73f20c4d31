//! `bgctl demo`: a switch on this machine under real traffic, and its proof.
//!
//! `uptimer` is the application, `load` the clients (`exchange` is one request of theirs), `tally` what they saw.

mod exchange;
mod load;
mod tally;
pub mod uptimer;

#[cfg(test)]
mod tests;
