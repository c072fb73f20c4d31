//! A deployment: what is there and what is wanted become a plan, the plan is executed, the proxy's counts are reported.

pub mod execute;
pub mod hook;
mod journal;
mod lease;
pub mod plan;
pub(crate) mod preview;
pub mod recover;
pub mod report;
mod retire;
pub mod scale;
pub mod settings;
mod stop_first;
pub mod together;
mod undo;
pub(crate) mod verify;
pub mod wait;
