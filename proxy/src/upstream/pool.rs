//! Idle connections of one worker, kept by slot run and address: none outlives its run, none is shared between runs.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use super::connection::Connection;
use super::run::RunId;
use super::socket::Address;
use crate::clock;

/// Whose connections may stand in for one another.
pub(crate) type Key = (RunId, Address);

/// Idle connections of one worker.
pub(crate) struct Pool {
    idle: RefCell<FxHashMap<Key, Vec<Idle>>>,
    /// Whose last answer was HTTP/1.0.
    http10: RefCell<FxHashSet<Key>>,
    /// Connections idle for longer are closed: shorter than applications wait, so that we close first.
    timeout: Duration,
    /// More than this for one key are closed at once.
    most: usize,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(timeout: Duration, most: usize) -> Self {
        Self { idle: RefCell::default(), http10: RefCell::default(), timeout, most }
    }

    /// Takes the connection that was used last and still can carry a request.
    pub(crate) fn take(&self, key: &Key) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(key)?;
        while let Some(Idle { connection, since }) = connections.pop() {
            if clock::now().duration_since(since) < self.timeout && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Notes which version of HTTP an application answered in.
    pub(crate) fn note_version(&self, key: &Key, http10: bool) {
        // A look-up is all that it costs where nobody speaks 1.0.
        let known = !self.http10.borrow().is_empty() && self.http10.borrow().contains(key);
        if known == http10 {
            return;
        }
        let mut speakers = self.http10.borrow_mut();
        if http10 {
            speakers.insert(key.clone())
        } else {
            speakers.remove(key)
        };
    }

    /// Tells whether an application answered in HTTP/1.0 last: then it does not know chunked coding.
    pub(crate) fn speaks_http10(&self, key: &Key) -> bool {
        self.http10.borrow().contains(key)
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put(&self, key: Key, mut connection: Box<Connection>) {
        connection.rest();
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(key).or_default();
        if connections.len() < self.most {
            connections.push(Idle { connection, since: clock::now() });
        }
    }

    /// Closes what was idle for too long, and all connections of runs that `keeps` refuses.
    pub(crate) fn sweep(&self, keeps: impl Fn(RunId) -> bool) {
        self.idle.borrow_mut().retain(|(run, _), connections| {
            connections.retain(|idle| clock::now().duration_since(idle.since) < self.timeout);
            !connections.is_empty() && keeps(*run)
        });
        self.http10.borrow_mut().retain(|(run, _)| keeps(*run));
    }
}
