//! How long answers took.

use std::time::Duration;

use serde::Serialize;

/// How long answers took: of a hundred the fiftieth, the ninety-ninth, and the slowest of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) answers: usize,
    pub(crate) p50_millis: f64,
    pub(crate) p99_millis: f64,
    pub(crate) slowest_millis: f64,
}

impl Latency {
    /// Returns what follows from all of them; zeros where there are none.
    pub(crate) fn of(mut took: Vec<Duration>) -> Self {
        took.sort();
        let at = |share| percentile(&took, share).as_secs_f64() * 1000.0;
        Self { answers: took.len(), p50_millis: at(50), p99_millis: at(99), slowest_millis: at(100) }
    }
}

/// Returns the smallest of the sorted values that at least `percent` of them don't exceed; zero where there are none.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Duration::from_millis(100));
        assert_eq!(percentile(&values, 99), Duration::from_millis(198));
        assert_eq!(percentile(&values, 100), Duration::from_millis(200));
        assert_eq!(percentile(&values[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
