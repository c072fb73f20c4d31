//! One worker from the inside: its upstream pool, its clients, and its view of what all workers share, which in the request
//! path is the routing table and nothing else.

use std::cell::{Cell, Ref, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use config::model::{Access, AccessFormat, Limits};
use config::name::EndpointAddr;
use config::options::ServiceOptions;
use http::HeaderValue;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::client::{Client, ClientLimits, Order};
use crate::clock;
use crate::compress::{self, Budget};
use crate::crowd::{Crowd, Place};
use crate::edge::{Passwords, Verifier};
use crate::headers::Trust;
use crate::routing::live::{Live, Reader};
use crate::routing::table::Table;
use crate::scratch::Scratch;
use crate::telemetry::access_log::{Lines, WorkerLog};
use crate::telemetry::count::Count;
use crate::tls::Tls;
use crate::upstream::balance::Balance;
use crate::upstream::exchange::ExchangeLimits;
use crate::upstream::http2::Links;
use crate::upstream::leaving::Leaving;
use crate::upstream::pool::Pool;
use crate::upstream::run::{Run, RunId};
use crate::upstream::socket::Address;

/// How often a worker looks at its clients and idle upstream connections.
const TICK: Duration = Duration::from_millis(500);

/// What all workers share with one another and with control.
pub(crate) struct Shared {
    /// The routing table.
    pub(crate) live: Live,
    /// Limits and time-outs, which a reload replaces.
    pub(crate) settings: watch::Sender<Settings>,
    /// The runs whose drain deadline passed last: what is left of them is to end.
    pub(crate) cut: watch::Sender<Vec<RunId>>,
    /// Endpoints that were taken out of their runs, and what is left under way there is asked for.
    pub(crate) leaving: watch::Sender<Vec<Arc<Leaving>>>,
    /// Where names are resolved anew after a failure to connect.
    pub(crate) resolver: mpsc::UnboundedSender<Resolve>,
    /// Where a run is reported that failed a request in its bake.
    pub(crate) suspects: mpsc::UnboundedSender<RunId>,
    /// Client connections of all workers.
    pub(crate) connections: AtomicU64,
    /// What handshakes of TLS need.
    pub(crate) tls: Tls,
    /// Rings when a connection ended while the cap was reached.
    pub(crate) below_cap: Notify,
    /// Requests served by each worker.
    pub(crate) requests: Box<[Count]>,
    /// Where access lines go.
    pub(crate) access: Lines,
    /// The folder of bodies that are too long for memory.
    pub(crate) spool: PathBuf,
    /// Where passwords are looked at.
    pub(crate) verifier: Arc<Verifier>,
    /// How many connections each client address has.
    pub(crate) crowd: Arc<Crowd>,
}

/// What a reload can change in the request path.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Limits and time-outs.
    pub(crate) limits: Limits,
    /// Networks whose forwarded headers are believed.
    pub(crate) trust: Trust,
    /// Networks whose connections begin with a PROXY header.
    pub(crate) balancers: Trust,
    /// What is written of requests.
    pub(crate) access: Arc<Access>,
}

/// The life of the process, as workers follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Accept and serve.
    Serve,
    /// Accept nothing new, as a successor does; each connection ends with an answer that says so.
    Retire,
    /// Accept nothing new; end each connection after the request under way.
    Drain,
    /// End everything.
    Stop,
}

/// Asks control to resolve an endpoint's name anew, after its known addresses refused.
pub(crate) struct Resolve {
    /// The run that it belongs to.
    pub(crate) run: RunId,
    /// The endpoint.
    pub(crate) endpoint: EndpointAddr,
    /// Takes the addresses; none where the name has none.
    pub(crate) reply: oneshot::Sender<Vec<Address>>,
}

/// One worker.
pub(crate) struct Worker {
    /// Its place among the workers.
    pub(crate) index: usize,
    /// What all workers share.
    pub(crate) shared: Arc<Shared>,
    /// Idle upstream connections.
    pub(crate) pool: Rc<Pool>,
    /// Connections that speak HTTP/2.
    pub(crate) links: Links,
    /// The lines of its requests.
    pub(crate) log: Rc<WorkerLog>,
    /// Which of several endpoints is next.
    pub(crate) balance: Rc<Balance>,
    /// What it knows of passwords.
    pub(crate) passwords: Passwords,
    /// What its last request left to the next.
    pub(crate) scratch: Scratch,
    /// The memory of its compressed answers.
    pub(crate) compressing: Budget,
    /// Limits of what is parsed, as they stood when the worker started.
    pub(crate) limits: Limits,
    table: RefCell<Reader>,
    settings: RefCell<Settings>,
    clients: RefCell<FxHashMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    /// Sockets that are accepted from.
    accepting: Cell<usize>,
    accepts_no_more: Notify,
    request_id_seed: [u8; 16],
    request_ids: Cell<u64>,
    turn: Cell<usize>,
}

