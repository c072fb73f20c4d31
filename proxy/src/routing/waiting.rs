//! How many requests wait for a service to come back: one counter a service, which outlives every change of the table.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The counter.
#[derive(Debug, Default)]
pub struct Waiting(AtomicUsize);

impl Waiting {
    /// Takes a place, where fewer than `most` are taken.
    pub(crate) fn enter(&self, most: usize) -> bool {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < most).then_some(now + 1));
        taken.is_ok()
    }

    /// Returns how many places are taken.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Gives a place back.
    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places_and_each_is_given_again() {
        let waiting = Waiting::default();
        assert_eq!([1, 2, 3].map(|_| waiting.enter(2)), [true, true, false]);
        waiting.leave();
        assert!(waiting.enter(2));
    }
}
