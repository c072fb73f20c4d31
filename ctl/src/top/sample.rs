//! The counters of every slot at one moment, and what they came to between two.

use std::collections::BTreeMap;
use std::time::Duration;

use config::name::{ServiceName, Slot};

/// A slot of a service.
pub type Place = (ServiceName, Slot);

/// The counters of every slot at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// When the proxy started: a later one counts from zero.
    started: f64,
    slots: BTreeMap<Place, Counters>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Counters {
    requests: u64,
    errors: u64,
    /// The bounds in seconds, and how many requests took no longer.
    buckets: Vec<(f64, u64)>,
}

/// What happened on a slot between two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Requests that ended, a second.
    pub requests: f64,
    /// Of these, answers of 5xx, and those that a drain deadline cut.
    pub errors: f64,
    /// What 99 of 100 requests took at most.
    pub p99: Option<Quantile>,
}

/// A place in a distribution that is known by its buckets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantile {
    /// As if the requests of a bucket were spread evenly over it.
    About(Duration),
    /// Beyond the last bound.
    Over(Duration),
}

impl Sample {
    /// Reads the answer of `GET /metrics`; what is not of interest here is skipped.
    pub fn parse(text: &str) -> Self {
        let mut sample = Self::default();
        for line in text.lines() {
            let Some((head, value)) = line.rsplit_once(' ') else { continue };
            let Some((name, labels)) = head.split_once('{') else {
                if head == "bgproxy_start_time_seconds" {
                    sample.started = value.parse().unwrap_or(0.0);
                }
                continue;
            };
            let label = |wanted: &str| {
                let pairs = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
                pairs.into_iter().find(|(key, _)| *key == wanted).map(|(_, value)| value.trim_matches('"'))
            };
            let place = label("service").zip(label("slot"));
            let Some((Ok(service), Ok(slot))) = place.map(|(service, slot)| (service.parse(), slot.parse())) else {
                continue;
            };
            let Ok(value) = value.parse::<u64>() else { continue };
            let counters = sample.slots.entry((service, slot)).or_default();
            match name {
                "bgproxy_requests_total" => {
                    counters.requests += value;
                    counters.errors += if label("class") == Some("5xx") { value } else { 0 };
                }
                "bgproxy_requests_cut_total" => counters.errors += value,
                "bgproxy_request_duration_seconds_bucket" => {
                    let bound = label("le").and_then(|bound| match bound {
                        "+Inf" => Some(f64::INFINITY),
                        bound => bound.parse().ok(),
                    });
                    counters.buckets.extend(bound.map(|bound| (bound, value)));
                }
                _ => {}
            }
        }
        sample
    }

    /// Returns what happened on each slot since an earlier sample; nothing where the proxy was started in between.
    pub fn since(&self, earlier: &Self, elapsed: Duration) -> BTreeMap<Place, Pace> {
        if elapsed.is_zero() || self.started.total_cmp(&earlier.started).is_ne() {
            return BTreeMap::new();
        }
        let none = Counters::default();
        let pace = |(place, now): (&Place, &Counters)| {
            let before = earlier.slots.get(place).unwrap_or(&none);
            (place.clone(), now.since(before, elapsed.as_secs_f64()))
        };
        self.slots.iter().map(pace).collect()
    }
}

impl Counters {
    fn since(&self, before: &Self, seconds: f64) -> Pace {
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let buckets = self.buckets.iter().map(|(bound, count)| {
            let earlier = before.buckets.iter().find(|(other, _)| other.total_cmp(bound).is_eq());
            (*bound, count.saturating_sub(earlier.map_or(0, |(_, count)| *count)))
        });
        Pace {
            requests: rate(self.requests, before.requests),
            errors: rate(self.errors, before.errors),
            p99: quantile(&buckets.collect::<Vec<_>>(), 0.99),
        }
    }
}

