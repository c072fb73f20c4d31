//! A deployment: what is there and what is wanted become a plan, the plan is executed, the proxy's counts are reported.

pub mod execute;
pub mod plan;
pub mod report;
pub mod settings;
pub mod wait;
