//! Visitors of our own, for `demo` and `verify`: `wire` is one request and its answer over bare TCP, `steady` sends so many a
//! second whatever becomes of them, `latency` is how long answers took, `ended` what became of other people's requests.

pub(crate) mod ended;
pub(crate) mod latency;
pub(crate) mod steady;
pub(crate) mod wire;

use std::time::Duration;

use serde::Serialize;

/// A request that was not answered, or not rightly.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Failure {
    /// When, since the start of the traffic.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub(crate) at: Duration,
    /// Which visitor.
    pub(crate) client: String,
    /// In words.
    pub(crate) why: String,
}

impl Failure {
    /// Returns it as a line.
    pub(crate) fn line(&self) -> String {
        format!("{:.3} s, {}: {}", self.at.as_secs_f64(), self.client, self.why)
    }
}

/// Writes a time as seconds, to the millisecond.
pub(crate) fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}
