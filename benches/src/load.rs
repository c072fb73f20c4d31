//! Steady load at a fixed rate, from one thread: what is due is sent whether or not earlier answers have come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::Error;
use crate::visitor::{Habit, Visitor};

/// Failures are kept with their words up to this many; all are counted.
const SHOWN: usize = 10;
/// The longest wait between two looks at the clock.
const LOOK: Duration = Duration::from_millis(50);

/// Who visits, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Requests a second of all clients together, who take turns.
    pub rate: u32,
    /// Clients that keep their connection.
    pub keep_alive: usize,
    /// Clients that open a connection for each request.
    pub fresh: usize,
}

impl Plan {
    /// Returns how many clients there are.
    pub fn clients(&self) -> usize {
        self.keep_alive + self.fresh
    }
}

/// A request, by its times.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// When it should be sent.
    pub due: Instant,
    /// When it was, just before it was written.
    pub sent: Option<Instant>,
    /// When its whole right answer was read; `None`: it failed.
    pub answered: Option<Instant>,
}

/// What became of the load.
#[derive(Debug)]
pub struct Log {
    /// Every request, by its number.
    pub requests: Vec<Request>,
    /// Connections of keep-alive clients that the server closed, or announced to close.
    pub closed: u64,
    /// The first failures in words, with the time since the start.
    pub failures: Vec<(Duration, String)>,
    began: Instant,
    answered: Arc<AtomicUsize>,
}

impl Log {
    fn new(answered: Arc<AtomicUsize>) -> Self {
        Self { requests: Vec::new(), closed: 0, failures: Vec::new(), began: Instant::now(), answered }
    }

    #[cfg(test)]
    pub(crate) fn of(requests: Vec<Request>, closed: u64) -> Self {
        Self { requests, closed, ..Self::new(Arc::default()) }
    }

    pub(crate) fn sent(&mut self, id: usize, at: Instant) {
        self.requests[id].sent = Some(at);
    }

    pub(crate) fn answered(&mut self, id: usize) {
        self.requests[id].answered = Some(Instant::now());
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&mut self, id: usize, why: &str) {
        if self.failures.len() < SHOWN {
            self.failures.push((self.began.elapsed(), format!("request {id}: {why}")));
        }
    }

    pub(crate) fn closed(&mut self) {
        self.closed += 1;
    }
}

/// Load that goes on until it is stopped.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<Log, Errno>>>,
}

impl Running {
    /// Starts the load.
    ///
    /// # Errors
    /// Where the thread is not to be had.
    pub fn start(address: SocketAddr, plan: Plan) -> Result<Self, Error> {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, log_answered) = (Arc::clone(&stop), Arc::clone(&answered));
        let run = move || run(address, plan, &stopped, Log::new(log_answered));
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(run);
        let thread = thread.map_err(Error::io("start the load"))?;
        Ok(Self { stop, answered, thread: Some(thread) })
    }

    /// Returns how many right answers have come.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets the requests that are due come to their end, and returns what became of all.
    ///
    /// # Errors
    /// Where the load ended by itself.
    pub fn stop(mut self) -> Result<Log, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| Error::Load("it was stopped before".to_owned()))?;
        match thread.join() {
            Ok(log) => log.map_err(|errno| Error::Load(format!("wait on its sockets: {errno}"))),
            Err(_) => Err(Error::Load("it panicked".to_owned())),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whoever drops it doesn't want to know.
            _ = thread.join();
        }
    }
}

fn run(address: SocketAddr, plan: Plan, stop: &AtomicBool, mut log: Log) -> Result<Log, Errno> {
    let habits =
        std::iter::repeat_n(Habit::KeepAlive, plan.keep_alive).chain(std::iter::repeat_n(Habit::Fresh, plan.fresh));
    let mut visitors: Vec<Visitor> = habits.map(|habit| Visitor::new(address, habit)).collect();
    let period = Duration::from_secs(1) / plan.rate;
    let mut due = log.began;
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        let now = Instant::now();
        while due <= now && !stopped {
            let id = log.requests.len();
            let visitor = id % visitors.len();
            log.requests.push(Request { due, sent: None, answered: None });
            visitors[visitor].take_on(id);
            due += period;
        }
        for visitor in &mut visitors {
            visitor.give_up(now, &mut log);
            visitor.send(&mut log);
        }
        if stopped && visitors.iter().all(Visitor::is_idle) {
            return Ok(log);
        }
        let wait = if stopped { LOOK } else { due.saturating_duration_since(Instant::now()).min(LOOK) };
        for index in readable(&visitors, wait)? {
            visitors[index].receive(&mut log);
        }
    }
}

/// Waits until sockets have something to read, and returns whose.
fn readable(visitors: &[Visitor], wait: Duration) -> Result<Vec<usize>, Errno> {
    let connected = || visitors.iter().enumerate().filter_map(|(index, visitor)| Some((index, visitor.connection()?)));
    let mut sockets: Vec<PollFd<'_>> = connected().map(|(_, socket)| PollFd::new(socket, PollFlags::IN)).collect();
    let wait = Timespec::try_from(wait).unwrap_or_default();
    match poll(&mut sockets, Some(&wait)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    let ready = connected().zip(&sockets).filter(|(_, socket)| !socket.revents().is_empty());
    Ok(ready.map(|((index, _), _)| index).collect())
}
