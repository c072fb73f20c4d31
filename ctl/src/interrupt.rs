//! Signals that ask the program to end, as a future that can stand beside any wait.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Error, Signal};

/// Tells when a signal came; clones share what was seen.
#[derive(Debug, Clone)]
pub struct Interrupt {
    seen: watch::Receiver<(u32, Option<Signal>)>,
}

impl Interrupt {
    /// Begins to listen. Where the system refuses, signals keep their default effect.
    pub fn listen() -> Self {
        let (tell, seen) = watch::channel((0, None));
        let kinds = [
            (SignalKind::interrupt(), Signal::Interrupt),
            (SignalKind::terminate(), Signal::Terminate),
            (SignalKind::hangup(), Signal::HangUp),
        ];
        for (kind, name) in kinds {
            let Ok(mut stream) = signal(kind) else { continue };
            let tell = tell.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    tell.send_modify(|(count, first)| {
                        *count += 1;
                        first.get_or_insert(name);
                    });
                }
            });
        }
        Self { seen }
    }

    /// Waits for the first signal.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing: a signal that came is reported to the next caller.
    pub async fn first(&self) -> Signal {
        self.count(1).await
    }

    /// Waits for the second signal: someone who wants to leave at once.
    ///
    /// # Cancel safety
    /// As of [`Interrupt::first`].
    pub async fn second(&self) -> Signal {
        self.count(2).await
    }

    async fn count(&self, wanted: u32) -> Signal {
        let mut seen = self.seen.clone();
        let found = seen.wait_for(|(count, _)| *count >= wanted).await.ok().and_then(|state| state.1);
        match found {
            Some(signal) => signal,
            // Nobody listens any more, so no signal will come.
            None => std::future::pending().await,
        }
    }

    /// Tells whether to go on, between two steps that must not be torn.
    ///
    /// # Errors
    /// [`Error::interrupted`] where a signal came.
    pub fn check(&self) -> Result<(), Error> {
        let first = self.seen.borrow().1;
        first.map_or(Ok(()), |signal| Err(Error::interrupted(signal)))
    }

    /// Runs a wait until it is over or a signal comes.
    ///
    /// # Errors
    /// [`Error::interrupted`] where a signal came first.
    pub async fn beside<T>(&self, wait: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            signal = self.first() => Err(Error::interrupted(signal)),
            done = wait => Ok(done),
        }
    }
}
