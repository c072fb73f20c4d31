//! A whole proxy: what it needs before it serves, made or taken over, and the threads it runs. Also used inside tests.

mod error;
mod running;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use config::model::{Listen, Model};
use config::settings::ProxySettings;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tokio::sync::{mpsc, watch as stages};

pub use self::error::StartError;
pub use self::running::Running;
use crate::acme::Clock;
use crate::admin::socket::{self, AdminSocket};
use crate::belongings::Belongings;
use crate::control::custody::Custody;
use crate::control::reload::{ConfigFile, Order};
use crate::control::store::{Restored, Store};
use crate::doors::{self, Door, Doors, Sockets};
use crate::handover;
use crate::handover::take::Succession;
use crate::socket::Port;
use crate::successor::Program;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::log_target::Target;
use crate::tls::Tls;
use crate::worker::Stage;
use crate::{control_thread, thread as worker_thread};

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration file; only the default path may be missing. `None`: no file at all.
    pub config: Option<PathBuf>,
    /// Addresses to listen on; empty: the file's.
    pub listen: Vec<SocketAddr>,
    /// Addresses to listen on for TLS; empty: the file's.
    pub listen_tls: Vec<SocketAddr>,
    /// The admin socket.
    pub admin: PathBuf,
    /// The folder of saved state.
    pub state: PathBuf,
    /// Worker threads; 0: the file's.
    pub workers: usize,
    /// Take over from the proxy that has the state folder, where there is one.
    pub takes_over: bool,
    /// How a successor is started; `None` where another program runs this proxy.
    pub program: Option<Program>,
}

/// What makes proxies.
#[derive(Debug)]
pub struct App;

/// A proxy that has all it needs and serves nothing yet.
pub struct Bound {
    /// The addresses it listens on.
    pub addresses: Vec<SocketAddr>,
    /// Its admin socket.
    pub admin: PathBuf,
    sockets: Sockets,
    sockets_tls: Sockets,
    listen_tls: Vec<SocketAddr>,
    tls: Tls,
    workers: usize,
    admin_socket: AdminSocket,
    config: Option<ConfigFile>,
    model: Model,
    state: (Store, Restored),
    spool: PathBuf,
    belongings: Belongings,
    inherited: Vec<Door>,
    succession: Option<Succession>,
    program: Option<Program>,
    access: AccessLog,
    metrics: Option<TcpListener>,
    clock: Clock,
    orders: (mpsc::UnboundedSender<Order>, mpsc::UnboundedReceiver<Order>),
}

impl App {
    /// Loads the configuration and takes everything that another process could have: the state folder, the addresses,
    /// the admin socket. Where it is to take over, it is given them by the process that has them.
    ///
    /// # Errors
    /// The first thing that is not to be had; what was taken is given back.
    pub fn bind(options: Options) -> Result<Bound, StartError> {
        let mut succession = None;
        if options.takes_over {
            succession = Succession::ask(&options.state)?;
        }
        let bound = bind(options, succession.as_mut());
        match bound {
            Ok(bound) => Ok(Bound { succession, ..bound }),
            Err(error) => {
                succession.iter().for_each(|succession| succession.never(&error));
                Err(error)
            }
        }
    }
}

