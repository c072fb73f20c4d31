//! How long a client connection may do what it does.

use std::time::{Duration, Instant};

use super::{Client, Order, Phase};

/// Long enough for whoever clicks again soon, short enough for the thousands who don't.
const PARK_AFTER: Duration = Duration::from_secs(5);
/// A client of HTTP/2 has so long to leave once it was told that its idle connection ends.
const GOODBYE: Duration = Duration::from_secs(5);

/// The time-outs of client connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientLimits {
    /// From the first byte of a request to the end of its head.
    pub(crate) header: Duration,
    /// Without a request.
    pub(crate) idle: Duration,
    /// While a body moves in neither direction because of the client.
    pub(crate) body_idle: Duration,
}

impl Client {
    /// Returns what is to become of the connection, given how long it has done what it does.
    pub(crate) fn judge(&self, now: Instant, limits: &ClientLimits) -> Option<Order> {
        let after =
            |since: Instant, limit: Duration, order: Order| (now.duration_since(since) >= limit).then_some(order);
        match self.phase.get() {
            // Told first, so that no request of its client meets the end (RFC 9113 section 6.8); then it is over.
            Phase::Idle(since) if self.is_http2.get() => {
                after(since, limits.idle + GOODBYE, Order::Drop).or_else(|| after(since, limits.idle, Order::Finish))
            }
            // The end of the last answer waits for the client, as the answer did; idle it is when that is written.
            Phase::Idle(_) if self.write_blocked.get() => {
                self.phase.set(Phase::Idle(now));
                self.judge_serving(now, limits)
            }
            Phase::Idle(since) => after(since, limits.idle, Order::Drop)
                .or_else(|| after(since, PARK_AFTER, Order::Park).filter(|_| self.is_idle())),
            Phase::Parked(since) => after(since, limits.idle, Order::Drop),
            Phase::Head(since) => after(since, limits.header, Order::Drop),
            Phase::Serving => self.judge_serving(now, limits),
            Phase::Tunnel => None,
        }
    }

    fn judge_serving(&self, now: Instant, limits: &ClientLimits) -> Option<Order> {
        let moved = self.moved.take();
        // Of many requests each is looked after by its stream; what they share is the way to the client.
        let waits_for_client = self.write_blocked.get() || self.awaits_body.get() && !self.is_http2.get();
        if moved || !waits_for_client {
            self.last_move.set(now);
        }
        // Who has closed and is given nothing until the next look has gone; half-closed clients are few, and rarely wait
        // longer.
        if self.has_ended.get() && !moved {
            return Some(Order::Drop);
        }
        self.asks_for_end.set(true);
        let is_stuck = now.duration_since(self.last_move.get()) >= limits.body_idle;
        Some(if is_stuck { Order::Drop } else { Order::Look })
    }
}
