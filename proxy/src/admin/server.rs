//! The accept loop of the admin socket: who may come in, and one task a connection.

use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};

use super::api;

pub(crate) use super::api::Context;

/// The user that stands for "nobody in this namespace": never let in, whoever we are.
const OVERFLOW_UID: u32 = 65534;
/// After an accept that failed for want of something, the pause before the next.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Accepts for as long as the control thread lives.
pub(crate) async fn accept(listener: UnixListener, context: Rc<Context>) {
    let own = rustix::process::geteuid().as_raw();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(peer) if may_enter(peer.uid(), own) => {
                    tokio::task::spawn_local(serve(stream, Rc::clone(&context)));
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

fn may_enter(peer: u32, own: u32) -> bool {
    peer != OVERFLOW_UID && (peer == own || peer == 0)
}

async fn serve(stream: UnixStream, context: Rc<Context>) {
    let service = service_fn(move |request| api::answer(Rc::clone(&context), request));
    // An end that closes is an end that has gone: its stream of events ends, and with it the lease that it kept.
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
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
