//! One run of a slot: from its staging until it is cleared. It carries the claim/drain word and the run's counters.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use config::admin::request;
use config::name::Slot;
use tokio::sync::Notify;

use super::inflight::{InFlight, Progress, Released};
use super::tally::Counters;
pub use super::tally::{RunCounts, Tally};
use crate::telemetry::counters::{Ended, ServiceCounters};

/// Tells runs apart over the life of the process; upstream connections are pooled by it, so that none outlives its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(u64);

impl RunId {
    /// Returns what stands for the run's tunnels and event streams, which are told to end later than its requests.
    pub fn long(self) -> Self {
        Self(self.0 | 1 << 63)
    }
}

/// One run of a slot.
pub struct Run {
    id: RunId,
    slot: Slot,
    in_flight: InFlight,
    /// What another slot's new version failed and this one answers while the bake lasts: a word of its own, for it begins
    /// when the run drains.
    replays: InFlight,
    /// Old assets that the other slot's version lacks: the same, and open longer.
    assets: InFlight,
    counters: Counters,
    /// Those of the service, which outlive the run.
    service: Arc<ServiceCounters>,
    /// Rings when a draining run may have become idle.
    idle: Notify,
    /// What is to become of what is still in flight: the bits below.
    ending: AtomicU8,
    /// Tunnels and event streams, which may last for hours.
    long: LongLived,
    /// A request failed on it in its bake, and control was told.
    suspected: AtomicBool,
    /// When the first one failed since it was last found well, in microseconds of its age; none where it is 0.
    failing: AtomicU64,
    began: Instant,
}

/// Requests end now.
const CUT: u8 = 1;
/// Tunnels and event streams end as they should.
const CLOSE_LONG: u8 = 2;
/// They end now.
const CUT_LONG: u8 = 4;
/// Replays end now.
const CUT_REPLAYS: u8 = 8;
/// Old assets end now.
const CUT_ASSETS: u8 = 16;
/// Tunnels and event streams that are to end do so within this, each at a time of its own.
const JITTER: Duration = Duration::from_secs(2);

/// Tunnels and event streams of a run. Behind a lock: they begin and end rarely, beside requests.
#[derive(Default)]
struct LongLived(Mutex<BTreeMap<u64, Instant>>);

impl LongLived {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        self.entries().len()
    }

    fn oldest(&self) -> Option<Instant> {
        self.entries().values().min().copied()
    }
}

/// A tunnel or an event stream, while it lives.
pub struct Long {
    run: Arc<Run>,
    number: u64,
}

impl Long {
    fn begin(run: &Arc<Run>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        run.long.entries().insert(number, Instant::now());
        Self { run: Arc::clone(run), number }
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        self.run.long.entries().remove(&self.number);
    }
}

impl Run {
    /// Returns a new run, which takes claims, for so many workers.
    pub fn new(slot: Slot, workers: usize) -> Arc<Self> {
        Self::of_service(slot, workers, Arc::new(ServiceCounters::new(workers)))
    }

