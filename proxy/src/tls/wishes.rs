//! Hosts that visitors name and no certificate is for, while it is found out whether they may have one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// So many hosts are waited for at once; visitors of more are shown what there is.
const MOST: usize = 256;
/// How long a handshake waits: an authority takes some seconds, and at `header_timeout` the connection is closed.
const PATIENCE: Duration = Duration::from_secs(9);

/// What visitors wait for.
pub(crate) struct Wishes {
    /// Someone looks at them.
    are_open: AtomicBool,
    hosts: Mutex<BTreeSet<String>>,
    rung: Notify,
    /// Changes when one was decided.
    decided: watch::Sender<()>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            are_open: AtomicBool::new(false),
            hosts: Mutex::default(),
            rung: Notify::new(),
            decided: watch::Sender::new(()),
        }
    }
}

impl Wishes {
    /// Lets visitors wait, or not.
    pub(crate) fn open(&self, are_open: bool) {
        self.are_open.store(are_open, Ordering::Relaxed);
    }

    /// Tells whether visitors may wait.
    pub(super) fn are_open(&self) -> bool {
        self.are_open.load(Ordering::Relaxed)
    }

    /// Waits until it is decided whether a host has a certificate.
    ///
    /// # Cancel safety
    /// Dropping it waits no more; what was begun for the host goes on.
    pub(super) async fn wish(&self, host: &str) {
        let mut decided = self.decided.subscribe();
        {
            let mut hosts = self.lock();
            if hosts.len() >= MOST && !hosts.contains(host) {
                return;
            }
            hosts.insert(host.to_owned());
        }
        self.rung.notify_one();
        let until_decided = async { while self.lock().contains(host) && decided.changed().await.is_ok() {} };
        // What comes later is for the next visitor.
        _ = tokio::time::timeout(PATIENCE, until_decided).await;
    }

    /// Waits until someone wishes for a host.
    ///
    /// # Cancel safety
    /// No wish is lost: they are kept until they are decided.
    pub(crate) async fn rung(&self) {
        self.rung.notified().await;
    }

    /// Returns the hosts that are wished for.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    /// Lets visitors go on whose host this is not undecided any more.
    pub(crate) fn decide(&self, is_decided: impl Fn(&str) -> bool) {
        let mut hosts = self.lock();
        let before = hosts.len();
        hosts.retain(|host| !is_decided(host));
        if hosts.len() < before {
            drop(hosts);
            self.decided.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // Nothing panics while it is held.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn so_many_hosts_are_waited_for_and_visitors_of_more_are_told_at_once() {
        let wishes = Arc::new(Wishes::default());
        let mut waiting = JoinSet::new();
        let mut visit = |host: String| {
            let wishes = Arc::clone(&wishes);
            waiting.spawn(async move { wishes.wish(&host).await });
        };
        // One of them has two visitors, who wait for the same.
        (0..MOST).for_each(|host| visit(format!("{host}.test")));
        visit("0.test".to_owned());
        while wishes.hosts().len() < MOST || wishes.decided.receiver_count() <= MOST {
            tokio::task::yield_now().await;
        }
        wishes.wish("more.test").await;
        assert!(wishes.hosts().len() == MOST && !wishes.hosts().contains(&"more.test".to_owned()));
        wishes.decide(|host| host == "0.test");
        for _ in 0..2 {
            waiting.join_next().await.unwrap().unwrap();
        }
        assert_eq!((wishes.hosts().len(), waiting.len()), (MOST - 1, MOST - 1));
        wishes.decide(|_| true);
        waiting.join_all().await;
    }
}