fn bind(options: Options, mut succession: Option<&mut Succession>) -> Result<Bound, StartError> {
    let Options { config, listen, listen_tls, admin, state, workers, takes_over: _, program } = options;
    let orders = mpsc::unbounded_channel();
    let config =
        config.map(|path| ConfigFile::watch(path, orders.0.clone())).transpose().map_err(StartError::Thread)?;
    let model = config.as_ref().map_or_else(|| Ok(Model::default()), ConfigFile::load).map_err(StartError::Config)?;
    let workers = if workers == 0 { model.workers.count() } else { workers };
    let spool = state.clone();
    let (lock, state) = open_state(&state, succession.as_deref_mut())?;
    let belongings = Belongings::default();
    belongings.keep_lock(lock);
    let mut inherited = succession.as_deref_mut().map(Succession::doors).unwrap_or_default();
    let wanted = if listen.is_empty() { model.listen.clone() } else { Listen::Asked(listen) };
    let sockets = doors::bind(&wanted, Port::Plain, workers, &mut inherited)?;
    let addresses = doors::addresses(&sockets);
    let tls = Tls::new(&model.certificates).map_err(StartError::Tls)?;
    let wanted = doors::wanted(&listen_tls, &model);
    let sockets_tls = wanted.map(|listen| doors::bind(&listen, Port::Tls, workers, &mut inherited));
    let sockets_tls = sockets_tls.transpose()?.unwrap_or_default();
    tls.listens_on(doors::addresses(&sockets_tls));
    let made = make_folder(admin.parent().unwrap_or(Path::new("")))
        .and_then(|()| open_admin(&admin, succession.as_deref_mut()));
    let admin_socket = made.map_err(|source| StartError::Admin { path: admin.clone(), source })?;
    let access = open_access_log(&model, &state.1.proxy.settings)?;
    let metrics = model.metrics.map(|address| bind_metrics(address, succession)).transpose()?;
    let kept = sockets.iter().flatten().try_for_each(|socket| belongings.keep_door(Port::Plain, socket));
    let kept = kept.and_then(|()| {
        sockets_tls.iter().flatten().try_for_each(|socket| belongings.keep_door(Port::Tls, socket))?;
        metrics.iter().try_for_each(|socket| belongings.keep_metrics(socket))?;
        belongings.keep_admin(admin_socket.file.identity(), &admin_socket.listener)
    });
    kept.map_err(StartError::Files)?;
    Ok(Bound {
        addresses,
        admin,
        sockets,
        sockets_tls,
        listen_tls,
        tls,
        workers,
        admin_socket,
        config,
        model,
        state,
        spool,
        belongings,
        inherited,
        succession: None,
        program,
        access,
        metrics,
        clock: Clock::default(),
        orders,
    })
}

impl Bound {
    /// Lets certificates that come by themselves be renewed by another clock than the machine's.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Starts the threads. When this returns, restored services are routed and connections are accepted.
    ///
    /// # Errors
    /// Where a thread can't be started; those that were are ended.
    pub fn start(self) -> Result<Running, StartError> {
        let Self {
            addresses,
            admin,
            sockets,
            sockets_tls,
            listen_tls,
            tls,
            workers,
            admin_socket,
            config,
            model,
            state,
            spool,
            belongings,
            inherited,
            succession,
            program,
            access,
            metrics,
            clock,
            orders,
        } = self;
        if let Some(succession) = &succession {
            // From here on the state is ours to change; before, nothing was changed that the old one would miss.
            succession.ready()?;
        }
        let (orders, receiver) = orders;
        let (ready, shared) = sync_channel(1);
        let custody = stages::Sender::new(Custody::Ours);
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let doors = Doors {
            asked: listen_tls,
            workers: senders,
            are_open: !sockets_tls.is_empty(),
            inherited,
            belongings: belongings.clone(),
        };
        let hand_over = handover::socket(&spool);
        let setup = control_thread::Setup {
            config,
            model,
            state,
            spool,
            workers,
            tls,
            doors,
            addresses: addresses.clone(),
            access: access.lines.clone(),
            listener: admin_socket.listener,
            metrics,
            custody: custody.clone(),
            succeeds: succession.is_some(),
            program,
            orders: orders.clone(),
            receiver,
            clock,
            ready,
        };
        let control = thread::Builder::new().name("control".to_owned()).spawn(move || {
            if let Err(error) = control_thread::run(setup) {
                tracing::error!(%error, "the control thread ended");
            }
        });
        let control = control.map_err(StartError::Thread)?;
        let shared = shared.recv().map_err(|_| StartError::Thread(io::Error::other("the control thread failed")))?;
        let (stage, stage_receiver) = stages::channel(Stage::Serve);
        let (done, working) = channel();
        let mut running = Running {
            addresses,
            admin,
            orders,
            stage,
            shared,
            workers: Vec::with_capacity(workers),
            working,
            control: Some(control),
            custody,
            access,
            files: vec![admin_socket.file],
            belongings,
        };
        let plain = sockets.into_iter().map(|group| (Port::Plain, group));
        let sockets = plain.chain(sockets_tls.into_iter().map(|group| (Port::Tls, group))).collect();
        for (index, (listeners, more)) in by_worker(sockets, workers).into_iter().zip(receivers).enumerate() {
            let (shared, stage, done) = (Arc::clone(&running.shared), stage_receiver.clone(), done.clone());
            let setup = worker_thread::Setup { index, listeners, more, shared, stage };
            let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let _done = done;
                if let Err(error) = worker_thread::run(setup) {
                    tracing::error!(%error, index, "a worker can't serve");
                }
            });
            // An error drops what runs, which ends it.
            running.workers.push(thread.map_err(StartError::Thread)?);
        }
        if let Err(error) = running.succeed(succession) {
            // The one before us goes on; whoever came here meanwhile gets an answer.
            let deadline = running.shutdown_timeout();
            running.shutdown(deadline);
            return Err(error);
        }
        running.await_successor(&hand_over);
        Ok(running)
    }
}

