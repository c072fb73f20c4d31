//! What became of the requests of a run: counted by each worker for itself, and summed up.

use crate::telemetry::count::Count;
use crate::telemetry::counters::Event;

/// What became of requests on a run.
pub(super) struct Counters(Box<[Shard]>);

impl Counters {
    /// Returns the counters of so many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Shard::default()).collect())
    }

    /// Counts what became of a request, for the thread of that worker alone; returns what its service counts of it.
    pub(super) fn tally(&self, worker: usize, tally: Tally) -> Option<Event> {
        let shard = &self.0[worker];
        let (counter, event) = match tally {
            Tally::Answered => (Some(&shard.answered), None),
            Tally::Held => (Some(&shard.held), Some(Event::Held)),
            Tally::Retried => (Some(&shard.retried), Some(Event::Retried)),
            Tally::Ejected => (None, Some(Event::Ejected)),
            Tally::Closed => (Some(&shard.closed), Some(Event::Closed)),
            Tally::Cut => (Some(&shard.cut), Some(Event::Cut)),
            Tally::Failed => (Some(&shard.failed), Some(Event::Failed)),
            Tally::Asset => (Some(&shard.assets), Some(Event::Asset)),
        };
        if let Some(counter) = counter {
            counter.add(1);
        }
        event
    }

    /// Returns the sums of all workers.
    pub(super) fn sums(&self) -> RunCounts {
        let sum = |of: fn(&Shard) -> &Count| self.0.iter().map(|shard| of(shard).get()).sum();
        RunCounts {
            answered: sum(|shard| &shard.answered),
            held: sum(|shard| &shard.held),
            retried: sum(|shard| &shard.retried),
            closed: sum(|shard| &shard.closed),
            cut: sum(|shard| &shard.cut),
            failed: sum(|shard| &shard.failed),
            assets: sum(|shard| &shard.assets),
        }
    }
}

/// What one worker counted.
#[derive(Default)]
#[repr(align(128))]
struct Shard {
    answered: Count,
    held: Count,
    retried: Count,
    closed: Count,
    cut: Count,
    failed: Count,
    assets: Count,
}

/// The sums of a run's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCounts {
    /// Answers whose head came from the application.
    pub answered: u64,
    /// Requests that waited for the application to come back.
    pub held: u64,
    /// Requests sent a second time.
    pub retried: u64,
    /// Tunnels and event streams ended as they should at the drain deadline.
    pub closed: u64,
    /// Answers and tunnels ended at the drain deadline.
    pub cut: u64,
    /// Requests answered by an error that we made, and answers that the application broke off.
    pub failed: u64,
    /// Old assets that another slot's version lacks.
    pub assets: u64,
}

/// What is counted of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tally {
    /// The head of an answer came from the application.
    Answered,
    /// It waits for the application to come back.
    Held,
    /// It was sent a second time.
    Retried,
    /// For it and those before it an endpoint was ejected.
    Ejected,
    /// A tunnel or an event stream ended as it should at the drain deadline.
    Closed,
    /// It was ended at the drain deadline.
    Cut,
    /// It was answered by an error that we made, or its answer was broken off.
    Failed,
    /// It is an old asset, which another slot's version lacks.
    Asset,
}

impl RunCounts {
    /// Returns what was counted since an earlier look.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            answered: self.answered - earlier.answered,
            held: self.held - earlier.held,
            retried: self.retried - earlier.retried,
            closed: self.closed - earlier.closed,
            cut: self.cut - earlier.cut,
            failed: self.failed - earlier.failed,
            assets: self.assets - earlier.assets,
        }
    }
}
