//! What one sees of the requests that pass.

pub(crate) mod access_log;
pub(crate) mod count;
pub mod counters;
pub(crate) mod log_target;
pub(crate) mod metrics;
pub(crate) mod panics;
pub(crate) mod record;
