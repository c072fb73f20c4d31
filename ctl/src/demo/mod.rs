//! `bgctl demo`: a switch on this machine under real traffic, and its proof.
//!
//! `play` is the acts in order, on a `stage` (a gateway of its own) with `uptimer` as the application; `load` the clients
//! (`order` is one request of theirs), `tally` what they saw, `verdict` what follows from it.

mod load;
mod order;
mod play;
mod stage;
mod tally;
pub mod uptimer;
mod verdict;

#[cfg(test)]
mod tests;

use config::name::ServiceName;

pub use self::play::Play;

/// Returns the service of the demo.
pub fn service() -> ServiceName {
    stage::SERVICE.parse().expect("it is a service's name")
}
