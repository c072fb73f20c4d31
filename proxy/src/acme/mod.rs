//! Certificates that come by themselves (RFC 8555): which are wanted, when each is ordered, and what is told of them.
//!
//! All of it runs on the control thread, beside control: no worker waits for an authority, and no switch for a certificate.

mod account;
mod book;
mod clock;
mod demand;
mod failure;
mod hook;
mod office;
mod order;
mod schedule;
mod shelf;
mod wire;

use std::time::Duration;

use config::admin::Event;
use tokio::sync::{broadcast, mpsc};

use self::book::{Book, LOOK};
pub use self::clock::Clock;
pub(crate) use self::office::Office;
use crate::control::custody::Custody;
use crate::telemetry::panics;

/// Hosts that visitors name are looked at together: whoever names many makes no more work than that.
const WISHES: Duration = Duration::from_millis(20);

impl Office {
    /// Looks after certificates for as long as the control thread lives, while no successor has the state: two that order would
    /// make two accounts, and the authority looks where only one of them answers. What is under way then is given up.
    pub(crate) async fn run(self) {
        panics::enduring("certificates", async || {
            let mut custody = self.handle.custody.subscribe();
            loop {
                // It is there as long as the handle is.
                _ = custody.wait_for(|custody| *custody == Custody::Ours).await;
                tokio::select! {
                    () = self.work() => {}
                    _ = custody.wait_for(|custody| *custody != Custody::Ours) => {}
                }
            }
        })
        .await;
    }

    async fn work(&self) {
        let mut settings = self.settings.clone();
        let mut events = self.handle.events.subscribe();
        let (report, mut reports) = mpsc::unbounded_channel();
        let now = settings.borrow_and_update().clone();
        let mut book = Book::new(self, now, report);
        loop {
            while book.orders.try_join_next().is_some() {}
            book.look();
            book.open_port().await;
            let next = book.begin();
            book.tell();
            let pause =
                next.duration_since(self.clock.now()).unwrap_or_default().clamp(Duration::from_millis(20), LOOK);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.clock.moved() => {}
                () = self.wished() => {}
                is_other = changed(&mut events) => if is_other { book.hurry() },
                Ok(()) = settings.changed() => {
                    let now = settings.borrow_and_update().clone();
                    book.settle(now);
                }
                Some(ended) = reports.recv() => book.end(ended),
            }
        }
    }

    async fn wished(&self) {
        self.shared.tls.wishes().rung().await;
        tokio::time::sleep(WISHES).await;
    }
}

/// Waits for an event after which other certificates may be wanted; tells whether what was wrong may be right then.
async fn changed(events: &mut broadcast::Receiver<Event>) -> bool {
    loop {
        match events.recv().await {
            Ok(Event::Changed { .. } | Event::Reloaded { .. }) => return true,
            Ok(Event::Flipped { .. } | Event::FlippedBack { .. } | Event::Removed { .. })
            | Err(broadcast::error::RecvError::Lagged(_)) => return false,
            Ok(_) => {}
            // Control is gone, and so are we with the next look.
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}
