//! What is counted of a service's requests: one set of counters a worker, so that no two write to one cache line. They outlive
//! every run of a slot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use config::name::Slot;

/// The upper bounds of the latency histogram, in seconds; the last bucket has none.
pub(crate) const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// The classes of statuses, by their first digit less one.
pub(crate) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The counters of one service.
pub struct ServiceCounters {
    workers: Box<[WorkerCounters]>,
}

#[derive(Default)]
#[repr(align(128))]
struct WorkerCounters {
    slots: [SlotCounters; 2],
}

#[derive(Default)]
struct SlotCounters {
    classes: [AtomicU64; CLASSES.len()],
    bytes: AtomicU64,
    /// Each request in the one bucket that it belongs to; they are summed up when they are read.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
    held: AtomicU64,
    retried: AtomicU64,
    ejected: AtomicU64,
    cut: AtomicU64,
    failed: AtomicU64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// The status that the client was sent.
    pub(crate) status: u16,
    /// From its head to its end.
    pub(crate) took: Duration,
    /// Of the answer's body.
    pub(crate) bytes: u64,
}

/// What besides its end is counted of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Held,
    Retried,
    Ejected,
    Cut,
    Failed,
}

/// The sums of all workers, of one slot.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sums {
    pub(crate) classes: [u64; CLASSES.len()],
    pub(crate) bytes: u64,
    /// How many took no longer than each bound, and at the end all of them.
    pub(crate) buckets: [u64; BUCKETS.len() + 1],
    pub(crate) seconds: f64,
    pub(crate) held: u64,
    pub(crate) retried: u64,
    pub(crate) ejected: u64,
    pub(crate) cut: u64,
    pub(crate) failed: u64,
}

impl ServiceCounters {
    /// Returns counters for so many workers.
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers.max(1)).map(|_| WorkerCounters::default()).collect() }
    }

    /// Counts a request at its end.
    pub(crate) fn end(&self, worker: usize, slot: Slot, ended: Ended) {
        let counters = self.of(worker, slot);
        let class = usize::from(ended.status / 100).saturating_sub(1).min(CLASSES.len() - 1);
        let seconds = ended.took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        let micros = u64::try_from(ended.took.as_micros()).unwrap_or(u64::MAX);
        counters.classes[class].fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(ended.bytes, Ordering::Relaxed);
        counters.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        counters.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Counts what happened to a request.
    pub(crate) fn note(&self, worker: usize, slot: Slot, event: Event) {
        let counters = self.of(worker, slot);
        let counter = match event {
            Event::Held => &counters.held,
            Event::Retried => &counters.retried,
            Event::Ejected => &counters.ejected,
            Event::Cut => &counters.cut,
            Event::Failed => &counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the sums of one slot.
    pub(crate) fn sums(&self, slot: Slot) -> Sums {
        let mut sums = Sums::default();
        let mut micros = 0;
        for index in 0..self.workers.len() {
            let counters = self.of(index, slot);
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            for (sum, counter) in sums.classes.iter_mut().zip(&counters.classes) {
                *sum += load(counter);
            }
            for (sum, counter) in sums.buckets.iter_mut().zip(&counters.buckets) {
                *sum += load(counter);
            }
            sums.bytes += load(&counters.bytes);
            micros += load(&counters.micros);
            sums.held += load(&counters.held);
            sums.retried += load(&counters.retried);
            sums.ejected += load(&counters.ejected);
            sums.cut += load(&counters.cut);
            sums.failed += load(&counters.failed);
        }
        for place in 1..sums.buckets.len() {
            sums.buckets[place] += sums.buckets[place - 1];
        }
        sums.seconds = Duration::from_micros(micros).as_secs_f64();
        sums
    }

    fn of(&self, worker: usize, slot: Slot) -> &SlotCounters {
        let place = match slot {
            Slot::Blue => 0,
            Slot::Green => 1,
        };
        &self.workers[worker].slots[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_of_all_workers_are_those_of_a_histogram() {
        let counters = ServiceCounters::new(2);
        let ended = |status, millis, bytes| Ended { status, took: Duration::from_millis(millis), bytes };
        counters.end(0, Slot::Blue, ended(200, 1, 10));
        counters.end(1, Slot::Blue, ended(404, 30, 5));
        counters.end(1, Slot::Blue, ended(502, 60_000, 0));
        counters.note(0, Slot::Blue, Event::Held);
        let sums = counters.sums(Slot::Blue);
        assert_eq!((sums.classes, sums.bytes, sums.held), ([0, 1, 0, 1, 1], 15, 1));
        assert_eq!(sums.buckets, [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3]);
        assert!((sums.seconds - 60.031).abs() < 1e-9, "{}", sums.seconds);
        assert_eq!(counters.sums(Slot::Green), Sums::default());
    }
}
