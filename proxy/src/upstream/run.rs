//! One run of a slot: from its staging until it is cleared. It carries the claim/drain word and the run's counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use config::name::Slot;
use tokio::sync::Notify;

use super::inflight::{InFlight, Progress, Released};
use crate::telemetry::count::Count;
use crate::telemetry::counters::{Ended, Event, ServiceCounters};

/// Tells runs apart over the life of the process; upstream connections are pooled by it, so that none outlives its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(u64);

/// One run of a slot.
pub struct Run {
    id: RunId,
    slot: Slot,
    in_flight: InFlight,
    counters: Box<[Counters]>,
    /// Those of the service, which outlive the run.
    service: Arc<ServiceCounters>,
    /// Rings when a draining run may have become idle.
    idle: Notify,
    /// The drain deadline has passed: what is still in flight ends now.
    cut_off: AtomicBool,
}

/// What became of requests on a run, counted by one worker.
#[derive(Default)]
#[repr(align(128))]
struct Counters {
    answered: Count,
    held: Count,
    retried: Count,
    cut: Count,
    failed: Count,
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
    /// Answers and tunnels ended at the drain deadline.
    pub cut: u64,
    /// Requests answered by an error that we made, and answers that the application broke off.
    pub failed: u64,
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
    /// It was ended at the drain deadline.
    Cut,
    /// It was answered by an error that we made, or its answer was broken off.
    Failed,
}

impl Run {
    /// Returns a new run, which takes claims, for so many workers.
    pub fn new(slot: Slot, workers: usize) -> Arc<Self> {
        Self::of_service(slot, workers, Arc::new(ServiceCounters::new(workers)))
    }

    /// Returns a new run of a service, which counts there too.
    pub fn of_service(slot: Slot, workers: usize, service: Arc<ServiceCounters>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: RunId(NEXT.fetch_add(1, Ordering::Relaxed)),
            slot,
            in_flight: InFlight::new(workers),
            counters: (0..workers.max(1)).map(|_| Counters::default()).collect(),
            service,
            idle: Notify::new(),
            cut_off: AtomicBool::new(false),
        })
    }

    /// Returns its id.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Returns the slot that it is a run of.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Counts a request in for as long as the claim lives; `None` where the run drains: load the table again.
    pub fn claim(self: &Arc<Self>, worker: usize) -> Option<Claim> {
        if self.in_flight.claim(worker) {
            return Some(Claim { run: Arc::clone(self), worker });
        }
        // Refused, it was counted for a moment: whoever waits may have seen that count and must look again.
        self.idle.notify_waiters();
        None
    }

    /// Turns away claims from now on; the table that sends requests elsewhere must be published before.
    pub fn drain(&self) {
        self.in_flight.drain();
    }

    /// Takes the run back into service; waiters end with [`Progress::Superseded`].
    pub fn revive(&self) {
        self.cut_off.store(false, Ordering::Release);
        self.in_flight.revive();
        self.idle.notify_waiters();
    }

    /// Ends what is still in flight, at the next look of each request.
    pub fn cut_off(&self) {
        self.cut_off.store(true, Ordering::Release);
    }

    /// Tells whether what is in flight should end.
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Acquire)
    }

    /// Waits until a drain has an end: [`Progress::Drained`] or [`Progress::Superseded`], never `InFlight`.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn drained(&self) -> Progress {
        loop {
            let rung = self.idle.notified();
            tokio::pin!(rung);
            // Registered before looking, so that the last release can't fall between the look and the wait.
            rung.as_mut().enable();
            match self.in_flight.progress() {
                Progress::InFlight(_) => rung.await,
                end => return end,
            }
        }
    }

    /// Tells how far a drain has got.
    pub fn progress(&self) -> Progress {
        self.in_flight.progress()
    }

    /// Returns how many requests are in flight.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.count()
    }

    /// Returns the sums of all workers.
    pub fn counts(&self) -> RunCounts {
        let sum = |of: fn(&Counters) -> &Count| self.counters.iter().map(|c| of(c).get()).sum();
        RunCounts {
            answered: sum(|c| &c.answered),
            held: sum(|c| &c.held),
            retried: sum(|c| &c.retried),
            cut: sum(|c| &c.cut),
            failed: sum(|c| &c.failed),
        }
    }
}

impl RunCounts {
    /// Returns what was counted since an earlier look.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            answered: self.answered - earlier.answered,
            held: self.held - earlier.held,
            retried: self.retried - earlier.retried,
            cut: self.cut - earlier.cut,
            failed: self.failed - earlier.failed,
        }
    }
}

/// One request's place on a run; given back when dropped.
pub struct Claim {
    run: Arc<Run>,
    worker: usize,
}

impl Claim {
    /// Returns the run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Counts what became of the request.
    pub fn tally(&self, tally: Tally) {
        let counters = &self.run.counters[self.worker];
        let (counter, event) = match tally {
            Tally::Answered => (Some(&counters.answered), None),
            Tally::Held => (Some(&counters.held), Some(Event::Held)),
            Tally::Retried => (Some(&counters.retried), Some(Event::Retried)),
            Tally::Ejected => (None, Some(Event::Ejected)),
            Tally::Cut => (Some(&counters.cut), Some(Event::Cut)),
            Tally::Failed => (Some(&counters.failed), Some(Event::Failed)),
        };
        if let Some(counter) = counter {
            counter.add(1);
        }
        let Some(event) = event else { return };
        self.run.service.note(self.worker, self.run.slot, event);
    }

    /// Counts the request at its end.
    pub(crate) fn end(&self, ended: Ended) {
        self.run.service.end(self.worker, self.run.slot, ended);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.run.in_flight.release(self.worker) == Released::MayBeDrained {
            self.run.idle.notify_waiters();
        }
    }
}