impl Worker {
    /// Returns a worker without clients.
    pub(crate) fn new(index: usize, shared: Arc<Shared>) -> Self {
        let settings = shared.settings.borrow().clone();
        let limits = settings.limits.clone();
        Self {
            index,
            log: Rc::new(WorkerLog::new(shared.access.clone())),
            balance: Rc::default(),
            passwords: Passwords::new(Arc::clone(&shared.verifier)),
            scratch: Scratch::default(),
            compressing: Budget::new(compress::BUDGET_BYTES),
            links: Links::new(limits.upstream_idle),
            pool: Rc::new(Pool::new(limits.upstream_idle, limits.upstream_idle_connections)),
            limits,
            table: RefCell::new(shared.live.reader()),
            settings: RefCell::new(settings),
            clients: RefCell::default(),
            next_client: Cell::new(0),
            accepting: Cell::new(0),
            accepts_no_more: Notify::new(),
            request_id_seed: hex(RandomState::new().hash_one(index)),
            request_ids: Cell::new(0),
            turn: Cell::new(0),
            shared,
        }
    }

    /// Returns the routing table in force: one load a request, and the request keeps what it got.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.borrow_mut().current()
    }

    /// Returns whom to believe about clients behind a peer.
    pub(crate) fn trust(&self) -> Ref<'_, Trust> {
        Ref::map(self.settings.borrow(), |settings| &settings.trust)
    }

    /// Tells whether a peer's connection begins with a PROXY header.
    pub(crate) fn awaits_proxy_header(&self, peer: IpAddr) -> bool {
        self.settings.borrow().balancers.believes(peer)
    }

    /// Returns what is written of requests; `None`: nothing.
    pub(crate) fn access(&self) -> Option<Arc<Access>> {
        let settings = self.settings.borrow();
        (settings.access.format != AccessFormat::Off).then(|| Arc::clone(&settings.access))
    }

    /// Takes a place for a connection among those of its address; `None` where it has as many as it may.
    pub(crate) fn enter(&self, peer: IpAddr) -> Option<Option<Place>> {
        let most = self.settings.borrow().limits.connections_per_address;
        match most.filter(|_| !self.trust().believes(peer)) {
            Some(most) => self.shared.crowd.enter(peer, most).map(Some),
            None => Some(None),
        }
    }

    /// Returns the limits of an exchange with an application.
    pub(crate) fn exchange_limits(&self, options: &ServiceOptions) -> ExchangeLimits {
        let limits = &self.settings.borrow().limits;
        ExchangeLimits {
            connect: options.connect_timeout.unwrap_or(limits.connect_timeout),
            response: options.response_timeout.unwrap_or(limits.response_timeout),
            body_idle: options.body_idle_timeout.unwrap_or(limits.body_idle_timeout),
            header_bytes: limits.header_bytes,
            header_fields: limits.header_fields,
        }
    }

    /// Returns how long a client may take nothing of an answer.
    pub(crate) fn body_idle_timeout(&self) -> Duration {
        self.settings.borrow().limits.body_idle_timeout
    }

    /// Returns the most client connections that all workers may have.
    pub(crate) fn most_connections(&self) -> u64 {
        self.settings.borrow().limits.connections as u64
    }

    /// Returns an id for a request that has none, unlike that of any other.
    pub(crate) fn request_id(&self) -> HeaderValue {
        let count = self.request_ids.get();
        self.request_ids.set(count + 1);
        let id = self.scratch.bytes(|out| {
            out.extend_from_slice(&self.request_id_seed);
            out.extend_from_slice(&hex(count));
        });
        HeaderValue::from_maybe_shared(id).expect("hexadecimal digits are a field value")
    }

    /// Returns a number that goes round, to spread requests over endpoints.
    pub(crate) fn turn(&self) -> usize {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }

    /// Reports a run that failed a request in its bake.
    pub(crate) fn suspect(&self, run: &Run) {
        if run.suspect() {
            // Control gone is the process gone.
            _ = self.shared.suspects.send(run.id());
        }
    }

    /// Counts a request.
    pub(crate) fn count_request(&self) {
        self.shared.requests[self.index].add(1);
    }

    /// Counts a socket that is accepted from for as long as the returned guard lives: until then a client may come by it.
    pub(crate) fn accepting(self: &Rc<Self>) -> Accepting {
        self.accepting.set(self.accepting.get() + 1);
        Accepting(Rc::clone(self))
    }

    /// Lists a client for as long as the returned guard lives.
    pub(crate) fn list(self: &Rc<Self>, client: &Rc<Client>) -> Listed {
        let number = self.next_client.get();
        self.next_client.set(number + 1);
        self.clients.borrow_mut().insert(number, Rc::clone(client));
        Listed { worker: Rc::clone(self), number }
    }

    /// Looks after clients and idle connections until the worker's life is over.
    ///
    /// # Cancel safety
    /// Dropping it leaves clients without their time-outs.
    pub(crate) async fn watch(&self, mut stage: watch::Receiver<Stage>) {
        let mut cut = self.shared.cut.subscribe();
        let mut settings = self.shared.settings.subscribe();
        // Begun again after a panic, it may have missed either.
        cut.mark_changed();
        settings.mark_changed();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Stage::Serve;
        loop {
            // Looked at whatever it was that woke us: a change that came with something else is no news the next time.
            let now = *stage.borrow_and_update();
            if now != told {
                told = now;
                match now {
                    Stage::Serve => {}
                    Stage::Retire => self.order_all(Order::Retire),
                    Stage::Drain => self.order_all(Order::Finish),
                    Stage::Stop => {
                        self.order_all(Order::Drop);
                        return;
                    }
                }
            }
            if now != Stage::Serve && self.clients.borrow().is_empty() && self.accepting.get() == 0 {
                return;
            }
            tokio::select! {
                changed = stage.changed() => if changed.is_err() {
                    // The sender gone is the process gone.
                    return self.order_all(Order::Drop);
                },
                Ok(()) = cut.changed() => {
                    let cut = cut.borrow_and_update().clone();
                    self.clients.borrow().values().for_each(|client| client.cut(&cut));
                }
                Ok(()) = settings.changed() => {
                    let next = settings.borrow_and_update().clone();
                    // A fault of ours, for the test of what goes on after it.
                    #[cfg(test)]
                    assert!(next.limits.connections != 666_666, "as the test wants it");
                    *self.settings.borrow_mut() = next;
                }
                () = self.accepts_no_more.notified() => {}
                _ = tick.tick() => self.sweep(),
            }
        }
    }

    fn order_all(&self, order: Order) {
        for client in self.clients.borrow().values() {
            client.order(order);
        }
    }

    fn sweep(&self) {
        let limits = {
            let limits = &self.settings.borrow().limits;
            ClientLimits {
                header: limits.header_timeout,
                idle: limits.idle_timeout,
                body_idle: limits.body_idle_timeout,
            }
        };
        let now = clock::now();
        for client in self.clients.borrow().values() {
            if let Some(order) = client.judge(now, &limits) {
                client.order(order);
            }
        }
        let table = self.table();
        self.pool.sweep(|run| table.has_run(run));
        self.links.sweep(|run| table.has_run(run));
        self.balance.sweep(|run| table.has_run(run));
        self.log.flush();
        self.tell_leaving();
    }

    /// Answers what is left under way on endpoints that were taken out.
    fn tell_leaving(&self) {
        for leaving in self.shared.leaving.borrow().iter() {
            leaving.note(self.index, self.balance.busy_from(leaving.run, leaving.from));
        }
    }
}

/// Returns a number's sixteen hexadecimal digits.
fn hex(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|at| DIGITS[(number >> (60 - 4 * at) & 15) as usize])
}

/// A socket that a worker accepts from.
pub(crate) struct Accepting(Rc<Worker>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accepting.set(self.0.accepting.get() - 1);
        self.0.accepts_no_more.notify_one();
    }
}

/// A client's place in its worker's list, and its share of the connection cap.
pub(crate) struct Listed {
    worker: Rc<Worker>,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.worker.clients.borrow_mut().remove(&self.number);
        let before = self.worker.shared.connections.fetch_sub(1, Ordering::Relaxed);
        if before >= self.worker.most_connections() {
            self.worker.shared.below_cap.notify_waiters();
        }
    }
}
