//! What the clients saw, and what follows from it: who answered when, how fast, and whether all went well.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use crate::traffic::latency::Latency;
use crate::traffic::{Failure, as_seconds};

/// So near to a flip on either side counts as during it.
const NEAR_FLIP: Duration = Duration::from_millis(500);
/// A request that began this shortly after a flip, and was answered by the old version, was on its way already.
const STRAGGLER: Duration = Duration::from_millis(250);

/// An answer that was right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// When the request began, since the start of the load.
    pub(super) began: Duration,
    pub(super) took: Duration,
    pub(super) version: u32,
    /// Whether it was late by order.
    pub(super) is_slow: bool,
}

/// All that the clients saw.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) samples: Vec<Sample>,
    pub(super) failures: Vec<Failure>,
    /// The ids of the POSTs that were sent.
    pub(super) posts: Vec<String>,
    /// Connections that were opened.
    pub(super) connections: u64,
    /// Keep-alive connections that the other side ended.
    pub(super) closed: u64,
}

/// A stretch of time in which one version answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Span {
    pub(super) version: u32,
    #[serde(rename = "from_seconds", serialize_with = "as_seconds")]
    pub(super) from: Duration,
    #[serde(rename = "to_seconds", serialize_with = "as_seconds")]
    pub(super) to: Duration,
    pub(super) answers: u64,
}

/// The latencies, those that are slow by order left out, before the first flip, near any flip, and at all later times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Latencies {
    pub(super) before: Latency,
    pub(super) during: Latency,
    pub(super) after: Latency,
}

impl Tally {
    /// Returns who answered when, in order. The requests' beginnings decide: a slow answer belongs to the time it was asked for.
    pub(super) fn timeline(&self) -> Vec<Span> {
        let mut samples: Vec<&Sample> = self.samples.iter().collect();
        samples.sort_by_key(|sample| sample.began);
        let mut spans: Vec<Span> = Vec::new();
        for sample in samples {
            let count = spans.len();
            let is_straggler = count > 1
                && spans[count - 2].version == sample.version
                && sample.began < spans[count - 1].from + STRAGGLER;
            let place = if is_straggler { count.wrapping_sub(2) } else { count.wrapping_sub(1) };
            match spans.get_mut(place) {
                Some(span) if span.version == sample.version => {
                    span.to = span.to.max(sample.began);
                    span.answers += 1;
                }
                _ => {
                    let (from, to) = (sample.began, sample.began);
                    spans.push(Span { version: sample.version, from, to, answers: 1 });
                }
            }
        }
        spans
    }

    /// Returns the latencies around the given flips.
    pub(super) fn latencies(&self, flips: &[Duration]) -> Latencies {
        let near = |sample: &Sample| {
            let end = sample.began + sample.took;
            flips.iter().any(|flip| sample.began <= *flip + NEAR_FLIP && end + NEAR_FLIP >= *flip)
        };
        let first = flips.iter().min().copied().unwrap_or(Duration::MAX);
        let (mut before, mut during, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for sample in self.samples.iter().filter(|sample| !sample.is_slow) {
            match sample {
                sample if near(sample) => during.push(sample.took),
                sample if sample.began < first => before.push(sample.took),
                sample => after.push(sample.took),
            }
        }
        Latencies { before: Latency::of(before), during: Latency::of(during), after: Latency::of(after) }
    }

    /// Returns how many answers each version gave, the lowest version first.
    pub(super) fn versions(&self) -> std::collections::BTreeMap<u32, u64> {
        let mut versions = std::collections::BTreeMap::new();
        for sample in &self.samples {
            *versions.entry(sample.version).or_default() += 1;
        }
        versions
    }
}

/// Returns the ids that were received more than once.
pub(super) fn twice(received: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut counts: HashMap<String, u32> = HashMap::new();
    for id in received {
        *counts.entry(id).or_default() += 1;
    }
    let mut twice: Vec<String> = counts.into_iter().filter(|(_, count)| *count > 1).map(|(id, _)| id).collect();
    twice.sort();
    twice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(began: u64, version: u32) -> Sample {
        let took = Duration::from_millis(2);
        Sample { began: Duration::from_millis(began), took, version, is_slow: false }
    }

    fn tally(samples: &[(u64, u32)]) -> Tally {
        Tally { samples: samples.iter().map(|(began, version)| sample(*began, *version)).collect(), ..Tally::default() }
    }

    #[test]
    fn the_timeline_names_who_answered_in_order() {
        let tally = tally(&[(0, 1), (3000, 2), (1000, 1), (2000, 2), (4000, 1)]);
        let spans: Vec<(u32, u64)> = tally.timeline().iter().map(|span| (span.version, span.answers)).collect();
        assert_eq!(spans, [(1, 2), (2, 2), (1, 1)]);
    }

    #[test]
    fn a_request_on_its_way_at_the_flip_is_no_flip_back() {
        let tally = tally(&[(0, 1), (1000, 2), (1001, 1), (1002, 2), (2000, 2)]);
        let spans: Vec<(u32, u64)> = tally.timeline().iter().map(|span| (span.version, span.answers)).collect();
        assert_eq!(spans, [(1, 2), (2, 3)]);
    }

    #[test]
    fn latencies_are_told_apart_by_the_flips() {
        let latencies = tally(&[(0, 1), (900, 1), (1100, 2), (5000, 2), (9000, 1)])
            .latencies(&[Duration::from_secs(1), Duration::from_secs(9)]);
        let counts = [latencies.before.answers, latencies.during.answers, latencies.after.answers];
        assert_eq!(counts, [1, 3, 1]);
        assert!((latencies.during.p50_millis - 2.0).abs() < 1e-9);
    }

    #[test]
    fn an_id_received_twice_is_found_though_two_versions_got_one_each() {
        let ids = ["a", "b", "a", "c"].map(str::to_owned);
        assert_eq!(twice(ids), ["a"]);
    }
}
