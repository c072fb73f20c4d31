//! A number that one worker writes and anybody reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer, which so needs no locked instruction: reading and writing are each atomic, and between them
/// nobody else writes.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds to it. Of two threads that did so at once one could be lost: it is for its own worker's thread alone.
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// Returns what was counted.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
