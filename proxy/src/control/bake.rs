//! The bake: for a while after a flip the new slot is watched, and compared with what the one before it did lately.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use config::admin::request::{Margins, ServiceSettings};
use config::admin::response::BakeStatus;
use config::defaults;
use config::name::Slot;

use super::judge::Sample;
use crate::upstream::run::{Deadlines, RunId};

/// How often the live slot's figures are kept, to compare the next version with.
pub(super) const SNAPSHOT: Duration = Duration::from_secs(10);

/// A bake, until the last request that was sent back has its answer.
pub(crate) struct Bake {
    /// What is watched.
    pub(super) run: RunId,
    /// The slot to go back to.
    pub(super) back: Slot,
    pub(super) until: Instant,
    /// It is over, and the last replays are waited for.
    pub(super) is_over: bool,
    /// How long requests on a slot that is left may go on.
    pub(super) drain: Deadlines,
    pub(super) margins: Margins,
    /// What was counted in the new slot before the flip.
    pub(super) base: Sample,
    /// What the old version did lately.
    pub(super) baseline: Sample,
    /// The settings that a flip back puts in force again.
    pub(super) before: ServiceSettings,
    /// Those that the flip put in force.
    pub(super) since: ServiceSettings,
}

impl Bake {
    /// Tells whether requests may still be sent back.
    pub(super) fn is_under_way(&self) -> bool {
        !self.is_over
    }

    pub(super) fn status(&self, now: Instant) -> BakeStatus {
        BakeStatus { back: self.back, left: self.until.saturating_duration_since(now) }
    }
}

/// What a live slot did in the last minutes: its counters, again and again, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Lately(VecDeque<Sample>);

impl Lately {
    /// Keeps what was counted until now.
    pub(super) fn note(&mut self, now: Sample) {
        let most = usize::try_from(defaults::BASELINE.as_secs() / SNAPSHOT.as_secs()).unwrap_or(usize::MAX);
        while self.0.len() >= most.max(1) {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    /// Returns what was counted since the oldest look.
    pub(super) fn baseline(&self, now: &Sample) -> Sample {
        self.0.front().map_or_else(Sample::default, |oldest| now.since(oldest))
    }
}
