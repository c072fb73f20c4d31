//! Several hosts at once, or several services: each waits before its flip until all are ready, and where one is not, none flips.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::error::{Error, Kind};

/// How far all of them are.
#[derive(Debug, Default)]
struct Progress {
    ready: usize,
    /// The hosts on which the service that the others go with has its lock.
    led: Vec<Option<String>>,
    /// The first that could not be prepared.
    failed: Option<String>,
}

/// Who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// How it is called in words.
    pub label: String,
    /// Where it is; `None` is the host of the run.
    pub host: Option<String>,
    /// Others of its host begin only behind it.
    pub leads: bool,
}

/// One host's or service's part in a deployment of several.
#[derive(Debug)]
pub struct Party {
    member: Member,
    all: usize,
    progress: Arc<watch::Sender<Progress>>,
    is_ready: AtomicBool,
}

impl Party {
    /// Returns a part for each.
    pub fn of(members: &[Member]) -> Vec<Self> {
        let progress = Arc::new(watch::Sender::default());
        let part = |member: &Member| Self {
            member: member.clone(),
            all: members.len(),
            progress: Arc::clone(&progress),
            is_ready: AtomicBool::new(false),
        };
        members.iter().map(part).collect()
    }

    /// Says that this one has its lock.
    pub fn has_lock(&self) {
        if self.member.leads {
            self.progress.send_modify(|progress| progress.led.push(self.member.host.clone()));
        }
    }

    /// Waits until the service that this one goes with has its lock. So two runs at once meet at one lock, and one of them works;
    /// and the proxy runs, and the image is there, when the others begin.
    ///
    /// # Errors
    /// Kind [`Kind::NoFlip`] where another could not be prepared.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn turn(&self) -> Result<(), Error> {
        let mut seen = self.progress.subscribe();
        let mine = |progress: &Progress| self.member.leads || progress.led.contains(&self.member.host);
        let turn = seen.wait_for(|progress| progress.failed.is_some() || mine(progress)).await;
        self.unless_failed(turn.ok().and_then(|progress| progress.failed.clone()))
    }

    /// Says that this one could flip, and waits for the others.
    ///
    /// # Errors
    /// Kind [`Kind::NoFlip`] where another could not be prepared.
    ///
    /// # Cancel safety
    /// Dropping it leaves this one counted as ready: [`Party::left`] must follow.
    pub async fn ready(&self) -> Result<(), Error> {
        let mut seen = self.progress.subscribe();
        self.is_ready.store(true, Ordering::Relaxed);
        self.progress.send_modify(|progress| progress.ready += 1);
        let together = seen.wait_for(|progress| progress.failed.is_some() || progress.ready == self.all).await;
        self.unless_failed(together.ok().and_then(|progress| progress.failed.clone()))
    }

    fn unless_failed(&self, failed: Option<String>) -> Result<(), Error> {
        let words = |other: String| format!("{other} is not ready, so {} does not flip either", self.member.label);
        failed.map_or(Ok(()), |other| Err(Error::new(Kind::NoFlip, words(other))))
    }

    /// Returns the one that kept the others from flipping, where one did.
    pub fn failed(&self) -> Option<String> {
        self.progress.borrow().failed.clone()
    }

    /// Says that this part has ended; where it was never ready, or `is_failed` before all were, nobody flips.
    pub fn left(&self, is_failed: bool) {
        let was_ready = self.is_ready.load(Ordering::Relaxed);
        self.progress.send_modify(|progress| {
            if !was_ready || is_failed && progress.ready < self.all {
                progress.failed.get_or_insert_with(|| self.member.label.clone());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Vec<Party> {
        Party::of(&["a", "b", "c"].map(|host| member(host, host, true)))
    }

    fn member(label: &str, host: &str, leads: bool) -> Member {
        Member { label: label.to_owned(), host: Some(host.to_owned()), leads }
    }

    #[tokio::test]
    async fn a_service_begins_behind_the_lock_of_the_one_that_it_goes_with_on_its_host() {
        let members = [("a web", "a", true), ("a worker", "a", false), ("b web", "b", true), ("b worker", "b", false)];
        let [web, worker, other, late] =
            Party::of(&members.map(|(label, host, leads)| member(label, host, leads))).try_into().unwrap();
        web.turn().await.unwrap();
        let mut waiting = Box::pin(worker.turn());
        other.has_lock();
        late.turn().await.unwrap();
        assert!(futures_util::poll!(waiting.as_mut()).is_pending(), "that was another host");
        web.has_lock();
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn where_the_first_gets_no_lock_the_others_never_begin() {
        let members = [("web", "a", true), ("worker", "a", false)];
        let [web, worker] =
            Party::of(&members.map(|(label, host, leads)| member(label, host, leads))).try_into().unwrap();
        let (waited, ()) = tokio::join!(worker.turn(), async { web.left(true) });
        assert_eq!(waited.unwrap_err().message, "web is not ready, so worker does not flip either");
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
