//! How many requests a client address may send: one table of numbers a service, without a lock, which outlives every change
//! of the routes.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Addresses share a place where their hashes meet. With so many places ten thousand addresses that are all at their limit
/// make one of seven share, and then two have the rate of one; the table takes half a MiB, once a service has a limit.
const PLACES: usize = 64 * 1024;

/// A rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests in a second, in the long run.
    pub per_second: NonZeroU32,
    /// How many may come at once.
    pub burst: NonZeroU32,
}

/// The same as it is counted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// From one request to the next, in the long run, in nanoseconds.
    pub(crate) step: u64,
    /// How many may come at once.
    pub(crate) burst: NonZeroU32,
}

/// What each address has used up. It is the generic cell rate algorithm: a place holds the time at which its address would
/// be back to nothing used, in nanoseconds since the table began.
#[derive(Debug, Default)]
pub struct Rates {
    used: OnceLock<Used>,
}

#[derive(Debug)]
struct Used {
    places: Box<[AtomicU64]>,
    // Seeded anew in each process: nobody can choose whom to share a place with.
    hasher: RandomState,
    began: Instant,
}

impl Rates {
    /// Counts a request of an address.
    ///
    /// # Errors
    /// Where it is one too many: how long to wait; it is not counted then.
    pub fn admit(&self, address: IpAddr, rate: Rate, now: Instant) -> Result<(), Duration> {
        let pace = Pace { step: 1_000_000_000 / u64::from(rate.per_second.get()), burst: rate.burst };
        self.take(network(address), pace, now)
    }

    /// Counts a request of whomever clients are told apart by.
    ///
    /// # Errors
    /// Where it is one too many: how long to wait; it is not counted then.
    pub(crate) fn take(&self, who: impl Hash, pace: Pace, now: Instant) -> Result<(), Duration> {
        let Used { places, hasher, began } = self.used.get_or_init(|| Used {
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            began: now,
        });
        let place = usize::try_from(hasher.hash_one(who)).unwrap_or(0) % PLACES;
        let step = pace.step;
        let most = step.saturating_mul(u64::from(pace.burst.get()));
        let now = u64::try_from(now.saturating_duration_since(*began).as_nanos()).unwrap_or(u64::MAX / 2);
        let take = |until: u64| {
            let until = until.max(now).saturating_add(step);
            (until - now <= most).then_some(until)
        };
        places[place].fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map(drop).map_err(|until| {
            Duration::from_nanos(until.max(now).saturating_add(step).saturating_sub(most).saturating_sub(now))
        })
    }
}

/// Returns what stands for one client: an IPv4 address, or the /64 that an IPv6 client has all addresses of.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second: per_second.try_into().unwrap(), burst: burst.try_into().unwrap() }
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let (rates, rate, start) = (Rates::default(), rate(10, 5), Instant::now());
        let address = IpAddr::from([192, 0, 2, 1]);
        let at = |millis: u64| rates.admit(address, rate, start + Duration::from_millis(millis));
        assert!((0..5).all(|_| at(0).is_ok()));
        assert_eq!(at(0), Err(Duration::from_millis(100)));
        assert_eq!(at(60), Err(Duration::from_millis(40)));
        assert_eq!((at(100), at(100)), (Ok(()), Err(Duration::from_millis(100))));
        // What was refused was not counted, and after a pause there is a burst again, and no more.
        let passed = (0..20).filter(|_| at(10_000).is_ok()).count();
        assert_eq!(passed, 5);
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_others_have_rates_of_their_own() {
        let (rates, rate, now) = (Rates::default(), rate(1, 1), Instant::now());
        let admits = |address: &str| rates.admit(address.parse().unwrap(), rate, now).is_ok();
        assert!(admits("2001:db8:1:2::1") && !admits("2001:db8:1:2::ffff"));
        // Two of a hundred may share a place by chance, many may not.
        let others = (0..100).filter(|other| admits(&format!("2001:db8:1:{other:x}::9"))).count();
        assert!(others >= 95, "{others}");
        assert!(!admits("::ffff:192.0.2.1") || !admits("192.0.2.1"));
    }
}
