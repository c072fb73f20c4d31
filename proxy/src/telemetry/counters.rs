//! What is counted of a service's requests: one set of counters a worker, so that no two write to one cache line. They outlive
//! every run of a slot.

use std::time::Duration;

use config::name::Slot;

use super::count::Count;

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
    /// Answers that no slot has a part in.
    own: [Count; CLASSES.len()],
    /// Of these, those out of folders.
    files: Count,
}

#[derive(Default)]
struct SlotCounters {
    classes: [Count; CLASSES.len()],
    bytes: Count,
    total: Durations,
    upstream: Durations,
    held: Count,
    retried: Count,
    ejected: Count,
    closed: Count,
    cut: Count,
    failed: Count,
    assets: Count,
}

/// A histogram of durations.
#[derive(Default)]
struct Durations {
    /// Each in the one bucket that it belongs to; they are summed up when they are read.
    buckets: [Count; BUCKETS.len() + 1],
    micros: Count,
}

impl Durations {
    fn add(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.buckets[bucket].add(1);
        self.micros.add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// The status that the client was sent.
    pub(crate) status: u16,
    /// From its head to its end.
    pub(crate) took: Duration,
    /// From its sending to the head of the application's answer; `None` where none came.
    pub(crate) upstream: Option<Duration>,
    /// Of the answer's body.
    pub(crate) bytes: u64,
}

/// What besides its end is counted of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Held,
    Retried,
    Ejected,
    Closed,
    Cut,
    Failed,
    Asset,
}

/// The sums of all workers, of one slot.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sums {
    pub(crate) classes: [u64; CLASSES.len()],
    pub(crate) bytes: u64,
    /// From head to end.
    pub(crate) total: Histogram,
    /// From sending to the head of the answer.
    pub(crate) upstream: Histogram,
    pub(crate) held: u64,
    pub(crate) retried: u64,
    pub(crate) ejected: u64,
    pub(crate) closed: u64,
    pub(crate) cut: u64,
    pub(crate) failed: u64,
    pub(crate) assets: u64,
}

/// The sums of a histogram.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histogram {
    /// How many took no longer than each bound, and at the end all of them.
    pub(crate) buckets: [u64; BUCKETS.len() + 1],
    pub(crate) seconds: f64,
}

impl Histogram {
    fn add(&mut self, durations: &Durations) {
        let mut below = 0;
        for (sum, counter) in self.buckets.iter_mut().zip(&durations.buckets) {
            below += counter.get();
            *sum += below;
        }
        self.seconds += Duration::from_micros(durations.micros.get()).as_secs_f64();
    }
}

impl ServiceCounters {
    /// Returns counters for so many workers.
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers.max(1)).map(|_| WorkerCounters::default()).collect() }
    }

    /// Counts a request at its end.
    pub(crate) fn end(&self, worker: usize, slot: Slot, ended: Ended) {
        let counters = self.of(worker, slot);
        counters.classes[class(ended.status)].add(1);
        counters.bytes.add(ended.bytes);
        counters.total.add(ended.took);
        if let Some(upstream) = ended.upstream {
            counters.upstream.add(upstream);
        }
    }

    /// Counts a request that a fault of ours ended, answered 500; how long it took nobody knows any more.
    pub(crate) fn panicked(&self, worker: usize, slot: Slot) {
        self.of(worker, slot).classes[CLASSES.len() - 1].add(1);
    }

    /// Counts an answer that no slot has a part in, by its status.
    pub(crate) fn own(&self, worker: usize, status: u16) {
        self.workers[worker].own[class(status)].add(1);
    }

    /// Returns how many there were of each class.
    pub(crate) fn owned(&self) -> [u64; CLASSES.len()] {
        std::array::from_fn(|class| self.workers.iter().map(|worker| worker.own[class].get()).sum())
    }

    /// Counts an answer out of a folder.
    pub(crate) fn file(&self, worker: usize) {
        self.workers[worker].files.add(1);
    }

    /// Returns how many there were.
    pub(crate) fn files(&self) -> u64 {
        self.workers.iter().map(|worker| worker.files.get()).sum()
    }

    /// Counts what happened to a request.
    pub(crate) fn note(&self, worker: usize, slot: Slot, event: Event) {
        let counters = self.of(worker, slot);
        let counter = match event {
            Event::Held => &counters.held,
            Event::Retried => &counters.retried,
            Event::Ejected => &counters.ejected,
            Event::Closed => &counters.closed,
            Event::Cut => &counters.cut,
            Event::Failed => &counters.failed,
            Event::Asset => &counters.assets,
        };
        counter.add(1);
    }

    /// Returns the sums of one slot.
    pub(crate) fn sums(&self, slot: Slot) -> Sums {
        let mut sums = Sums::default();
        for index in 0..self.workers.len() {
            let counters = self.of(index, slot);
            let load = Count::get;
            for (sum, counter) in sums.classes.iter_mut().zip(&counters.classes) {
                *sum += load(counter);
            }
            sums.total.add(&counters.total);
            sums.upstream.add(&counters.upstream);
            sums.bytes += load(&counters.bytes);
            sums.held += load(&counters.held);
            sums.retried += load(&counters.retried);
            sums.ejected += load(&counters.ejected);
            sums.closed += load(&counters.closed);
            sums.cut += load(&counters.cut);
            sums.failed += load(&counters.failed);
            sums.assets += load(&counters.assets);
        }
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

/// Returns the place of a status among the classes.
fn class(status: u16) -> usize {
    usize::from(status / 100).saturating_sub(1).min(CLASSES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_of_all_workers_are_those_of_a_histogram() {
        let counters = ServiceCounters::new(2);
        let ended = |status, millis, bytes| {
            let upstream = (status != 502).then(|| Duration::from_millis(millis / 2));
            Ended { status, took: Duration::from_millis(millis), upstream, bytes }
        };
        counters.end(0, Slot::Blue, ended(200, 1, 10));
        counters.end(1, Slot::Blue, ended(404, 30, 5));
        counters.end(1, Slot::Blue, ended(502, 60_000, 0));
        counters.note(0, Slot::Blue, Event::Held);
        let sums = counters.sums(Slot::Blue);
        assert_eq!((sums.classes, sums.bytes, sums.held), ([0, 1, 0, 1, 1], 15, 1));
        assert_eq!(sums.total.buckets, [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3]);
        assert!((sums.total.seconds - 60.031).abs() < 1e-9, "{}", sums.total.seconds);
        assert_eq!(sums.upstream.buckets, [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        counters.own(0, 308);
        counters.own(1, 301);
        counters.own(1, 403);
        assert_eq!(counters.owned(), [0, 0, 2, 1, 0]);
        assert_eq!(counters.sums(Slot::Green), Sums::default());
    }
}
