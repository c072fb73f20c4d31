//! Whether a new version is worse than the one before it: pure, from what was counted of both.

use config::admin::request::Margins;

use crate::telemetry::counters::{BUCKETS, Sums};

/// How sure the judge must be: the likelihood ratio, as a logarithm, of two different shares to one. At thirteen an equally
/// good version is called worse about twice in ten million looks; the margins come on top.
const CERTAINTY: f64 = 13.0;
/// What is quicker than this is not slow, whatever it was before.
const NOT_SLOW: f64 = 0.1;
/// The share of requests that tells what was usual.
const USUAL: f64 = 0.95;

/// What was counted of a version in some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Requests that ended.
    pub(crate) requests: u64,
    /// Of these, those that ended in a 5xx or had to be sent again.
    pub(crate) errors: u64,
    /// How many answers' heads took no longer than each bound of the histogram, and at the end all of them.
    pub(crate) took: [u64; BUCKETS.len() + 1],
}

impl Sample {
    /// Takes it from a slot's counters.
    pub(crate) fn of(sums: &Sums) -> Self {
        Self {
            requests: sums.classes.iter().sum::<u64>() + sums.retried,
            errors: sums.classes[4] + sums.retried,
            took: sums.upstream.buckets,
        }
    }

    /// Returns what was counted since an earlier look.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            took: std::array::from_fn(|at| self.took[at].saturating_sub(earlier.took[at])),
        }
    }
}

/// Returns why the new version is worse than the old one; `None` where it is not, or too little is known of either.
pub(crate) fn judge(old: &Sample, new: &Sample, margins: &Margins) -> Option<String> {
    let least = u64::from(margins.requests).max(1);
    if old.requests.min(new.requests) < least {
        return None;
    }
    let errors = [(new.errors, new.requests), (old.errors, old.requests)];
    if is_greater(errors, margins.errors_percent) {
        let [new, old] = errors.map(|(errors, requests)| format!("{errors} of {requests} requests"));
        return Some(format!("{new} failed, and of the old version's {old}"));
    }
    judge_slowness(&old.took, &new.took, margins)
}

fn judge_slowness(old: &[u64], new: &[u64], margins: &Margins) -> Option<String> {
    let (old_count, new_count) = (*old.last()?, *new.last()?);
    if margins.slow_factor == 0 || old_count.min(new_count) < u64::from(margins.requests).max(1) {
        return None;
    }
    let usual = BUCKETS.iter().zip(old).find(|(_, below)| **below as f64 >= USUAL * old_count as f64)?.0;
    let slow = (usual * f64::from(margins.slow_factor)).max(NOT_SLOW);
    let at = BUCKETS.iter().position(|bound| *bound >= slow)?;
    let shares = [(new_count - new[at], new_count), (old_count - old[at], old_count)];
    is_greater(shares, margins.slow_percent).then(|| {
        let [new, old] = shares.map(|(slow, requests)| format!("{slow} of {requests} requests"));
        format!("{new} took longer than {} s, and of the old version's {old}", BUCKETS[at])
    })
}

/// Tells whether the first share is greater than the second by more than so many of a hundred, and not by chance.
fn is_greater([new, old]: [(u64, u64); 2], percent: u8) -> bool {
    let share = |(part, whole): (u64, u64)| part as f64 / whole as f64;
    if share(new) <= share(old) + f64::from(percent) / 100.0 {
        return false;
    }
    let both = share((new.0 + old.0, new.1 + old.1));
    let evidence = |sample: (u64, u64)| sample.1 as f64 * divergence(share(sample), both);
    evidence(new) + evidence(old) >= CERTAINTY
}

