//! Control's thread: its runtime, the sockets that it answers on, the reloads, and its end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::SyncSender;
use std::time::SystemTime;

use config::model::Model;
use tokio::sync::{Notify, mpsc, watch as stages};

use crate::admin::scrape;
use crate::admin::server::{self, Context};
use crate::control::reload::{ConfigFile, Configure, Order, Reloader, settings};
use crate::control::store::{Restored, Store};
use crate::control::{self, Control, Handle, Reports};
use crate::doors::Doors;
use crate::telemetry::access_log::Lines;
use crate::telemetry::count::Count;
use crate::tls::Tls;
use crate::worker::Shared;

/// What the control thread is made from.
pub(crate) struct Setup {
    pub(crate) config: Option<ConfigFile>,
    pub(crate) model: Model,
    pub(crate) state: (Store, Restored),
    pub(crate) spool: PathBuf,
    pub(crate) workers: usize,
    pub(crate) tls: Tls,
    pub(crate) doors: Doors,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) access: Lines,
    pub(crate) listener: std::os::unix::net::UnixListener,
    pub(crate) metrics: Option<TcpListener>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    pub(crate) receiver: mpsc::UnboundedReceiver<Order>,
    pub(crate) ready: SyncSender<Arc<Shared>>,
}

/// Runs control on the calling thread until [`Order::Stop`].
pub(crate) fn run(setup: Setup) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async move {
        let Setup {
            config,
            model,
            state,
            spool,
            workers,
            tls,
            doors,
            addresses,
            access,
            listener,
            metrics,
            orders,
            mut receiver,
            ready,
        } = setup;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let (mut control, live) = Control::open(state.0, state.1, workers);
        let in_force = model.with(control.proxy_settings());
        let (resolver, resolves) = mpsc::unbounded_channel();
        let (suspects, suspected) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            live,
            settings: stages::Sender::new(settings(&in_force)),
            cut: stages::Sender::new(Vec::new()),
            leaving: stages::Sender::new(Vec::new()),
            resolver,
            suspects,
            connections: AtomicU64::new(0),
            tls,
            below_cap: Notify::new(),
            access,
            spool,
            crowd: Arc::default(),
            requests: (0..workers).map(|_| Count::default()).collect(),
        });
        control.attach(Arc::clone(&shared));
        let handle = Handle::new(control);
        let mut reloader = Reloader { config, model, handle: Rc::clone(&handle), shared: Arc::clone(&shared), doors };
        reloader.begin();
        control::start(&handle, Reports { resolves, suspects: suspected });
        let context = Context { handle, shared: Arc::clone(&shared), orders, addresses, started: SystemTime::now() };
        let context = Rc::new(context);
        if let Some(metrics) = metrics {
            let metrics = tokio::net::TcpListener::from_std(metrics)?;
            tokio::task::spawn_local(scrape::accept(metrics, Rc::clone(&context)));
        }
        tokio::task::spawn_local(server::accept(listener, context));
        if ready.send(shared).is_err() {
            return Ok(());
        }
        while let Some(order) = receiver.recv().await {
            match order {
                Order::Reload(reply) => {
                    let problems = reloader.reload();
                    // Whoever asked may have gone.
                    drop(reply.map(|reply| reply.send(problems)));
                }
                Order::Tell(reply) => drop(reply.send(reloader.tell())),
                Order::Configure(order) => {
                    let Configure { settings, if_match, reply } = *order;
                    drop(reply.send(reloader.configure(settings, if_match)));
                }
                Order::Stop => break,
            }
        }
        Ok(())
    })
}