    /// Returns a new run of a service, which counts there too.
    pub fn of_service(slot: Slot, workers: usize, service: Arc<ServiceCounters>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let replays = InFlight::new(workers);
        replays.drain();
        let assets = InFlight::new(workers);
        assets.drain();
        Arc::new(Self {
            replays,
            assets,
            id: RunId(NEXT.fetch_add(1, Ordering::Relaxed)),
            slot,
            in_flight: InFlight::new(workers),
            counters: Counters::new(workers),
            service,
            idle: Notify::new(),
            ending: AtomicU8::new(0),
            long: LongLived::default(),
            suspected: AtomicBool::new(false),
            failing: AtomicU64::new(0),
            began: Instant::now(),
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
        self.claim_as(Kind::First, worker)
    }

    /// The same for a request that the new version failed; `None` where the bake is over.
    pub fn claim_replay(self: &Arc<Self>, worker: usize) -> Option<Claim> {
        self.claim_as(Kind::Replay, worker)
    }

    fn claim_as(self: &Arc<Self>, kind: Kind, worker: usize) -> Option<Claim> {
        if self.word(kind).claim(worker) {
            return Some(Claim { run: Arc::clone(self), worker, kind, has_ended: Cell::new(false) });
        }
        // Refused, it was counted for a moment: whoever waits may have seen that count and must look again.
        self.idle.notify_waiters();
        None
    }

    fn word(&self, kind: Kind) -> &InFlight {
        match kind {
            Kind::First => &self.in_flight,
            Kind::Replay => &self.replays,
            Kind::Asset => &self.assets,
        }
    }

    /// The same for an asset that another slot's version lacks; `None` where nobody is to ask for one here.
    pub fn claim_asset(self: &Arc<Self>, worker: usize) -> Option<Claim> {
        self.claim_as(Kind::Asset, worker)
    }

    /// Lets requests for old assets in.
    pub fn begin_assets(&self) {
        self.ending.fetch_and(!CUT_ASSETS, Ordering::AcqRel);
        self.assets.revive();
    }

    /// Turns them away from now on; the table that names the run no more must be published before.
    pub fn end_assets(&self) {
        self.assets.drain();
    }

    /// Waits until none is under way; at the deadline ends what is left.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn assets_ended(&self, deadline: Duration) {
        if tokio::time::timeout(deadline, self.until_end(Kind::Asset)).await.is_err() {
            self.ending.fetch_or(CUT_ASSETS, Ordering::AcqRel);
        }
    }

    /// Lets replays in: the run is what the new version's bake goes back to.
    pub fn begin_replays(&self) {
        self.ending.fetch_and(!CUT_REPLAYS, Ordering::AcqRel);
        self.replays.revive();
    }

    /// Turns away replays from now on; the table that names no run to go back to must be published before.
    pub fn end_replays(&self) {
        self.replays.drain();
    }

    /// Waits until no replay is under way; at the deadline ends what is left.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn replays_ended(&self, deadline: Duration) {
        if tokio::time::timeout(deadline, self.until_end(Kind::Replay)).await.is_err() {
            self.ending.fetch_or(CUT_REPLAYS, Ordering::AcqRel);
        }
    }

    /// Notes that a request failed here in the bake; false where that is known and looked into already.
    pub fn suspect(&self) -> bool {
        let is_new = !self.suspected.swap(true, Ordering::AcqRel);
        if is_new {
            let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
            // It is known already where it has failed since.
            _ = self.failing.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
        }
        is_new
    }

    /// Notes that it was found well: what failed before tells nothing of what fails next.
    pub fn is_well(&self) {
        self.failing.store(0, Ordering::Release);
    }

    /// Returns for how long it has failed, from the first request or probe that did.
    pub fn failing_for(&self) -> Option<Duration> {
        let since = Some(self.failing.load(Ordering::Acquire)).filter(|since| *since > 0)?;
        Some(self.began.elapsed().saturating_sub(Duration::from_micros(since)))
    }

