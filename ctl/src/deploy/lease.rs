//! The lease on a service, kept while something else takes its time.

use std::convert::Infallible;
use std::time::Duration;

use crate::admin::Client;

/// How often a lease is kept while nothing else is called: well within its life.
pub(super) const RENEW: Duration = Duration::from_secs(5);

/// Does work that calls no proxy, and keeps the lease meanwhile.
///
/// # Cancel safety
/// That of the work.
pub(super) async fn leased<T>(client: &mut Client, work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        done = work => done,
        never = keep(client) => match never {},
    }
}

/// Renews the lease again and again.
///
/// # Cancel safety
/// Dropping it loses at most the connection; the next call takes a new one.
pub(super) async fn keep(client: &mut Client) -> Infallible {
    loop {
        tokio::time::sleep(RENEW).await;
        // A lease that is lost is told by the next change under it.
        drop(client.renew().await);
    }
}
