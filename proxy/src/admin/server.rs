//! The accept loop of the admin socket: who may come in, and one task a connection.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use super::api;

pub(crate) use super::api::Context;

/// The user that stands for "nobody in this namespace": never let in, whoever we are.
const OVERFLOW_UID: u32 = 65534;
/// After an accept that failed for want of something, the pause before the next.
const BACK_OFF: Duration = Duration::from_millis(50);
/// An answer that is under way when a successor serves, or this process ends, has so long.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Those who are connected, as a whole.
pub(crate) struct Visits {
    /// Whether they are to end: with the answer under way.
    pub(crate) closing: watch::Receiver<bool>,
    /// Each has one; when all are gone, all have ended.
    pub(crate) served: mpsc::Sender<()>,
}

/// Accepts for as long as the control thread lives, or until a successor does.
pub(crate) async fn accept(listener: &UnixListener, context: &Rc<Context>, visits: &Visits) {
    let own = rustix::process::geteuid().as_raw();
    let mut closing = visits.closing.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(peer) if may_enter(peer.uid(), own) => {
                    let (closing, served) = (closing.clone(), visits.served.clone());
                    tokio::task::spawn_local(serve(stream, Rc::clone(context), closing, served));
                }
                Ok(peer) => tracing::warn!(uid = peer.uid(), "refused on the admin socket"),
                Err(error) => tracing::warn!(%error, "refused on the admin socket, as the kernel tells no uid"),
            },
            Err(error) => {
                tracing::warn!(%error, "can't accept on the admin socket; trying again");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Tells whether a user may come in.
pub(crate) fn may_enter(peer: u32, own: u32) -> bool {
    peer != OVERFLOW_UID && (peer == own || peer == 0)
}

async fn serve(stream: UnixStream, context: Rc<Context>, mut closing: watch::Receiver<bool>, served: mpsc::Sender<()>) {
    let _served = served;
    let service = service_fn(move |request| api::answer(Rc::clone(&context), request));
    // An end that closes is an end that has gone: its stream of events ends, and with it the lease that it kept.
    let mut serving = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = serving.as_mut() => served,
        _ = closing.wait_for(|closing| *closing) => {
            // An answer under way is finished; a stream of events has no end of its own.
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(LAST_WORD, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "an admin connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_user_and_root_may_enter_and_nobody_may_not() {
        assert!(may_enter(1000, 1000) && may_enter(0, 1000));
        assert!(!may_enter(1001, 1000) && !may_enter(OVERFLOW_UID, 1000) && !may_enter(OVERFLOW_UID, OVERFLOW_UID));
    }
}
