//! Holding against resuming under every interleaving: nobody waits at a gate that is open.

use std::panic::catch_unwind;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

/// A gate and its bell. Ringing marks those who are registered; a real bell wakes them.
struct Gate {
    is_open: AtomicBool,
    is_registered: AtomicBool,
    is_rung: AtomicBool,
}

/// What a request does first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Registers,
    Looks,
}

impl Gate {
    /// One request: true where it goes on, or will be woken.
    fn pass(&self, first: First) {
        if first == First::Registers {
            self.is_registered.swap(true, Ordering::AcqRel);
        }
        if self.is_open.load(Ordering::Acquire) {
            return;
        }
        if first == First::Looks {
            self.is_registered.swap(true, Ordering::AcqRel);
        }
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::Release);
        if self.is_registered.swap(false, Ordering::AcqRel) {
            self.is_rung.store(true, Ordering::Release);
        }
    }
}

fn nobody_is_left_waiting(first: First) {
    loom::model(move || {
        let gate = Arc::new(Gate {
            is_open: AtomicBool::new(false),
            is_registered: AtomicBool::new(false),
            is_rung: AtomicBool::new(false),
        });
        let visitor = thread::spawn({
            let gate = gate.clone();
            move || {
                gate.pass(first);
                gate.is_open.load(Ordering::Acquire)
            }
        });
        gate.open();
        let saw_it_open = visitor.join().unwrap();
        // Still registered and not rung, with the gate seen closed: it waits for a bell that has rung already.
        let waits = gate.is_registered.load(Ordering::Acquire) && !gate.is_rung.load(Ordering::Acquire);
        assert!(!waits || saw_it_open && first == First::Registers, "a request waits at an open gate");
    });
}

#[test]
fn a_request_that_registers_before_it_looks_is_let_go() {
    nobody_is_left_waiting(First::Registers);
}

#[test]
fn one_that_looks_before_it_registers_could_wait_for_ever() {
    assert!(catch_unwind(|| nobody_is_left_waiting(First::Looks)).is_err());
}

/// What a resume does first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resume {
    Publishes,
    Opens,
}

/// A request that was let through a gate looks at the table again, and must not come to the same gate.
fn who_is_let_go_finds_the_service_open(first: Resume) {
    loom::model(move || {
        let (is_gated, is_open) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let visitor = thread::spawn({
            let (is_gated, is_open) = (is_gated.clone(), is_open.clone());
            move || {
                let is_let_go = is_gated.load(Ordering::Acquire) && is_open.load(Ordering::Acquire);
                assert!(!is_let_go || !is_gated.load(Ordering::Acquire), "it is let go, to the same gate again");
            }
        });
        match first {
            Resume::Publishes => {
                is_gated.store(false, Ordering::Release);
                is_open.store(true, Ordering::Release);
            }
            Resume::Opens => {
                is_open.store(true, Ordering::Release);
                is_gated.store(false, Ordering::Release);
            }
        }
        visitor.join().unwrap();
    });
}

#[test]
fn a_request_that_a_resume_lets_go_does_not_come_to_the_gate_again() {
    who_is_let_go_finds_the_service_open(Resume::Publishes);
}

#[test]
fn a_resume_that_opens_before_it_publishes_would_send_it_round_and_round() {
    assert!(catch_unwind(|| who_is_let_go_finds_the_service_open(Resume::Opens)).is_err());
}
