//! Which requests the old version answers in the bake, where the new one fails them.

use std::rc::Rc;

use bytes::Bytes;
use config::defaults::REPLAYED_BYTES;
use http::Method;
use http_body::Body as _;

use crate::error::Error;
use crate::forward::{self, Reached, Request, Sent};
use crate::routing::table::{Service, Target};
use crate::upstream::request_body::RequestBody;
use crate::upstream::run::Claim;
use crate::upstream::spool::Spool;
use crate::worker::Worker;

/// Keeps the body of a request that may be repeated, where it says that it is short: taken whole, and sent from memory.
///
/// # Errors
/// Where the client breaks it off, or it is longer than the service takes.
///
/// # Cancel safety
/// Dropping it loses what was taken.
pub(crate) async fn keep(body: &mut Option<RequestBody>, method: &Method) -> Result<Option<Bytes>, Error> {
    let is_short = |body: &RequestBody| body.size_hint().upper().is_some_and(|most| most <= REPLAYED_BYTES as u64);
    let Some(unread) = body.take_if(|body| method.is_idempotent() && is_short(body)) else { return Ok(None) };
    let whole = match unread.is_whole() {
        true => unread,
        // It stays below what would go to a file.
        false => unread.spool(Spool::new(REPLAYED_BYTES, std::env::temp_dir())).await?,
    };
    let kept = whole.in_memory();
    *body = Some(whole);
    Ok(kept)
}

/// What is left of a request that the old version failed too.
pub(crate) struct Again {
    /// How far it got there.
    pub(crate) reached: Reached,
    /// Its body, as far as it was not taken.
    pub(crate) body: Option<RequestBody>,
}

/// Sends a request to the old version.
///
/// # Errors
/// What is left of it, where that does not answer.
///
/// # Cancel safety
/// As of [`forward::send`].
pub(crate) async fn send(
    worker: &Rc<Worker>,
    back: &Target,
    service: &Service,
    claim: Claim,
    mut request: Request,
) -> Result<(Claim, Sent), Again> {
    match forward::send(worker, back, &service.options, &claim, &mut request).await {
        Ok(sent) => Ok((claim, sent)),
        Err(failure) => Err(Again { reached: failure.reached, body: request.content.body }),
    }
}

/// Tells whether a request that got so far may go to the old version.
pub(crate) fn may_go(reached: Reached, method: &Method, is_empty: bool, is_kept: bool) -> bool {
    match reached {
        Reached::Nothing => true,
        Reached::Silence => method.is_idempotent() && (is_empty || is_kept),
        Reached::Answer => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_application_may_have_begun_goes_to_another_only_where_it_may_be_repeated() {
        let (get, put, post) = (&Method::GET, &Method::PUT, &Method::POST);
        assert!(may_go(Reached::Nothing, post, false, false), "nothing of it was sent");
        assert!(may_go(Reached::Silence, get, true, false) && may_go(Reached::Silence, put, false, true));
        for (method, is_empty, is_kept) in [(post, true, false), (post, false, false), (put, false, false)] {
            assert!(!may_go(Reached::Silence, method, is_empty, is_kept), "{method}");
        }
        assert!(!may_go(Reached::Answer, get, true, false), "an answer had begun");
    }
}
