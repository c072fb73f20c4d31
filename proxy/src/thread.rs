//! A worker's thread: its runtime, its listener sockets, and its end.

use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::doors::Door;
use crate::listener;
use crate::telemetry::panics;
use crate::worker::{Shared, Stage, Worker};

/// What a worker is made from.
pub(crate) struct Setup {
    /// Its place among the workers, from 0.
    pub(crate) index: usize,
    /// Its own sockets.
    pub(crate) listeners: Vec<Door>,
    /// Where it gets those that are opened later.
    pub(crate) more: mpsc::UnboundedReceiver<Door>,
    /// What all workers share.
    pub(crate) shared: Arc<Shared>,
    /// What it does when told so.
    pub(crate) stage: watch::Receiver<Stage>,
}

/// Runs a worker on the calling thread until [`Stage::Stop`], or until it has drained.
///
/// # Errors
/// Where the runtime or a socket can't be set up.
pub(crate) fn run(setup: Setup) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async move {
        let Setup { index, listeners, mut more, shared, stage } = setup;
        let worker = Rc::new(Worker::new(index, shared));
        let open = {
            let (worker, stage) = (Rc::clone(&worker), stage.clone());
            move |(port, listener): Door| {
                let listener = TcpListener::from_std(listener)?;
                let (worker, stage) = (Rc::clone(&worker), stage.clone());
                tokio::task::spawn_local(async move {
                    let accept = async || listener::accept(&listener, port, &worker, stage.clone()).await;
                    panics::enduring("accepting", accept).await;
                });
                Ok::<_, std::io::Error>(())
            }
        };
        listeners.into_iter().try_for_each(&open)?;
        tokio::task::spawn_local(async move {
            while let Some(door) = more.recv().await {
                if let Err(error) = open(door) {
                    tracing::error!(%error, index, "a worker can't listen for TLS");
                }
            }
        });
        panics::enduring("looking after clients", async || worker.watch(stage.clone()).await).await;
        Ok(())
    })
}
