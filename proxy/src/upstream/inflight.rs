//! The claim/drain word: how many requests are on a slot run, and whether new ones are turned away, in one atomic.
//!
//! Count and draining bit live in one word, so that "drained" can't be true while a request is about to start. The
//! order of a flip is: publish the new table, [`InFlight::drain`] the old run, wait for [`InFlight::progress`]. A request
//! loads the table, claims, and where the claim is refused loads the table again: it then sees the new one, since the
//! bit was set after publishing. The word is sharded a worker; a shard is only ever claimed by its own worker.

use std::sync::atomic::{AtomicU64, Ordering};

/// Set in every shard of a run that takes no new requests; the other bits count those in flight.
const DRAINING: u64 = 1 << 63;

/// The four operations that the word needs; a model checker brings its own.
pub trait Atomic: Default {
    /// Reads the value, seeing all that was written before the value was.
    fn load(&self) -> u64;
    /// Adds, and returns the value before.
    fn add(&self, value: u64) -> u64;
    /// Subtracts, and returns the value before.
    fn sub(&self, value: u64) -> u64;
    /// Sets bits.
    fn set(&self, bits: u64);
    /// Clears bits.
    fn clear(&self, bits: u64);
}

impl Atomic for AtomicU64 {
    fn load(&self) -> u64 {
        Self::load(self, Ordering::Acquire)
    }

    fn add(&self, value: u64) -> u64 {
        self.fetch_add(value, Ordering::AcqRel)
    }

    fn sub(&self, value: u64) -> u64 {
        self.fetch_sub(value, Ordering::AcqRel)
    }

    fn set(&self, bits: u64) {
        self.fetch_or(bits, Ordering::AcqRel);
    }

    fn clear(&self, bits: u64) {
        self.fetch_and(!bits, Ordering::AcqRel);
    }
}

/// How far a drain has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is in flight, and nothing can start.
    Drained,
    /// So many requests are in flight.
    InFlight(u64),
    /// The run was taken back into service.
    Superseded,
}

/// What a released claim leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Others are in flight, or the run is not draining.
    Ongoing,
    /// It was the last of its shard on a draining run: whoever waits should look.
    MayBeDrained,
}

/// A shard on cache lines of its own, so that workers don't slow one another.
#[derive(Default)]
#[repr(align(128))]
struct Shard<A>(A);

/// Requests in flight on one run of a slot.
pub struct InFlight<A = AtomicU64> {
    shards: Box<[Shard<A>]>,
}

impl<A: Atomic> InFlight<A> {
    /// Returns an idle word with a shard for each worker.
    pub fn new(workers: usize) -> Self {
        Self { shards: (0..workers.max(1)).map(|_| Shard::default()).collect() }
    }

    /// Counts a request in; false where the run drains, and then nothing is counted.
    #[must_use]
    pub fn claim(&self, worker: usize) -> bool {
        let word = &self.shards[worker].0;
        if word.add(1) & DRAINING == 0 {
            return true;
        }
        // Counted in for a moment on a draining run: the waiter may have seen 1 and must not miss the way back to 0.
        word.sub(1);
        false
    }

    /// Counts a request out.
    pub fn release(&self, worker: usize) -> Released {
        if self.shards[worker].0.sub(1) == DRAINING | 1 { Released::MayBeDrained } else { Released::Ongoing }
    }

    /// Turns away every claim from now on.
    pub fn drain(&self) {
        for shard in &self.shards {
            shard.0.set(DRAINING);
        }
    }

    /// Lets claims in again; a waiter finds [`Progress::Superseded`].
    pub fn revive(&self) {
        for shard in &self.shards {
            shard.0.clear(DRAINING);
        }
    }

    /// Tells how far a drain has got.
    pub fn progress(&self) -> Progress {
        let mut in_flight = 0;
        for shard in &self.shards {
            let word = shard.0.load();
            if word & DRAINING == 0 {
                return Progress::Superseded;
            }
            in_flight += word & !DRAINING;
        }
        if in_flight == 0 { Progress::Drained } else { Progress::InFlight(in_flight) }
    }

    /// Returns how many requests are in flight, draining or not.
    pub fn count(&self) -> u64 {
        self.shards.iter().map(|shard| shard.0.load() & !DRAINING).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draining_run_refuses_claims_and_counts_none_of_them() {
        let word: InFlight = InFlight::new(2);
        assert!(word.claim(0) && word.claim(1));
        word.drain();
        assert!(!word.claim(0));
        assert_eq!(word.progress(), Progress::InFlight(2));
        assert_eq!(word.release(0), Released::MayBeDrained);
        assert_eq!(word.release(1), Released::MayBeDrained);
        assert_eq!(word.progress(), Progress::Drained);
    }

    #[test]
    fn a_revived_run_takes_claims_and_ends_the_wait() {
        let word: InFlight = InFlight::new(1);
        word.drain();
        word.revive();
        assert_eq!(word.progress(), Progress::Superseded);
        assert!(word.claim(0));
        assert_eq!(word.release(0), Released::Ongoing);
    }
}
