//! Bounded waiting for an application that was there a moment ago: a container that restarts, perhaps with another address.

use std::sync::Arc;
use std::time::Duration;

use config::defaults;
use tokio::time::Instant;

use crate::routing::table::{Service, Target};
use crate::routing::waiting::Waiting;
use crate::upstream::run::{Claim, Tally};

/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(50);

/// The waiting of one request; nothing is held before its first [`Hold::wait`].
pub(crate) struct Hold {
    since: Option<Instant>,
    place: Option<Place>,
    counted: bool,
}

/// One of the places that a service has for waiting requests.
struct Place(Arc<Waiting>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Hold {
    pub(crate) fn new() -> Self {
        Self { since: None, place: None, counted: false }
    }

    /// Takes a place, where the application was healthy until a moment ago, there is room, and the time is not over.
    pub(crate) fn is_allowed(&mut self, service: &Service, live: &Target) -> bool {
        let began = *self.since.get_or_insert_with(Instant::now);
        if began.elapsed() >= defaults::HOLD {
            return false;
        }
        if self.place.is_some() {
            return true;
        }
        let was_healthy = live.endpoints.iter().any(|endpoint| {
            endpoint.healthy
                || endpoint.unhealthy_since.is_some_and(|since| since.elapsed() < defaults::HOLD_AFTER_HEALTH)
        });
        if was_healthy && service.waiting.enter(defaults::HELD_REQUESTS) {
            self.place = Some(Place(Arc::clone(&service.waiting)));
        }
        self.place.is_some()
    }

    /// Waits until it is worth another try. The claim is given back: a request that waits is not in flight on the version
    /// that can't be reached, and may be sent to another one.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub(crate) async fn wait(&mut self, claim: Claim) {
        if !std::mem::replace(&mut self.counted, true) {
            claim.tally(Tally::Held);
        }
        drop(claim);
        tokio::time::sleep(RETRY).await;
    }
}
