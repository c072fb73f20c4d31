//! Steady traffic in an open loop: a request is due every so often, whatever became of those before it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::Failure;
use super::wire::{Answer, Wire};

/// One of so many requests comes on a connection of its own.
const FRESH_ONE_IN: u64 = 4;
/// More requests under way at once than these are sent no more: nothing answers there.
const MOST_UNDER_WAY: usize = 1000;

/// What is asked, and of whom.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    /// Where the proxy listens.
    pub(crate) address: SocketAddr,
    /// Sent as `Host`.
    pub(crate) host: String,
    /// What is got.
    pub(crate) path: String,
}

impl Visit {
    /// Sends one request on a connection.
    ///
    /// # Errors
    /// In words: no whole answer.
    pub(crate) async fn send(&self, wire: &mut Wire, id: &str, keep_alive: bool) -> Result<Answer, String> {
        let Self { host, path, .. } = self;
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bgctl-verify\r\nX-Request-Id: {id}\r\nConnection: {connection}\r\n\r\n"
        );
        wire.exchange(request.as_bytes()).await
    }
}

/// All that was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Requests that were due.
    pub(crate) requests: u64,
    /// Those that failed.
    pub(crate) failures: Vec<Failure>,
    /// Connections that were opened.
    pub(crate) connections: u64,
    /// Keep-alive connections that the other side ended.
    pub(crate) closed: u64,
    /// How long each good answer took, from the moment that its request was due.
    pub(crate) took: Vec<Duration>,
}

/// The traffic; it ends when this is dropped.
pub(crate) struct Steady {
    visitors: Arc<Visitors>,
    stop: watch::Sender<bool>,
    driver: JoinHandle<()>,
}

/// What all requests share.
struct Visitors {
    visit: Visit,
    started: Instant,
    seen: Mutex<Seen>,
    /// Connections that wait for their next request, the one that waited longest first: so each is used in its turn.
    idle: Mutex<VecDeque<Wire>>,
}

impl Steady {
    /// Starts to send so many requests a second.
    pub(crate) fn start(visit: Visit, rps: u32) -> Self {
        let (stop, stopped) = watch::channel(false);
        let visitors =
            Arc::new(Visitors { visit, started: Instant::now(), seen: Mutex::default(), idle: Mutex::default() });
        let driver = tokio::spawn(drive(Arc::clone(&visitors), Duration::from_secs(1) / rps.max(1), stopped));
        Self { visitors, stop, driver }
    }

    /// Returns what was seen so far.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.visitors.seen()
    }

    /// Sends no more, waits for the answers that are still to come, and returns what was seen.
    pub(crate) async fn finish(mut self) -> Seen {
        self.stop.send_replace(true);
        if (&mut self.driver).await.is_err() {
            self.visitors.fail("the traffic", "it broke".to_owned());
        }
        std::mem::take(&mut *self.visitors.seen())
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn drive(visitors: Arc<Visitors>, every: Duration, mut stopped: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(every);
    // What this program was late with is due all the same.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    let mut number = 0;
    loop {
        let due = tokio::select! {
            biased;
            // An error means that nobody is there any more who could say so.
            _ = stopped.wait_for(|stopped| *stopped) => break,
            due = tick.tick() => due,
        };
        while under_way.try_join_next().is_some() {}
        number += 1;
        visitors.seen().requests += 1;
        if under_way.len() >= MOST_UNDER_WAY {
            visitors.fail("every visitor", format!("{MOST_UNDER_WAY} requests have no answer yet"));
            continue;
        }
        under_way.spawn(Arc::clone(&visitors).request(number, due));
    }
    under_way.join_all().await;
}

impl Visitors {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Wire>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, client: &str, why: String) {
        let at = self.started.elapsed();
        self.seen().failures.push(Failure { at, client: client.to_owned(), why });
    }

    async fn request(self: Arc<Self>, number: u64, due: Instant) {
        let is_fresh = number.is_multiple_of(FRESH_ONE_IN);
        match self.answer(number, is_fresh).await {
            Ok(()) => self.seen().took.push(due.elapsed()),
            Err(why) => self.fail(if is_fresh { "a new connection" } else { "keep-alive" }, why),
        }
    }

    async fn answer(&self, number: u64, is_fresh: bool) -> Result<(), String> {
        let kept = if is_fresh { None } else { self.kept() };
        let mut wire = match kept {
            Some(wire) => wire,
            None => {
                self.seen().connections += 1;
                Wire::open(self.visit.address).await?
            }
        };
        let answer = self.visit.send(&mut wire, &format!("verify-{number}"), !is_fresh).await?;
        if answer.status >= 400 {
            return Err(format!("answered {}", answer.status_line()));
        }
        match (is_fresh, answer.alive) {
            (true, _) => {}
            (false, true) => self.idle().push_back(wire),
            (false, false) => self.seen().closed += 1,
        }
        Ok(())
    }

    /// Returns a connection that waits, and counts those that were closed meanwhile.
    fn kept(&self) -> Option<Wire> {
        loop {
            let wire = self.idle().pop_front()?;
            if !wire.is_closed() {
                return Some(wire);
            }
            self.seen().closed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers the first requests of every connection with one text, then each with another.
    async fn server(good: usize, then: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    let mut answered = 0;
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        answered += 1;
                        let text = if answered <= good { "HTTP/1.1 204 No Content\r\n\r\n" } else { then };
                        if text.is_empty() || stream.write_all(text.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    async fn seen(address: SocketAddr, enough: impl Fn(&Seen) -> bool) -> Seen {
        let visit = Visit { address, host: "shop.test".to_owned(), path: "/".to_owned() };
        let steady = Steady::start(visit, 500);
        while !enough(&steady.seen()) {
            tokio::task::yield_now().await;
        }
        steady.finish().await
    }

    #[tokio::test]
    async fn requests_come_on_kept_and_on_new_connections_at_their_rate() {
        let began = Instant::now();
        let seen = seen(server(usize::MAX, "").await, |seen| seen.requests >= 50).await;
        assert!(began.elapsed() >= Duration::from_millis(98), "50 requests in {:?}", began.elapsed());
        assert!(seen.failures.is_empty(), "{:?}", seen.failures);
        assert_eq!((seen.took.len() as u64, seen.closed), (seen.requests, 0));
        assert!(seen.connections >= seen.requests / 4 && seen.connections < seen.requests, "{seen:?}");
    }

    #[tokio::test]
    async fn what_is_refused_and_what_is_broken_off_are_failures_and_closed_connections_are_counted() {
        let refused =
            seen(server(0, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await, |seen| seen.failures.len() >= 10);
        assert!(refused.await.failures.iter().all(|failure| failure.why == "answered HTTP/1.1 503 NO"));
        let broken = seen(server(1, "").await, |seen| seen.failures.len() >= 5).await;
        assert!(broken.failures.iter().all(|failure| failure.client == "keep-alive"), "{:?}", broken.failures);
        let ending = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let closed = seen(server(0, ending).await, |seen| seen.closed >= 5).await;
        assert!(closed.failures.is_empty(), "{:?}", closed.failures);
    }
}
