//! The claim and drain word under every interleaving: flip, flip back and wait beside a request.

use std::panic::catch_unwind;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use loom::thread;
use proxy::upstream::inflight::{Atomic, InFlight, Progress, Released};

/// The model checker's own word.
struct Word(AtomicU64);

impl Default for Word {
    fn default() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Atomic for Word {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn add(&self, value: u64) -> u64 {
        self.0.fetch_add(value, Ordering::AcqRel)
    }

    fn sub(&self, value: u64) -> u64 {
        self.0.fetch_sub(value, Ordering::AcqRel)
    }

    fn set(&self, bits: u64) {
        self.0.fetch_or(bits, Ordering::AcqRel);
    }

    fn clear(&self, bits: u64) {
        self.0.fetch_and(!bits, Ordering::AcqRel);
    }
}

/// A service of two runs, and what the world may see of them.
struct Service {
    /// The index of the run that the table names.
    table: AtomicUsize,
    runs: [InFlight<Word>; 2],
    /// Run 0 was seen drained, so its container may be stopped.
    is_stopped: AtomicBool,
    /// Run 0 was taken back into service.
    is_revived: AtomicBool,
    /// The bell that a waiter listens to.
    is_rung: AtomicBool,
}

impl Service {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            table: AtomicUsize::new(0),
            runs: [InFlight::new(1), InFlight::new(1)],
            is_stopped: AtomicBool::new(false),
            is_revived: AtomicBool::new(false),
            is_rung: AtomicBool::new(false),
        })
    }

    /// One request: load the table, claim, and where the claim is refused load the table again.
    fn request(&self, bell: Bell) {
        // Two flips happen at most, so a third look is never refused.
        for _ in 0..3 {
            let run = self.table.load(Ordering::Acquire);
            if !self.runs[run].claim(0) {
                if bell == Bell::OnRefusalToo {
                    self.is_rung.swap(true, Ordering::AcqRel);
                }
                continue;
            }
            if run == 0 && self.is_stopped.load(Ordering::SeqCst) {
                assert!(self.is_revived.load(Ordering::SeqCst), "a request runs on a slot that was called drained");
            }
            if self.runs[run].release(0) == Released::MayBeDrained {
                self.is_rung.swap(true, Ordering::AcqRel);
            }
            return;
        }
        panic!("the request found no slot");
    }

    fn flip(&self) {
        self.table.store(1, Ordering::Release);
        self.runs[0].drain();
    }

    fn flip_back(&self) {
        self.is_revived.store(true, Ordering::SeqCst);
        self.runs[0].revive();
        self.table.store(0, Ordering::Release);
        self.runs[1].drain();
    }

    /// One look of a waiter, which registers for the bell before it looks. Both sides of a bell synchronise, as those of
    /// a real one do: hence the swaps.
    fn look(&self) -> Progress {
        self.is_rung.swap(false, Ordering::AcqRel);
        let progress = self.runs[0].progress();
        if progress == Progress::Drained {
            self.is_stopped.store(true, Ordering::SeqCst);
        }
        progress
    }
}

/// When the bell is rung.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bell {
    OnReleaseAlone,
    OnRefusalToo,
}

#[test]
fn no_request_runs_on_a_drained_slot() {
    loom::model(|| {
        let service = Service::new();
        let visitor = thread::spawn({
            let service = service.clone();
            move || service.request(Bell::OnRefusalToo)
        });
        service.flip();
        service.look();
        visitor.join().unwrap();
        assert_eq!(service.runs[0].progress(), Progress::Drained);
    });
}

#[test]
fn flip_flip_back_and_wait_together_lose_no_request_and_no_waiter() {
    let mut checker = loom::model::Builder::new();
    // Three threads: every interleaving with two preemptions, which ends in seconds.
    checker.preemption_bound = Some(2);
    checker.check(|| {
        let service = Service::new();
        let visitor = thread::spawn({
            let service = service.clone();
            move || service.request(Bell::OnRefusalToo)
        });
        let waiter = thread::spawn({
            let service = service.clone();
            move || service.look()
        });
        service.flip();
        service.flip_back();
        visitor.join().unwrap();
        waiter.join().unwrap();
        assert_eq!(service.runs[0].progress(), Progress::Superseded);
        assert_eq!(service.runs[0].count() + service.runs[1].count(), 0);
    });
}

fn a_waiter_is_always_told(bell: Bell) {
    loom::model(move || {
        let service = Service::new();
        let visitor = thread::spawn({
            let service = service.clone();
            move || service.request(bell)
        });
        service.flip();
        let seen = service.look();
        visitor.join().unwrap();
        let is_told = seen == Progress::Drained || service.is_rung.load(Ordering::SeqCst);
        assert!(is_told, "the waiter saw {seen:?} and waits for ever");
    });
}

#[test]
fn a_waiter_that_saw_a_request_is_told_of_its_end() {
    a_waiter_is_always_told(Bell::OnRefusalToo);
}

