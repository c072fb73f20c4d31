//! Steady traffic: clients of several kinds that note each answer and each failure.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::order::Order;
use super::tally::{Sample, Tally};
use super::uptimer::SLOW_PATH;
use crate::traffic::Failure;
use crate::traffic::wire::Wire;

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One connection for all, GET and POST in turn.
    KeepAlive,
    /// A connection for each request.
    Fresh,
    /// One connection, answers that take long.
    Slow,
}

/// How many clients of each kind, and the pause between two requests of one.
const CLIENTS: [(Kind, u32, Duration); 3] = [
    (Kind::KeepAlive, 8, Duration::from_millis(20)),
    (Kind::Fresh, 4, Duration::from_millis(40)),
    (Kind::Slow, 3, Duration::from_millis(100)),
];
/// Bodies of POSTs are of all lengths up to this.
const LONGEST_BODY: usize = 8 * 1024;
/// A client whose request failed tries again after this, so that an outage is not one failure but does not flood.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The clients at work.
pub(super) struct Load {
    started: Instant,
    tally: Arc<Mutex<Tally>>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts all clients.
    pub(super) fn start(address: SocketAddr) -> Self {
        let (stop, stopped) = watch::channel(false);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let started = Instant::now();
        let mut clients = JoinSet::new();
        for (kind, count, pause) in CLIENTS {
            for number in 0..count {
                let name = format!("{kind:?}-{number}").to_lowercase();
                let (tally, stopped) = (Arc::clone(&tally), stopped.clone());
                clients.spawn(Client { name, kind, pause, address, started, tally, stopped }.run());
            }
        }
        Self { started, tally, stop, clients }
    }

    /// Returns the time since the start, in which all moments are given.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns what was seen so far.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets every client finish its request, and returns what was seen.
    pub(super) async fn finish(mut self) -> Tally {
        self.stop.send_replace(true);
        while let Some(ended) = self.clients.join_next().await {
            if ended.is_err() {
                let at = self.now();
                self.tally().failures.push(Failure { at, client: "a client".to_owned(), why: "it broke".to_owned() });
            }
        }
        std::mem::take(&mut *self.tally())
    }
}

struct Client {
    name: String,
    kind: Kind,
    pause: Duration,
    address: SocketAddr,
    started: Instant,
    tally: Arc<Mutex<Tally>>,
    stopped: watch::Receiver<bool>,
}

impl Client {
    async fn run(mut self) {
        let mut wire = None;
        let mut number = 0;
        while !*self.stopped.borrow() {
            number += 1;
            let order = self.order(number);
            let pause = match self.request(&mut wire, &order).await {
                Ok(()) => self.pause,
                Err(why) => {
                    wire = None;
                    let failure = Failure { at: self.started.elapsed(), client: self.name.clone(), why };
                    self.note(|tally| tally.failures.push(failure));
                    AFTER_FAILURE
                }
            };
            // Ends early when told to stop; how it ended is looked at above.
            drop(tokio::time::timeout(pause, self.stopped.wait_for(|stopped| *stopped)).await);
        }
    }

    fn order(&self, number: usize) -> Order {
        let is_post = self.kind != Kind::Slow && number.is_multiple_of(2);
        let post = is_post.then(|| {
            let body = (0..number * 37 % LONGEST_BODY).map(|index| (index * 7 + number) as u8).collect();
            (format!("{}-{number}", self.name), body)
        });
        let path = if self.kind == Kind::Slow { SLOW_PATH } else { "/" };
        Order { path, post, keep_alive: self.kind != Kind::Fresh }
    }

    async fn request(&self, wire: &mut Option<Wire>, order: &Order) -> Result<(), String> {
        if wire.as_ref().is_some_and(Wire::is_closed) {
            *wire = None;
            self.note(|tally| tally.closed += 1);
        }
        let began = self.started.elapsed();
        if let Some((id, _)) = &order.post {
            self.note(|tally| tally.posts.push(id.clone()));
        }
        let mut open = match wire.take() {
            Some(open) => open,
            None => {
                self.note(|tally| tally.connections += 1);
                Wire::open(self.address).await?
            }
        };
        let answer = order.exchange(&mut open).await?;
        let sample = Sample {
            began,
            took: self.started.elapsed().saturating_sub(began),
            version: answer.version,
            is_slow: self.kind == Kind::Slow,
        };
        let closed = u64::from(order.keep_alive && !answer.alive);
        self.note(|tally| {
            tally.samples.push(sample);
            tally.closed += closed;
        });
        if order.keep_alive && answer.alive {
            *wire = Some(open);
        }
        Ok(())
    }

    fn note(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
