//! The webhook: whoever is responsible is told what the proxy did by itself, by a POST of JSON.
//!
//! Notices wait in a short queue that one task empties, so that neither control nor a request ever waits for a receiver; what finds
//! the queue full is dropped and counted. Each is kept on the disk until its end, for the process may end first.

mod notice;
mod post;

use std::cell::{Cell, OnceCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use config::webhook::WebhookSettings;
use tokio::sync::{mpsc, watch};

use self::notice::Kept;
pub(crate) use self::notice::Notice;
use self::post::{Failure, Hook};
use crate::telemetry::panics;

/// Notices that wait for the one that is being sent. Each is about one flip back, so more at once is a site that has other worries.
const QUEUE: usize = 32;
/// One try, from the look-up of the host to the head of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What is waited before the second try and the third.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// What became of notices.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// A receiver took them.
    pub(crate) sent: Cell<u64>,
    /// Every try failed.
    pub(crate) failed: Cell<u64>,
    /// The queue was full, or they were kept for too long.
    pub(crate) dropped: Cell<u64>,
}

/// The end that takes notices.
pub(crate) struct Outbox {
    queue: mpsc::Sender<Notice>,
    waiting: Cell<Option<mpsc::Receiver<Notice>>>,
    kept: Kept,
    /// Whom to tell; not there until the first is to be sent.
    settings: OnceCell<watch::Receiver<WebhookSettings>>,
    outcomes: Rc<Outcomes>,
}

impl Outbox {
    /// Returns one that nobody empties yet, with what an earlier process left in the folder.
    pub(crate) fn new(folder: PathBuf) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (kept, outcomes) = (Kept::at(folder), Rc::<Outcomes>::default());
        let (left, dropped) = kept.take_up(QUEUE, SystemTime::now());
        if !left.is_empty() || dropped > 0 {
            tracing::info!(
                left = left.len(),
                dropped,
                "the webhook's receiver was not told of all before the last end"
            );
        }
        outcomes.dropped.set(dropped as u64);
        // No more than the queue takes.
        left.into_iter().for_each(|notice| _ = queue.try_send(notice));
        Self { queue, waiting: Cell::new(Some(waiting)), kept, settings: OnceCell::new(), outcomes }
    }

    /// Takes a notice, and never waits for a receiver.
    pub(crate) fn put(&self, notice: Notice) {
        if self.settings.get().is_some_and(|settings| settings.borrow().url.is_none()) {
            return;
        }
        if let Err(error) = self.kept.write(&notice) {
            tracing::warn!(%error, id = notice.id, "a notice of the webhook can't be kept: it is lost if the proxy ends before it is sent");
        }
        if let Err(refused) = self.queue.try_send(notice) {
            self.kept.forget(&refused.into_inner());
            count(&self.outcomes.dropped);
            tracing::warn!("too many notices wait for the webhook's receiver; one was dropped");
        }
    }

    /// Returns what became of those that were put in.
    pub(crate) fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Sends what comes for as long as the control thread lives; a second call finds nothing to empty. While `ours` waits, another
    /// process tells what is kept, and `others` waits until that is so.
    pub(crate) async fn send_all(
        &self,
        settings: watch::Receiver<WebhookSettings>,
        ours: impl AsyncFn(),
        others: impl AsyncFn(),
    ) {
        let Some(mut waiting) = self.waiting.take() else { return };
        let settings = self.settings.get_or_init(|| settings);
        panics::enduring("the webhook", async || {
            while let Some(notice) = waiting.recv().await {
                loop {
                    ours().await;
                    tokio::select! {
                        () = send(&notice, settings, &self.outcomes) => break,
                        // One that is on its way then may be told twice.
                        () = others() => {}
                    }
                }
                // Only now: what a process does not come to is told by the next one.
                self.kept.forget(&notice);
            }
        })
        .await;
    }
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// Sends a notice in up to three tries, each by the settings of its moment.
async fn send(notice: &Notice, settings: &watch::Receiver<WebhookSettings>, outcomes: &Outcomes) {
    let mut pauses = PAUSES.into_iter();
    loop {
        let now = settings.borrow().clone();
        let Some(url) = now.url else { return };
        let hook = Hook { url: &url, secret: now.secret.as_ref(), ca: now.ca.as_deref() };
        let tried = tokio::time::timeout(TIMEOUT, hook.post(notice)).await;
        let failure = match tried {
            Ok(Ok(())) => {
                count(&outcomes.sent);
                tracing::info!(%url, id = notice.id, "the webhook's receiver was told");
                return;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Passing(format!("no answer within {} s", TIMEOUT.as_secs())),
        };
        let (pause, why) = match failure {
            Failure::Passing(why) => (pauses.next(), why),
            Failure::Lasting(why) => (None, why),
        };
        let Some(pause) = pause else {
            count(&outcomes.failed);
            tracing::error!(%url, id = notice.id, why, "the webhook's receiver could not be told");
            return;
        };
        tracing::warn!(%url, id = notice.id, why, "the webhook's receiver was not told yet; trying again");
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_finds_the_queue_full_is_dropped_counted_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(dir.path().join("webhook"));
        let notice = |number: usize| {
            let id = format!("{number:x}");
            Notice { at: SystemTime::now(), body: Bytes::from(format!("{{\"id\":\"{id}\"}}")), id }
        };
        (0..QUEUE + 2).for_each(|number| outbox.put(notice(number)));
        assert_eq!(outbox.outcomes().dropped.get(), 2);
        let next = Outbox::new(dir.path().join("webhook"));
        assert_eq!((next.queue.capacity(), next.outcomes().dropped.get()), (0, 0));
    }
}
