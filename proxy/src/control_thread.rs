//! Control's thread: its runtime, the sockets that it answers on, the reloads, and its end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime};

use config::model::Model;
use tokio::sync::{Notify, mpsc, watch as stages};

use crate::acme::{self, Clock};
use crate::admin::scrape;
use crate::admin::server::{self, Context};
use crate::control::custody::Custody;
use crate::control::reload::{Bring, ConfigFile, Configure, Order, Reloader, settings};
use crate::control::store::{Restored, Store};
use crate::control::{self, Control, Handle, Reports};
use crate::doors::Doors;
use crate::handover::give;
use crate::successor::Program;
use crate::telemetry::access_log::Lines;
use crate::telemetry::count::Count;
use crate::telemetry::panics;
use crate::tls::Tls;
use crate::worker::Shared;

/// At the end, answers that are under way have so long.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

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
    pub(crate) custody: stages::Sender<Custody>,
    /// A process before us still finishes its last requests.
    pub(crate) succeeds: bool,
    pub(crate) program: Option<Program>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    pub(crate) receiver: mpsc::UnboundedReceiver<Order>,
    pub(crate) clock: Clock,
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
            custody,
            succeeds,
            program,
            orders,
            mut receiver,
            clock,
            ready,
        } = setup;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let (mut control, live) = Control::open(state.0, state.1, workers);
        let in_force = model.with(control.proxy_settings());
        let (resolver, resolves) = mpsc::unbounded_channel();
        let (suspects, suspected) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            verifier: Arc::default(),
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
        let handle = Handle::new(control, custody);
        if succeeds {
            handle.expect_predecessor();
        }
        let webhook = stages::Sender::new(in_force.webhook);
        let (told, sender) = (webhook.subscribe(), Rc::clone(&handle));
        tokio::task::spawn_local(async move {
            let custody = |is_ours: bool| {
                let mut custody = sender.custody.subscribe();
                // It is there as long as the handle is.
                async move { _ = custody.wait_for(|custody| (*custody < Custody::Given) == is_ours).await }
            };
            sender.webhook.send_all(told, async || custody(true).await, async || custody(false).await).await;
        });
        let acme = stages::Sender::new(in_force.acme);
        let office = acme::Office {
            handle: Rc::clone(&handle),
            shared: Arc::clone(&shared),
            settings: acme.subscribe(),
            orders: orders.clone(),
            clock,
        };
        tokio::task::spawn_local(async move { office.run().await });
        let (reloading, serving) = (Rc::clone(&handle), Arc::clone(&shared));
        let mut reloader =
            Reloader { config, model, handle: reloading, shared: serving, webhook, acme, doors, is_due: false };
        reloader.begin();
        reloader.show_brought();
        // What nobody wants any more, after this start or at all.
        reloader.doors.inherited.clear();
        control::start(&handle, Reports { resolves, suspects: suspected });
        let started = SystemTime::now();
        let shared_with = Arc::clone(&shared);
        let context = Context {
            handle: Rc::clone(&handle),
            shared: shared_with,
            orders: orders.clone(),
            addresses,
            started,
            program,
        };
        let context = Rc::new(context);
        if let Some(metrics) = metrics {
            let metrics = tokio::net::TcpListener::from_std(metrics)?;
            let context = Rc::clone(&context);
            tokio::task::spawn_local(async move {
                panics::enduring("the port of the metrics", async || scrape::accept(&metrics, &context).await).await;
            });
        }
        let (served, mut calls) = mpsc::channel::<()>(1);
        let closing = Rc::new(stages::Sender::new(false));
        tokio::task::spawn_local({
            let (handle, closing) = (Rc::clone(&handle), Rc::clone(&closing));
            async move {
                // A sender that is gone is the end of this thread.
                _ = handle.custody.subscribe().wait_for(|custody| *custody >= Custody::Left).await;
                closing.send_replace(true);
            }
        });
        let visits = server::Visits { closing: closing.subscribe(), served };
        tokio::task::spawn_local(async move {
            panics::enduring("the admin socket", async || server::accept(&listener, &context, &visits).await).await;
        });
        if ready.send(shared).is_err() {
            return Ok(());
        }
        // An order that a fault of ours ends leaves what was in force, and the next one is taken: whoever gave it has no answer.
        let obeying = panics::enduring("taking orders", async || {
            while let Some(order) = receiver.recv().await {
                if let Order::Await(listener) = order {
                    await_successor(listener, &orders, &handle);
                } else if obey(&mut reloader, order) == Goes::Home {
                    return;
                }
            }
        });
        obeying.await;
        // Whoever asked for what ends us is still to be told.
        closing.send_replace(true);
        _ = tokio::time::timeout(LAST_ANSWERS, calls.recv()).await;
        Ok(())
    })
}

/// Lets successors ask, until one of them serves.
fn await_successor(
    listener: std::os::unix::net::UnixListener,
    orders: &mpsc::UnboundedSender<Order>,
    handle: &Rc<Handle>,
) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "no successor will be able to take over from this process"),
    };
    let (orders, mut custody) = (orders.clone(), handle.custody.subscribe());
    tokio::task::spawn_local(async move {
        let accept = panics::enduring("awaiting a successor", async || give::accept(&listener, &orders).await);
        tokio::select! {
            () = accept => {}
            _ = custody.wait_for(|custody| *custody >= Custody::Left) => {}
        }
    });
}

/// Whether control goes on after an order.
#[derive(PartialEq, Eq)]
enum Goes {
    On,
    Home,
}

fn obey(reloader: &mut Reloader, order: Order) -> Goes {
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
        Order::Bring(order) => {
            let Bring { name, brought, reply } = *order;
            drop(reply.send(reloader.bring(&name, &brought)));
        }
        Order::OpenTls(reply) => drop(reply.send(reloader.open_tls())),
        Order::TakeAway(name, reply) => drop(reply.send(reloader.take_away(&name))),
        Order::HandOver(step, reply) => drop(reply.send(reloader.hand_over(step))),
        Order::Predecessor(wire) => reloader.follow(wire),
        Order::CloseLong => reloader.close_long(),
        // Taken before.
        Order::Await(_) => {}
        Order::Stop => return Goes::Home,
    }
    Goes::On
}