#[test]
fn a_bell_rung_on_release_alone_would_leave_a_waiter_waiting() {
    // A refused claim counts for a moment; whoever saw it then must be told too.
    assert!(catch_unwind(|| a_waiter_is_always_told(Bell::OnReleaseAlone)).is_err());
}

/// The model checker's word, were its operations to order nothing around them.
struct Loose(AtomicU64);

impl Default for Loose {
    fn default() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Atomic for Loose {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, value: u64) -> u64 {
        self.0.fetch_add(value, Ordering::Relaxed)
    }

    fn sub(&self, value: u64) -> u64 {
        self.0.fetch_sub(value, Ordering::Relaxed)
    }

    fn set(&self, bits: u64) {
        self.0.fetch_or(bits, Ordering::Relaxed);
    }

    fn clear(&self, bits: u64) {
        self.0.fetch_and(!bits, Ordering::Relaxed);
    }
}

/// What a flip does first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flip {
    Publishes,
    Marks,
}

/// Publish against claim: one flip happens, so a request that is refused once finds its slot at the second look.
fn a_refused_request_finds_the_new_slot<A: Atomic + Send + Sync + 'static>(first: Flip) {
    loom::model(move || {
        let table = Arc::new(AtomicUsize::new(0));
        let runs = Arc::new([InFlight::<A>::new(1), InFlight::<A>::new(1)]);
        let visitor = thread::spawn({
            let (table, runs) = (table.clone(), runs.clone());
            move || {
                let found = (0..2).map(|_| table.load(Ordering::Acquire)).find(|run| runs[*run].claim(0));
                let run = found.expect("the request was turned away twice");
                runs[run].release(0);
            }
        });
        match first {
            Flip::Publishes => {
                table.store(1, Ordering::Release);
                runs[0].drain();
            }
            Flip::Marks => {
                runs[0].drain();
                table.store(1, Ordering::Release);
            }
        }
        visitor.join().unwrap();
    });
}

#[test]
fn a_request_that_a_flip_turns_away_finds_the_new_slot_at_once() {
    a_refused_request_finds_the_new_slot::<Word>(Flip::Publishes);
}

#[test]
fn a_flip_that_marks_before_it_publishes_would_turn_a_request_away_again() {
    assert!(catch_unwind(|| a_refused_request_finds_the_new_slot::<Word>(Flip::Marks)).is_err());
}

#[test]
fn a_word_that_orders_nothing_would_show_a_refused_request_the_old_table() {
    assert!(catch_unwind(|| a_refused_request_finds_the_new_slot::<Loose>(Flip::Publishes)).is_err());
}

/// In the bake a request that the new version failed goes to the run that is gone back to, by the word of its replays or, once
/// that run is live again, by that of its requests.
fn a_failed_request_finds_a_way_back(order: Back) {
    loom::model(move || {
        let (requests, replays) = (Arc::new(InFlight::<Word>::new(1)), Arc::new(InFlight::<Word>::new(1)));
        requests.drain();
        let visitor = thread::spawn({
            let (requests, replays) = (requests.clone(), replays.clone());
            move || {
                if replays.claim(0) {
                    replays.release(0);
                } else {
                    assert!(requests.claim(0), "both turn the request away");
                    requests.release(0);
                }
            }
        });
        match order {
            Back::ReviveFirst => {
                requests.revive();
                replays.drain();
            }
            Back::EndFirst => {
                replays.drain();
                requests.revive();
            }
        }
        visitor.join().unwrap();
    });
}

/// What a flip back does first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    ReviveFirst,
    EndFirst,
}

#[test]
fn a_request_that_fails_while_the_proxy_flips_back_is_answered_by_the_version_before() {
    a_failed_request_finds_a_way_back(Back::ReviveFirst);
}

#[test]
fn replays_that_end_before_the_run_is_live_again_would_lose_it() {
    assert!(catch_unwind(|| a_failed_request_finds_a_way_back(Back::EndFirst)).is_err());
}

#[test]
fn a_separate_flag_and_counter_would_run_a_request_on_a_drained_slot() {
    let model = || {
        loom::model(|| {
            let is_draining = Arc::new(AtomicBool::new(false));
            let (count, is_stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
            let visitor = thread::spawn({
                let (is_draining, count, is_stopped) = (is_draining.clone(), count.clone(), is_stopped.clone());
                move || {
                    if !is_draining.load(Ordering::SeqCst) {
                        count.fetch_add(1, Ordering::SeqCst);
                        assert!(!is_stopped.load(Ordering::SeqCst), "a request runs on a drained slot");
                        count.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
            is_draining.store(true, Ordering::SeqCst);
            if count.load(Ordering::SeqCst) == 0 {
                is_stopped.store(true, Ordering::SeqCst);
            }
            visitor.join().unwrap();
        });
    };
    assert!(catch_unwind(model).is_err());
}
