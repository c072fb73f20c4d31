//! What one sees of the requests that pass.

pub(crate) mod access_log;
pub(crate) mod record;
