//! Several hosts at once: each waits before its flip until all are ready, and where one is not, none flips.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::error::{Error, Kind};

/// How far all of them are.
#[derive(Debug, Default)]
struct Progress {
    ready: usize,
    /// The first that could not be prepared.
    failed: Option<String>,
}

/// One host's part in a deployment to several.
#[derive(Debug)]
pub struct Party {
    host: String,
    all: usize,
    progress: Arc<watch::Sender<Progress>>,
    is_ready: AtomicBool,
}

impl Party {
    /// Returns a part for each host.
    pub fn of(hosts: &[String]) -> Vec<Self> {
        let progress = Arc::new(watch::Sender::default());
        let part = |host: &String| Self {
            host: host.clone(),
            all: hosts.len(),
            progress: Arc::clone(&progress),
            is_ready: AtomicBool::new(false),
        };
        hosts.iter().map(part).collect()
    }

    /// Says that this host could flip, and waits for the others.
    ///
    /// # Errors
    /// Kind [`Kind::NoFlip`] where another host could not be prepared.
    ///
    /// # Cancel safety
    /// Dropping it leaves this host counted as ready: [`Party::left`] must follow.
    pub async fn ready(&self) -> Result<(), Error> {
        let mut seen = self.progress.subscribe();
        self.is_ready.store(true, Ordering::Relaxed);
        self.progress.send_modify(|progress| progress.ready += 1);
        let together = seen.wait_for(|progress| progress.failed.is_some() || progress.ready == self.all).await;
        match together.ok().and_then(|progress| progress.failed.clone()) {
            None => Ok(()),
            Some(host) => {
                Err(Error::new(Kind::NoFlip, format!("{host} is not ready, so {} does not flip either", self.host)))
            }
        }
    }

    /// Returns the host that kept the others from flipping, where one did.
    pub fn failed(&self) -> Option<String> {
        self.progress.borrow().failed.clone()
    }

    /// Says that this host's part has ended; where it was never ready, or `is_failed` before all were, nobody flips.
    pub fn left(&self, is_failed: bool) {
        let was_ready = self.is_ready.load(Ordering::Relaxed);
        self.progress.send_modify(|progress| {
            if !was_ready || is_failed && progress.ready < self.all {
                progress.failed.get_or_insert_with(|| self.host.clone());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Vec<Party> {
        Party::of(&["a".to_owned(), "b".to_owned(), "c".to_owned()])
    }

    #[tokio::test]
    async fn all_flip_once_all_are_ready_and_not_before() {
        let [a, b, c] = hosts().try_into().unwrap();
        let mut first = Box::pin(async { tokio::join!(a.ready(), b.ready()) });
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        c.ready().await.unwrap();
        let (a, b) = first.await;
        assert!(a.is_ok() && b.is_ok());
    }

    #[tokio::test]
    async fn where_one_fails_to_be_ready_no_other_flips_also_one_that_comes_later() {
        let [a, b, c] = hosts().try_into().unwrap();
        let (waited, ()) = tokio::join!(a.ready(), async { b.left(true) });
        let error = waited.unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (Kind::NoFlip, "b is not ready, so a does not flip either"));
        assert!(c.ready().await.is_err());
        assert_eq!(c.failed().as_deref(), Some("b"));
    }

    #[tokio::test]
    async fn one_that_is_interrupted_while_it_waits_keeps_the_others_from_flipping() {
        let [a, b, c] = hosts().try_into().unwrap();
        assert!(tokio::time::timeout(std::time::Duration::ZERO, a.ready()).await.is_err());
        a.left(true);
        assert!(b.ready().await.is_err() && c.ready().await.is_err());
    }
}