fn open_state(folder: &Path, succession: Option<&mut Succession>) -> Result<(File, (Store, Restored)), StartError> {
    let failed = |source| StartError::State { path: folder.to_owned(), source };
    make_folder(folder).map_err(failed)?;
    let lock = match succession.and_then(Succession::lock) {
        Some(lock) => {
            // A version that can't read it would lose it, and the one that has it can.
            Store::check(folder).map_err(StartError::Unreadable)?;
            File::from(lock)
        }
        None => {
            let lock = File::options().create(true).truncate(false).write(true).open(folder.join("lock"));
            let lock = lock.map_err(failed)?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(StartError::StateTaken(folder.to_owned())),
                Err(error) => return Err(failed(error.into())),
            }
            lock
        }
    };
    Ok((lock, Store::open(folder).map_err(failed)?))
}

/// Opens the admin socket; where the process before us has bound this very file, its queue goes on.
fn open_admin(path: &Path, succession: Option<&mut Succession>) -> io::Result<AdminSocket> {
    let present = socket::identity(path).ok();
    match succession.zip(present).and_then(|(succession, present)| succession.admin(present)) {
        Some(listener) => AdminSocket::inherit(path, listener),
        None => AdminSocket::bind(path),
    }
}

fn open_access_log(model: &Model, table: &ProxySettings) -> Result<AccessLog, StartError> {
    let path = model.with(table).log.access.file;
    let is_files = path == model.log.access.file;
    let named = path.clone().unwrap_or_else(|| "stdout".into());
    let target = match (Target::open(path.clone()), path) {
        // What was asked for some time ago keeps no proxy from starting.
        (Err(error), Some(path)) if !is_files => {
            let path_shown = path.display();
            tracing::warn!(%error, path = %path_shown, "the access log can't be opened; until it can, its lines go to stdout");
            Ok(Target::until(path))
        }
        (opened, _) => opened,
    };
    target.and_then(AccessLog::start).map_err(|source| StartError::AccessLog { path: named, source })
}

/// Makes a folder that only we can read, where there is none.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn bind_metrics(address: SocketAddr, succession: Option<&mut Succession>) -> Result<TcpListener, StartError> {
    if let Some(socket) = succession.and_then(|succession| succession.metrics(address)) {
        return Ok(socket);
    }
    let bound = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map_err(|source| StartError::Listen { address, source })
}

/// Turns a list of addresses with a socket for each worker, or more, into a list of workers with their sockets: all are accepted from.
fn by_worker(sockets: Vec<(Port, Vec<TcpListener>)>, workers: usize) -> Vec<Vec<Door>> {
    let mut each: Vec<Vec<Door>> = (0..workers).map(|_| Vec::with_capacity(sockets.len())).collect();
    for (port, group) in sockets {
        for (index, socket) in group.into_iter().enumerate() {
            each[index % workers].push((port, socket));
        }
    }
    each
}

#[cfg(test)]
mod tests;
