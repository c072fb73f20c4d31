//! A whole proxy: what it needs before it serves, the threads it runs, and its end. Also used inside tests.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use config::error::Problem;
use config::model::{Listen, Model};
use config::settings::ProxySettings;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tokio::sync::{mpsc, watch as stages};

use crate::admin::socket::{AdminSocket, SocketFile};
use crate::control::reload::{ConfigFile, Order};
use crate::control::store::{Restored, Store};
use crate::doors::{self, Closed, Door, Doors, Sockets};
use crate::socket::Port;
use crate::telemetry::access_log::AccessLog;
use crate::tls::Tls;
use crate::worker::{Shared, Stage};
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
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is refused.
    #[error("{}", .0.iter().map(Problem::render).collect::<Vec<_>>().join("\n"))]
    Config(Vec<Problem>),
    /// The state folder can't be used.
    #[error("the state folder {path} can't be used: {source}", path = path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another proxy has the state folder.
    #[error("another bgproxy uses the state folder {path}\nhint: end it, or give --state another folder", path = .0.display())]
    StateTaken(PathBuf),
    /// An address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// TLS can't be set up.
    #[error("TLS can't be set up: {0}")]
    Tls(rustls::Error),
    /// The admin socket can't be made.
    #[error("the admin socket {path} can't be made: {source}", path = path.display())]
    Admin {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The access log can't be opened.
    #[error("the access log {path} can't be opened: {source}", path = path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread can't be started.
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
}

impl From<Closed> for StartError {
    fn from(Closed { address, source }: Closed) -> Self {
        Self::Listen { address, source }
    }
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
    lock: File,
    access: AccessLog,
    metrics: Option<TcpListener>,
    orders: (mpsc::UnboundedSender<Order>, mpsc::UnboundedReceiver<Order>),
}

/// A proxy that serves; dropping it ends it at once.
pub struct Running {
    addresses: Vec<SocketAddr>,
    admin: PathBuf,
    orders: mpsc::UnboundedSender<Order>,
    stage: stages::Sender<Stage>,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    // Disconnected when the last worker has ended.
    working: Receiver<()>,
    control: Option<JoinHandle<()>>,
    // These go after the threads.
    access: AccessLog,
    _admin_file: SocketFile,
    _lock: File,
}

impl App {
    /// Loads the configuration and takes everything that another process could have: the state folder, the addresses,
    /// the admin socket.
    ///
    /// # Errors
    /// The first thing that is not to be had; what was taken is given back.
    pub fn bind(options: Options) -> Result<Bound, StartError> {
        let Options { config, listen, listen_tls, admin, state, workers } = options;
        let orders = mpsc::unbounded_channel();
        let config =
            config.map(|path| ConfigFile::watch(path, orders.0.clone())).transpose().map_err(StartError::Thread)?;
        let model =
            config.as_ref().map_or_else(|| Ok(Model::default()), ConfigFile::load).map_err(StartError::Config)?;
        let workers = if workers == 0 { model.workers.count() } else { workers };
        let spool = state.clone();
        let (lock, state) = open_state(&state)?;
        let wanted = if listen.is_empty() { model.listen.clone() } else { Listen::Asked(listen) };
        let sockets = doors::bind(&wanted, Port::Plain, workers)?;
        let addresses = doors::addresses(&sockets);
        let tls = Tls::new(&model.certificates).map_err(StartError::Tls)?;
        let wanted = doors::wanted(&listen_tls, &model);
        let sockets_tls =
            wanted.map(|listen| doors::bind(&listen, Port::Tls, workers)).transpose()?.unwrap_or_default();
        tls.listens_on(doors::addresses(&sockets_tls));
        let made = make_folder(admin.parent().unwrap_or(Path::new(""))).and_then(|()| AdminSocket::bind(&admin));
        let admin_socket = made.map_err(|source| StartError::Admin { path: admin.clone(), source })?;
        let access = open_access_log(&model, &state.1.proxy.settings)?;
        let metrics = model.metrics.map(bind_metrics).transpose()?;
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
            lock,
            access,
            metrics,
            orders,
        })
    }
}

impl Bound {
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
            lock,
            access,
            metrics,
            orders,
        } = self;
        let (orders, receiver) = orders;
        let (ready, shared) = sync_channel(1);
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let doors = Doors { asked: listen_tls, workers: senders, are_open: !sockets_tls.is_empty() };
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
            orders: orders.clone(),
            receiver,
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
            access,
            _admin_file: admin_socket.file,
            _lock: lock,
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
        Ok(running)
    }
}

impl Running {
    /// Returns the addresses it listens on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns its admin socket.
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// Returns how long the configuration in force lets requests go on at the end.
    pub fn shutdown_timeout(&self) -> Duration {
        self.shared.settings.borrow().limits.shutdown_timeout
    }

    /// Reads the configuration again, soon.
    pub fn reload(&self) {
        // A control thread that is gone is said in the log by itself.
        drop(self.orders.send(Order::Reload(None)));
    }

    /// Opens the access log's file anew, soon: someone moved it away.
    pub fn reopen_logs(&self) {
        self.access.lines.reopen();
    }

