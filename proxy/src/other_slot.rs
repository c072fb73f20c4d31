//! Old assets: what the version that was asked lacks is asked of the other slot's, for a while after a flip.
//!
//! A visitor's page is of the version that it was loaded from, and goes on asking for that one's scripts and styles, whose names
//! the next version no longer has; in a canary also the other way round.

use std::rc::Rc;
use std::time::Duration;

use config::name::Slot;
use http::{Method, StatusCode};

use crate::clock;
use crate::forward::{self, Request, Sent};
use crate::routing::table::{Service, Target};
use crate::upstream::run::{Claim, Tally};
use crate::worker::Worker;

/// How long its answer may take: there is one already, which says that nothing is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells whether an answer leaves it open that the other version has what is asked for.
pub(crate) fn may_have(service: &Service, method: &Method, path: &str, has_body: bool, status: StatusCode) -> bool {
    status == StatusCode::NOT_FOUND
        && !has_body
        && (method == Method::GET || method == Method::HEAD)
        && service.options.old_assets.as_ref().is_some_and(|assets| assets.paths.iter().any(|glob| glob.takes(path)))
}

/// Returns the other version than the one that was asked, and a place on it.
pub(crate) fn find<'s>(service: &'s Service, asked: Slot, worker: &Worker) -> Option<(&'s Target, Claim)> {
    let live = service.live.as_ref()?;
    if let Some(canary) = &service.canary {
        let target = if asked == canary.target.run.slot() { live } else { &canary.target };
        return Some((target, target.run.claim(worker.index)?));
    }
    let other = service.other.as_ref().filter(|other| asked == live.run.slot() && clock::now() < other.until)?;
    Some((&other.target, other.target.run.claim_asset(worker.index)?))
}

/// Asks it; `None` where it has no such thing either, or does not say.
///
/// # Cancel safety
/// As of [`forward::send`].
pub(crate) async fn ask(
    worker: &Rc<Worker>,
    service: &Service,
    (target, claim): (&Target, Claim),
    mut request: Request,
) -> Option<(Claim, Sent)> {
    let sending = forward::send(worker, target, &service.options, &claim, &mut request);
    let sent = tokio::time::timeout(PATIENCE, sending).await.ok()?.ok()?;
    // What a client has already, or a part that is none, is there too.
    let is_there = sent.status.is_success()
        || matches!(
            sent.status,
            StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE
        );
    if !is_there {
        return None;
    }
    claim.tally(Tally::Asset);
    Some((claim, sent))
}