    /// Tells whether a suspicion is being looked into.
    pub fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Acquire)
    }

    /// Forgets a suspicion that was looked into.
    pub fn clear_suspicion(&self) {
        self.suspected.store(false, Ordering::Release);
    }

    /// Turns away claims from now on; the table that sends requests elsewhere must be published before.
    pub fn drain(&self) {
        self.in_flight.drain();
    }

    /// Takes the run back into service; waiters end with [`Progress::Superseded`].
    pub fn revive(&self) {
        self.ending.fetch_and(CUT_REPLAYS | CUT_ASSETS, Ordering::AcqRel);
        self.in_flight.revive();
        self.idle.notify_waiters();
    }

    /// Ends requests that are still in flight, at the next look of each; tunnels and event streams go on.
    pub fn cut_off(&self) {
        self.ending.fetch_or(CUT, Ordering::AcqRel);
    }

    /// Lets tunnels and event streams end as they should: between two frames or events.
    pub fn close_long(&self) {
        self.ending.fetch_or(CLOSE_LONG, Ordering::AcqRel);
    }

    /// Ends them now.
    pub fn cut_long(&self) {
        self.ending.fetch_or(CUT_LONG, Ordering::AcqRel);
    }

    /// Returns how many tunnels and event streams there are.
    pub fn long_lived(&self) -> usize {
        self.long.count()
    }

    /// Returns since when the oldest of them lives.
    pub fn oldest_long_lived(&self) -> Option<Instant> {
        self.long.oldest()
    }

    /// Waits until a drain has an end: [`Progress::Drained`] or [`Progress::Superseded`], never `InFlight`.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn drained(&self) -> Progress {
        self.until_end(Kind::First).await
    }

    async fn until_end(&self, kind: Kind) -> Progress {
        loop {
            let rung = self.idle.notified();
            tokio::pin!(rung);
            // Registered before looking, so that the last release can't fall between the look and the wait.
            rung.as_mut().enable();
            match self.word(kind).progress() {
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
        self.in_flight.count() + self.replays.count() + self.assets.count()
    }

    /// Counts what became of a request; for the thread of that worker alone.
    pub fn tally(&self, worker: usize, tally: Tally) {
        let event = self.counters.tally(worker, tally);
        let Some(event) = event else { return };
        self.service.note(worker, self.slot, event);
    }

    /// Returns the sums of all workers.
    pub fn counts(&self) -> RunCounts {
        self.counters.sums()
    }
}

/// How long what is in flight on a run that is left may go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// Requests.
    pub(crate) requests: Duration,
    /// WebSockets and event streams.
    pub(crate) tunnels: Duration,
}

impl Deadlines {
    /// Returns those of a flip.
    pub(crate) fn of(flip: &request::Flip) -> Self {
        Self { requests: flip.drain, tunnels: flip.drain_tunnels.unwrap_or(flip.drain) }
    }
}

/// Which of a run's words counts a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It was sent here first.
    First,
    /// Another slot's version failed it.
    Replay,
    /// Another slot's version has no such asset.
    Asset,
}

/// One request's place on a run; given back when dropped.
pub struct Claim {
    run: Arc<Run>,
    worker: usize,
    kind: Kind,
    /// The request was counted at its end.
    has_ended: Cell<bool>,
}

impl Claim {
    /// Tells whether the request should end now.
    pub fn is_cut_off(&self) -> bool {
        let bit = match self.kind {
            Kind::First => CUT,
            Kind::Replay => CUT_REPLAYS,
            Kind::Asset => CUT_ASSETS,
        };
        self.run.ending.load(Ordering::Acquire) & bit != 0
    }

    /// Tells whether a tunnel or an event stream should end as it should.
    pub fn is_closing(&self) -> bool {
        self.run.ending.load(Ordering::Acquire) & CLOSE_LONG != 0
    }

    /// Tells whether it should end now.
    pub fn is_cut_long(&self) -> bool {
        self.run.ending.load(Ordering::Acquire) & CUT_LONG != 0
    }

    /// Returns when it is its turn to end, once it and its like are to: not all at once, for each comes back a moment later.
    pub fn turn(&self) -> Duration {
        let count = self.run.long_lived() as u64;
        let most = (count * 10).clamp(1, JITTER.as_millis() as u64);
        Duration::from_millis(RandomState::new().hash_one(count) % most)
    }

    /// Lists the request among those that may last for hours, until the guard is dropped.
    pub fn is_long(&self) -> Long {
        Long::begin(&self.run)
    }

    /// Returns the run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Counts what became of the request.
    pub fn tally(&self, tally: Tally) {
        self.run.tally(self.worker, tally);
    }

    /// Counts the request at its end.
    pub(crate) fn end(&self, ended: Ended) {
        self.has_ended.set(true);
        self.run.service.end(self.worker, self.run.slot, ended);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tally(Tally::Failed);
            if !self.has_ended.get() {
                // The visitor is answered 500, and a version whose answers make us fail is to be judged by that.
                self.run.service.panicked(self.worker, self.run.slot);
            }
        }
        if self.run.word(self.kind).release(self.worker) == Released::MayBeDrained {
            self.run.idle.notify_waiters();
        }
    }
}