    /// Returns what ends a [`Running::shutdown`] that still waits.
    pub fn hurry(&self) -> impl Fn() + Send + 'static {
        let stage = self.stage.clone();
        move || {
            stage.send_replace(Stage::Stop);
        }
    }

    /// Accepts nothing new, waits for requests under way, and ends what is left at the deadline.
    pub fn shutdown(self, deadline: Duration) {
        self.stage.send_replace(Stage::Drain);
        let end = Instant::now() + deadline;
        loop {
            match self.working.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!(?deadline, "requests are still under way; they are ended");
                    break;
                }
            }
        }
        // Dropping does the rest.
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stage.send_replace(Stage::Stop);
        for worker in self.workers.drain(..) {
            join(worker);
        }
        // Last, as workers ask it for addresses and the status may be watched until the end.
        drop(self.orders.send(Order::Stop));
        self.control.take().into_iter().for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        tracing::error!(thread = name, "a thread panicked");
    }
}

fn open_state(folder: &Path) -> Result<(File, (Store, Restored)), StartError> {
    let failed = |source| StartError::State { path: folder.to_owned(), source };
    make_folder(folder).map_err(failed)?;
    let lock = File::options().create(true).truncate(false).write(true).open(folder.join("lock")).map_err(failed)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(StartError::StateTaken(folder.to_owned())),
        Err(error) => return Err(failed(error.into())),
    }
    Ok((lock, Store::open(folder).map_err(failed)?))
}

fn open_access_log(model: &Model, table: &ProxySettings) -> Result<AccessLog, StartError> {
    let path = model.with(table).log.access.file;
    let is_files = path == model.log.access.file;
    match AccessLog::start(path.clone()) {
        // What was asked for some time ago keeps no proxy from starting.
        Err(error) if !is_files => {
            let path = path.unwrap_or_default();
            tracing::warn!(%error, path = %path.display(), "the access log can't be opened; its lines go to stdout");
            AccessLog::start(None).map_err(|source| StartError::AccessLog { path: "stdout".into(), source })
        }
        started => {
            started.map_err(|source| StartError::AccessLog { path: path.unwrap_or_else(|| "stdout".into()), source })
        }
    }
}

/// Makes a folder that only we can read, where there is none.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn bind_metrics(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map_err(|source| StartError::Listen { address, source })
}

/// Turns a list of addresses with a socket for each worker into a list of workers with a socket for each address.
fn by_worker(sockets: Vec<(Port, Vec<TcpListener>)>, workers: usize) -> Vec<Vec<Door>> {
    let mut each: Vec<Vec<Door>> = (0..workers).map(|_| Vec::with_capacity(sockets.len())).collect();
    for (port, group) in sockets {
        for (worker, socket) in each.iter_mut().zip(group) {
            worker.push((port, socket));
        }
    }
    each
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::telemetry::panics;

    fn options(folder: &Path) -> Options {
        Options {
            config: None,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            listen_tls: Vec::new(),
            admin: folder.join("admin.sock"),
            state: folder.join("state"),
            workers: 2,
        }
    }

    #[test]
    fn a_second_proxy_on_the_same_state_is_refused_and_an_ended_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let running = App::bind(options(folder.path())).unwrap().start().unwrap();
        assert_ne!(running.addresses()[0].port(), 0);
        assert!(matches!(App::bind(options(folder.path())).err(), Some(StartError::StateTaken(_))));
        running.shutdown(Duration::from_secs(5));
        assert!(!folder.path().join("admin.sock").exists());
        App::bind(options(folder.path())).unwrap();
    }

    #[test]
    fn a_port_in_use_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = Options { listen: vec![taken.local_addr().unwrap()], ..options(folder.path()) };
        assert!(matches!(App::bind(options).err(), Some(StartError::Listen { .. })));
    }

    /// Sends a request and returns all that comes until the other side closes.
    fn ask(mut socket: impl Read + Write, request: &str) -> String {
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_panic_ends_its_request_alone_and_is_counted() {
        panics::tell();
        let folder = tempfile::tempdir().unwrap();
        let app = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = app.local_addr().unwrap();
        let running = App::bind(Options { workers: 1, ..options(folder.path()) }).unwrap().start().unwrap();
        let admin = |method: &str, path: &str, body: &str| {
            let length = body.len();
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            );
            ask(UnixStream::connect(running.admin()).unwrap(), &(head + body))
        };
        for (name, endpoint) in [("shop", endpoint.to_string()), ("bad", "unix:/panics.sock".to_owned())] {
            let stage = format!(
                r#"{{"endpoints":["{endpoint}"],"health":{{"enabled":false}},"settings":{{"domains":["{name}.test"]}}}}"#
            );
            admin("POST", &format!("/v1/services/{name}/stage"), &stage);
            let flipped = admin("POST", &format!("/v1/services/{name}/flip"), "");
            assert!(flipped.starts_with("HTTP/1.1 200"), "{flipped}");
        }
        let visit = || TcpStream::connect(running.addresses()[0]).unwrap();
        let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}.test\r\nConnection: close\r\n\r\n");
        // A request of another connection of the same worker is under way meanwhile.
        let mut other = visit();
        other.write_all(get("shop").as_bytes()).unwrap();
        let (mut asked, _) = app.accept().unwrap();
        for count in 1..=2 {
            let answer = ask(visit(), &get("bad"));
            assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("connection: close"), "{answer}");
            let metrics = admin("GET", "/metrics", "");
            assert!(metrics.contains(&format!("\nbgproxy_panics_total {count}\n")), "{metrics}");
        }
        let status = |name: &str| admin("GET", &format!("/v1/services/{name}"), "");
        // Its claim was given back, and the other's is still there.
        assert!(!status("bad").contains("\"in_flight\":1"), "{}", status("bad"));
        assert!(status("shop").contains("\"in_flight\":1"), "{}", status("shop"));
        asked.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
        let answer = ask(other, "");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
        running.shutdown(Duration::from_secs(5));
    }
}