/// Returns how unlike two shares are (Kullback-Leibler), in nats a request.
fn divergence(of: f64, from: f64) -> f64 {
    let part = |of: f64, from: f64| if of == 0.0 { 0.0 } else { of * (of / from).ln() };
    part(of, from) + part(1.0 - of, 1.0 - from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(errors: u64, requests: u64) -> Sample {
        Sample { requests, errors, took: [requests; BUCKETS.len() + 1] }
    }

    /// Answers of which so many took no longer than 5 ms, and the others no longer than that bucket's bound.
    fn slow(requests: u64, slow: u64, bucket: usize) -> Sample {
        let took = std::array::from_fn(|at| match at {
            _ if at >= bucket => requests,
            _ if at >= 2 => requests - slow,
            _ => 0,
        });
        Sample { requests, errors: 0, took }
    }

    #[test]
    fn a_version_is_judged_when_enough_is_known_of_both() {
        let margins = Margins::default();
        assert_eq!(judge(&errors(0, 1_000), &errors(49, 49), &margins), None, "of the new one too little");
        assert_eq!(judge(&errors(0, 49), &errors(500, 500), &margins), None, "no baseline: not judged");
        let verdict = judge(&errors(0, 1_000), &errors(50, 50), &margins).unwrap();
        assert_eq!(verdict, "50 of 50 requests failed, and of the old version's 0 of 1000 requests");
        assert!(judge(&errors(0, 400), &errors(12, 60), &margins).is_some(), "a fifth");
        assert_eq!(
            judge(&errors(40, 400), &errors(12, 60), &margins),
            None,
            "a fifth where a tenth is usual may be chance"
        );
        assert_eq!(judge(&errors(0, 100_000), &errors(4_000, 100_000), &margins), None, "within the margin");
        let never = Margins { errors_percent: 100, ..margins };
        assert_eq!(judge(&errors(0, 1_000), &errors(1_000, 1_000), &never), None);
    }

    #[test]
    fn a_version_that_is_far_slower_is_bad_and_a_little_slower_is_not() {
        let margins = Margins::default();
        let old = slow(1_000, 0, 2);
        // 250 ms where 5 ms were usual.
        let verdict = judge(&old, &slow(100, 40, 7), &margins).unwrap();
        assert_eq!(verdict, "40 of 100 requests took longer than 0.1 s, and of the old version's 0 of 1000 requests");
        assert_eq!(judge(&old, &slow(100, 15, 7), &margins), None, "within the margin");
        assert_eq!(judge(&old, &slow(100, 100, 6), &margins), None, "nothing under 100 ms is slow");
        assert_eq!(judge(&old, &slow(100, 40, 7), &Margins { slow_factor: 0, ..margins }), None);
        // What was slow before is not new.
        assert_eq!(judge(&slow(1_000, 300, 9), &slow(100, 40, 9), &margins), None);
    }

    /// A bake as the proxy sees it: looks at a growing sample. Returns whether it ended with a verdict.
    fn bake(random: &mut impl FnMut() -> f64, share: [f64; 2], baseline: u64) -> Option<u64> {
        let mut draw = |share: f64, count: u64| (0..count).filter(|_| random() < share).count() as u64;
        let old = errors(draw(share[0], baseline), baseline);
        let mut new = Sample::default();
        // Ten looks a second for ten seconds, at 200 requests a second.
        for _ in 0..100 {
            let more = errors(draw(share[1], 20), 20);
            new = errors(new.errors + more.errors, new.requests + more.requests);
            if judge(&old, &new, &Margins::default()).is_some() {
                return Some(new.requests);
            }
        }
        None
    }

    #[test]
    fn of_a_thousand_equally_good_versions_none_is_called_bad_and_of_bad_ones_all() {
        // SplitMix64: the same numbers each time.
        let mut state = 42_u64;
        let mut random = || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed >> 40) as f64 / f64::from(1_u32 << 24)
        };
        for share in [0.0, 0.001, 0.01, 0.05, 0.2, 0.5] {
            for baseline in [50, 300, 5_000] {
                for trial in 0..1_000 {
                    let ended = bake(&mut random, [share, share], baseline);
                    assert_eq!(ended, None, "share {share}, baseline {baseline}, trial {trial}");
                }
            }
        }
        for baseline in [200, 1_000, 60_000] {
            for _ in 0..1_000 {
                let requests = bake(&mut random, [0.0, 0.2], baseline).expect("a fifth of errors is seen");
                assert!(requests <= 200, "it took {requests} requests");
            }
        }
    }
}
