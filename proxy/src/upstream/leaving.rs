//! What is left under way on endpoints that were taken out of a run: each worker knows its own part, and is asked for it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::run::RunId;

/// A worker that has not looked yet.
const UNKNOWN: u64 = u64::MAX;

/// A question to all workers, and what each has answered last.
pub(crate) struct Leaving {
    /// The run.
    pub(crate) run: RunId,
    /// The first place that takes no new requests any more; nor do those behind it.
    pub(crate) from: usize,
    counts: Box<[AtomicU64]>,
}

impl Leaving {
    pub(crate) fn new(run: RunId, from: usize, workers: usize) -> Self {
        Self { run, from, counts: (0..workers).map(|_| AtomicU64::new(UNKNOWN)).collect() }
    }

    /// Notes what a worker has under way there.
    pub(crate) fn note(&self, worker: usize, count: u64) {
        if let Some(known) = self.counts.get(worker) {
            known.store(count, Ordering::Release);
        }
    }

    /// Returns what all of them have under way there; `None` until each has looked.
    pub(crate) fn in_flight(&self) -> Option<u64> {
        let mut counts = self.counts.iter().map(|count| count.load(Ordering::Acquire));
        counts.try_fold(0, |sum: u64, count| (count != UNKNOWN).then(|| sum + count))
    }
}

#[cfg(test)]
mod tests {
    use config::name::Slot;

    use super::super::run::Run;
    use super::*;

    #[test]
    fn nothing_is_known_until_every_worker_has_looked() {
        let leaving = Leaving::new(Run::new(Slot::Blue, 2).id(), 1, 2);
        leaving.note(0, 3);
        assert_eq!(leaving.in_flight(), None);
        leaving.note(1, 2);
        assert_eq!(leaving.in_flight(), Some(5));
        leaving.note(0, 0);
        assert_eq!(leaving.in_flight(), Some(2));
    }
}
