//! The time by which certificates are renewed: the machine's, or one that a test moves on by days.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

/// A clock; copies of it show one time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Seconds that it is ahead of the machine's.
    ahead: Arc<AtomicU64>,
    moved: Arc<Notify>,
}

impl Clock {
    /// Returns the time.
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + Duration::from_secs(self.ahead.load(Ordering::Relaxed))
    }

    /// Moves it on.
    pub fn advance(&self, time: Duration) {
        self.ahead.fetch_add(time.as_secs(), Ordering::Relaxed);
        self.moved.notify_one();
    }

    /// Waits until it is moved.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }
}
