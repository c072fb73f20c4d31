//! The time as the tasks of connections see it: a request asks for it ten times, and a look costs more than all else that is
//! noted of it. So it is read once a poll.

use std::cell::Cell;
use std::time::Instant;

/// What is known of the time on this thread.
#[derive(Clone, Copy)]
enum Turn {
    /// No task is polled in a turn: every look is a new one.
    Outside,
    /// The task that is polled has not asked yet.
    Unread,
    /// It has.
    Read(Instant),
}

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::Outside) };
}

/// Returns the time: within a [`turn`] that of its first look.
pub(crate) fn now() -> Instant {
    match TURN.get() {
        Turn::Outside => Instant::now(),
        Turn::Unread => {
            let now = Instant::now();
            TURN.set(Turn::Read(now));
            now
        }
        Turn::Read(now) => now,
    }
}

/// Polls a task as one turn. A poll never waits, so the time that it goes by is some microseconds old at the most.
pub(crate) fn turn<T>(poll: impl FnOnce() -> T) -> T {
    /// Also where the poll panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            TURN.set(Turn::Outside);
        }
    }
    TURN.set(Turn::Unread);
    let _end = End;
    poll()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_within_a_turn_and_goes_on_behind_it() {
        let tick = |before| while Instant::now() == before {};
        let within = turn(|| {
            let first = now();
            tick(Instant::now());
            assert_eq!(now(), first);
            first
        });
        tick(within);
        assert!(now() > within);
        assert!(std::panic::catch_unwind(|| turn(|| panic!("a poll that fails"))).is_err());
        let outside = now();
        tick(Instant::now());
        assert!(now() > outside);
    }
}
