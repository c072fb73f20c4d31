//! A deployment: what is there and what is wanted become a plan, the plan is executed, the proxy's counts are reported.

pub mod execute;
mod lease;
pub mod plan;
pub mod report;
mod retire;
pub mod settings;
pub mod wait;
