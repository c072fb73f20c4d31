//! From a run to a connection to one of its endpoints: an idle one, or a new one.

use std::io;

use config::options::ServiceOptions;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::routing::table::{Endpoint, Target};
use crate::upstream::balance::Busy;
use crate::upstream::connection::Connection;
use crate::upstream::http2::Link;
use crate::upstream::pool::Key;
use crate::upstream::run::{Claim, Tally};
use crate::upstream::socket::Socket;
use crate::worker::{Resolve, Worker};

/// Where a request may go.
pub(super) struct Way<'w> {
    pub(super) target: &'w Target,
    pub(super) claim: &'w Claim,
    pub(super) options: &'w ServiceOptions,
    /// The endpoint to try first.
    pub(super) wanted: Option<usize>,
    /// The one that has just failed this request: the last to try again.
    pub(super) failed: Option<usize>,
    pub(super) reuse: Reuse,
}

/// Whether a connection that carried a request before will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    Allowed,
    Fresh,
}

/// A connection to an endpoint of a run.
pub(super) struct Connected<C> {
    pub(super) connection: C,
    pub(super) key: Key,
    /// The endpoint's.
    pub(super) place: usize,
    /// Where the endpoint has company.
    pub(super) busy: Option<Busy>,
}

/// How one version of HTTP keeps and makes its connections.
pub(super) trait Speaks: Sized {
    /// Returns one that can carry another request.
    fn kept(worker: &Worker, key: &Key) -> Option<Self>;

    /// Makes one of a new socket.
    async fn begin(worker: &Worker, key: &Key, socket: Socket) -> io::Result<Self>;
}

impl Speaks for Box<Connection> {
    fn kept(worker: &Worker, key: &Key) -> Option<Self> {
        worker.pool.take(key)
    }

    async fn begin(_worker: &Worker, _key: &Key, socket: Socket) -> io::Result<Self> {
        Ok(Self::new(Connection::new(socket)))
    }
}

impl Speaks for Link {
    fn kept(worker: &Worker, key: &Key) -> Option<Self> {
        worker.links.take(key)
    }

    async fn begin(worker: &Worker, key: &Key, socket: Socket) -> io::Result<Self> {
        worker.links.open(key, socket).await
    }
}

/// Returns a connection to an endpoint of the run: the first that takes one, in the order of
/// [`Balance::order`](crate::upstream::balance::Balance::order).
///
/// # Errors
/// Where none takes one: why the last did not.
pub(super) async fn connect<C: Speaks>(worker: &Worker, way: &Way<'_>) -> Result<Connected<C>, Error> {
    let target = way.target;
    if let [endpoint] = &target.endpoints[..] {
        let (connection, key) = match kept(worker, way, endpoint) {
            Some(kept) => kept,
            // Boxed, so that a request for which there is a connection need not make room for making one.
            None => Box::pin(connect_endpoint(worker, way, endpoint)).await?,
        };
        return Ok(Connected { connection, key, place: 0, busy: None });
    }
    Box::pin(connect_any(worker, way)).await
}

/// Returns a connection that carried a request before, to the first address of an endpoint.
fn kept<C: Speaks>(worker: &Worker, way: &Way<'_>, endpoint: &Endpoint) -> Option<(C, Key)> {
    let address = endpoint.addresses.first().filter(|_| way.reuse == Reuse::Allowed)?;
    let key = (way.target.run.id(), address.clone());
    C::kept(worker, &key).map(|connection| (connection, key))
}

async fn connect_any<C: Speaks>(worker: &Worker, way: &Way<'_>) -> Result<Connected<C>, Error> {
    let target = way.target;
    let run = target.run.id();
    let healthy: Vec<bool> = target.endpoints.iter().map(|endpoint| endpoint.healthy).collect();
    let mut failure = None;
    let mut order = worker.balance.order(run, &healthy, worker.turn(), way.wanted);
    order.sort_by_key(|place| way.failed == Some(*place));
    for place in order {
        // Counted while it connects too: a slow connect is the first sign of trouble.
        let busy = worker.balance.busy(run, place);
        match connect_endpoint(worker, way, &target.endpoints[place]).await {
            Ok((connection, key)) => return Ok(Connected { connection, key, place, busy: Some(busy) }),
            Err(error) => {
                worker.balance.eject(run, place);
                way.claim.tally(Tally::Ejected);
                failure = Some(error);
            }
        }
    }
    Err(failure.unwrap_or(Error::NoVersion))
}

async fn connect_endpoint<C: Speaks>(worker: &Worker, way: &Way<'_>, endpoint: &Endpoint) -> Result<(C, Key), Error> {
    let run = way.target.run.id();
    let mut failure = None;
    let open = async |key: &Key| {
        let socket = Socket::connect(&key.1, worker.exchange_limits(way.options).connect).await?;
        C::begin(worker, key, socket).await
    };
    for address in &endpoint.addresses {
        let key = (run, address.clone());
        if way.reuse == Reuse::Allowed
            && let Some(connection) = C::kept(worker, &key)
        {
            return Ok((connection, key));
        }
        match open(&key).await {
            Ok(connection) => return Ok((connection, key)),
            Err(error) => failure = Some(error),
        }
    }
    // The container may have been started again with another address: ask once, and try what is new.
    let (reply, answer) = oneshot::channel();
    let asked = worker.shared.resolver.send(Resolve { run, endpoint: endpoint.address.clone(), reply });
    if asked.is_ok() && endpoint.is_name() {
        for address in answer.await.unwrap_or_default() {
            if endpoint.addresses.contains(&address) {
                continue;
            }
            let key = (run, address);
            match open(&key).await {
                Ok(connection) => return Ok((connection, key)),
                Err(error) => failure = Some(error),
            }
        }
    }
    let source = failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    Err(Error::Connect { address: endpoint.address.to_string(), source })
}