/// Finds what a share of all took at most, from how many took no longer than each bound.
fn quantile(buckets: &[(f64, u64)], share: f64) -> Option<Quantile> {
    let all = buckets.last().map_or(0, |(_, count)| *count);
    if all == 0 {
        return None;
    }
    let wanted = all as f64 * share;
    let (mut lower, mut below) = (0.0, 0);
    for (bound, count) in buckets {
        if *count as f64 >= wanted {
            if bound.is_infinite() {
                return Some(Quantile::Over(Duration::from_secs_f64(lower)));
            }
            let part = (wanted - below as f64) / (count - below).max(1) as f64;
            return Some(Quantile::About(Duration::from_secs_f64(lower + (bound - lower) * part)));
        }
        (lower, below) = (*bound, *count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(requests: u64, errors: u64, buckets: [u64; 3]) -> String {
        let [fast, slow, all] = buckets;
        format!(
            "# HELP bgproxy_requests_total Requests.\n\
             bgproxy_start_time_seconds 1700000000\n\
             bgproxy_requests_total{{service=\"shop\",slot=\"blue\",class=\"2xx\"}} {requests}\n\
             bgproxy_requests_total{{service=\"shop\",slot=\"blue\",class=\"5xx\"}} {errors}\n\
             bgproxy_request_duration_seconds_bucket{{service=\"shop\",slot=\"blue\",le=\"0.01\"}} {fast}\n\
             bgproxy_request_duration_seconds_bucket{{service=\"shop\",slot=\"blue\",le=\"0.1\"}} {slow}\n\
             bgproxy_request_duration_seconds_bucket{{service=\"shop\",slot=\"blue\",le=\"+Inf\"}} {all}\n\
             bgproxy_request_duration_seconds_sum{{service=\"shop\",slot=\"blue\"}} 12.5\n\
             bgproxy_requests_cut_total{{service=\"shop\",slot=\"blue\"}} 1\n\
             bgproxy_flips_total{{service=\"shop\"}} 3\n"
        )
    }

    fn pace(before: &str, now: &str, seconds: u64) -> Pace {
        let paces = Sample::parse(now).since(&Sample::parse(before), Duration::from_secs(seconds));
        paces[&("shop".parse().unwrap(), Slot::Blue)]
    }

    #[test]
    fn what_happened_before_the_first_look_does_not_count() {
        let pace = pace(&text(1000, 10, [0, 0, 1010]), &text(1180, 30, [200, 200, 1210]), 2);
        assert_eq!((pace.requests, pace.errors), (100.0, 10.0));
        // All 200 of the interval were fast, whatever the 1010 before it were.
        assert_eq!(pace.p99, Some(Quantile::About(Duration::from_micros(9900))));
    }

    #[test]
    fn the_p99_lies_within_the_bucket_that_the_99th_of_a_hundred_fell_into() {
        let before = text(0, 0, [0, 0, 0]);
        let among_the_slow = pace(&before, &text(100, 0, [90, 100, 100]), 1).p99;
        assert_eq!(among_the_slow, Some(Quantile::About(Duration::from_millis(91))));
        let beyond = pace(&before, &text(100, 0, [90, 95, 100]), 1).p99;
        assert_eq!(beyond, Some(Quantile::Over(Duration::from_millis(100))));
    }

    #[test]
    fn a_slot_without_requests_has_no_p99() {
        let same = text(5, 0, [5, 5, 5]);
        assert_eq!(pace(&same, &same, 1), Pace { requests: 0.0, errors: 0.0, p99: None });
    }

    #[test]
    fn counters_of_a_proxy_that_was_started_anew_are_not_compared() {
        let before = Sample::parse(&text(5, 0, [5, 5, 5]));
        let now = Sample::parse(&text(9, 0, [9, 9, 9]).replace("1700000000", "1700000009"));
        assert!(now.since(&before, Duration::from_secs(1)).is_empty());
        assert!(before.since(&before, Duration::ZERO).is_empty());
    }
}
