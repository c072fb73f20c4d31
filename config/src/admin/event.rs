//! What happens, one JSON object a line: the stream of `/v1/events` and the progress of long calls.

use serde::{Deserialize, Serialize};

use super::error::AdminError;
use super::response::Counts;
use crate::name::{EndpointAddr, ServiceName, Slot};

/// Something that happened, or how far a long call has got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Endpoints were put into a slot; probing begins.
    Staged {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
        /// The service's generation now.
        generation: u64,
    },
    /// One probe's outcome, sent when it differs from the one before.
    Probe {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
        /// The endpoint.
        address: EndpointAddr,
        /// Whether it passed.
        passed: bool,
        /// The outcome in words: `200`, `503`, `connection refused`.
        outcome: String,
    },
    /// Every endpoint of the slot passed often enough; the last line of a successful `stage`.
    Healthy {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
        /// From staging until now.
        seconds: f64,
    },
    /// A slot became live.
    Flipped {
        /// The service.
        service: ServiceName,
        /// The slot that is live now.
        live: Slot,
        /// The slot that was.
        old: Option<Slot>,
        /// From just before publishing until the old slot was marked.
        flip_micros: u64,
    },
    /// Requests are still in flight on the old slot.
    Draining {
        /// The service.
        service: ServiceName,
        /// The old slot.
        slot: Slot,
        /// How many.
        in_flight: u64,
    },
    /// Nothing is in flight on the old slot any more; the last line of a successful `drain`.
    Drained {
        /// The service.
        service: ServiceName,
        /// The old slot.
        slot: Slot,
        /// From the flip until now.
        seconds: f64,
        /// What became of the requests.
        counts: Counts,
    },
    /// The bake is over and the new slot stays live; the last line of a `drain` that waits for it.
    Baked {
        /// The service.
        service: ServiceName,
        /// The slot that is live.
        live: Slot,
        /// What became of the requests.
        counts: Counts,
    },
    /// The proxy flipped back by itself; the last line of a `drain` that waits for the bake.
    FlippedBack {
        /// The service.
        service: ServiceName,
        /// The slot that is live again.
        live: Slot,
        /// The slot that was left.
        left: Slot,
        /// Whether nothing answered there any more, or it answered badly.
        verdict: Verdict,
        /// Why, in words.
        reason: String,
        /// From just before publishing until the left slot was marked.
        flip_micros: u64,
        /// From the first request or probe that failed until the flip back; absent where it answered, but badly.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failing_micros: Option<u64>,
        /// What became of the requests so far.
        counts: Counts,
    },
    /// Requests are held from now on.
    Paused {
        /// The service.
        service: ServiceName,
    },
    /// Held requests were let go.
    Resumed {
        /// The service.
        service: ServiceName,
    },
    /// Visitors are shown a page, or no more.
    Maintenance {
        /// The service.
        service: ServiceName,
        /// Whether it began.
        on: bool,
    },
    /// A share of visitors goes to the idle slot, or none any more.
    Canary {
        /// The service.
        service: ServiceName,
        /// The idle slot.
        slot: Slot,
        /// Of a hundred visitors.
        percent: u8,
        /// Why the proxy ended it by itself, where it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The live slot has other endpoints, all of them healthy; the last line of a successful `endpoints`.
    Endpoints {
        /// The service.
        service: ServiceName,
        /// The live slot.
        slot: Slot,
        /// From the change until now.
        seconds: f64,
        /// Requests that are under way on those that were taken out, where they did not end in time.
        in_flight: u64,
    },
    /// A slot was emptied.
    Cleared {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
    },
    /// A live endpoint's health changed.
    Health {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
        /// The endpoint.
        address: EndpointAddr,
        /// The new verdict.
        healthy: bool,
        /// The probe's outcome.
        outcome: String,
    },
    /// Routes or settings changed.
    Changed {
        /// The service.
        service: ServiceName,
        /// Its generation now.
        generation: u64,
    },
    /// The service is gone.
    Removed {
        /// The service.
        service: ServiceName,
    },
    /// The proxy's own settings changed.
    Configured {
        /// Their generation now.
        generation: u64,
    },
    /// A certificate came by itself, or did not come.
    Certificate {
        /// The domain.
        domain: String,
        /// When it ends, RFC 3339, where it came.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_after: Option<String>,
        /// Why it did not come.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// The configuration file was read again.
    Reloaded {
        /// Empty where it was applied; else why the old one stays.
        problems: Vec<String>,
    },
    /// The call failed; always the last line.
    Error(AdminError),
}

/// What was found wrong with a new slot in its bake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing answers there.
    Dead,
    /// It answers with errors, or slowly, far more often than the old slot did.
    Bad,
}
