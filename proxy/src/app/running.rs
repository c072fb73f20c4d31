//! A proxy that serves, and its end: told to stop, or left by those whom its successor serves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch as stages};

use super::error::StartError;
use crate::admin::socket::{AdminSocket, SocketFile};
use crate::belongings::Belongings;
use crate::control::custody::Custody;
use crate::control::reload::Order;
use crate::handover::take::Succession;
use crate::telemetry::access_log::AccessLog;
use crate::worker::{Shared, Stage};

/// At the end of a hand-over, tunnels and streams of events have so long to end as they should.
const GOODBYES: Duration = Duration::from_secs(10);

/// A proxy that serves; dropping it ends it at once.
pub struct Running {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) admin: PathBuf,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) stage: stages::Sender<Stage>,
    pub(super) shared: Arc<Shared>,
    pub(super) workers: Vec<JoinHandle<()>>,
    // Disconnected when the last worker has ended.
    pub(super) working: Receiver<()>,
    pub(super) control: Option<JoinHandle<()>>,
    pub(super) custody: stages::Sender<Custody>,
    // These go after the threads.
    pub(super) access: AccessLog,
    pub(super) files: Vec<SocketFile>,
    pub(super) belongings: Belongings,
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

    /// Ends the hand-over from the process before us: from here on it is the only one that serves no more.
    pub(super) fn succeed(&mut self, succession: Option<Succession>) -> Result<(), StartError> {
        let Some(succession) = succession else { return Ok(()) };
        let wire = succession.serving()?;
        self.files.iter_mut().for_each(SocketFile::keep);
        drop(self.orders.send(Order::Predecessor(wire)));
        Ok(())
    }

    /// Opens the socket at which a successor asks. Without it all goes on but that.
    pub(super) fn await_successor(&mut self, path: &Path) {
        match AdminSocket::replace(path) {
            Ok(AdminSocket { listener, file }) => {
                self.files.push(file);
                drop(self.orders.send(Order::Await(listener)));
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "no successor will be able to take over from this process");
            }
        }
    }

    /// Returns what waits until a successor serves: then this one is to [`Running::retire`].
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub fn successor_serves(&self) -> impl Future<Output = ()> + use<> {
        let mut custody = self.custody.subscribe();
        async move {
            if custody.wait_for(|custody| *custody >= Custody::Left).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns what waits until the successor has changed where requests go.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub fn hurried(&self) -> impl Future<Output = ()> + use<> {
        let mut custody = self.custody.subscribe();
        async move {
            if custody.wait_for(|custody| *custody == Custody::Hurried).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns what makes a [`Running::retire`] end idle connections now.
    pub fn dismiss(&self) -> impl Fn() + Send + 'static {
        let stage = self.stage.clone();
        move || {
            stage.send_if_modified(|stage| {
                let is_retiring = *stage == Stage::Retire;
                if is_retiring {
                    *stage = Stage::Drain;
                }
                is_retiring
            });
        }
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
        self.belongings.close_doors();
        self.stage.send_replace(Stage::Drain);
        if !self.have_ended(deadline) {
            tracing::warn!(?deadline, "requests are still under way; they are ended");
        }
        // Dropping does the rest.
    }

    /// Leaves everything new to the successor. Whoever is connected is told with the next answer that it is the last one; at the
    /// deadline those end who asked for nothing more, and what is left.
    pub fn retire(mut self, deadline: Duration) {
        self.files.iter_mut().for_each(SocketFile::leave);
        self.stage.send_replace(Stage::Retire);
        if self.have_ended(deadline) {
            return;
        }
        drop(self.orders.send(Order::CloseLong));
        self.dismiss()();
        if !self.have_ended(GOODBYES) {
            tracing::warn!(?deadline, "requests are still under way; they are ended");
        }
    }

    /// Waits for the last worker; tells whether it has ended in time.
    fn have_ended(&self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        loop {
            match self.working.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.belongings.close_doors();
        self.stage.send_replace(Stage::Stop);
        for worker in self.workers.drain(..) {
            join(worker);
        }
        // Last, as workers ask it for addresses and the status may be watched until the end.
        drop(self.orders.send(Order::Stop));
        self.control.take().into_iter().for_each(join);
        self.belongings.let_go();
        if *self.custody.borrow() >= Custody::Left {
            self.files.iter_mut().for_each(SocketFile::leave);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        tracing::error!(thread = name, "a thread panicked");
    }
}
