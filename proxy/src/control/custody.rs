//! Whose the state and the admin calls are: ours, until a successor has them. What a successor could not take up keeps them here.

use std::cell::RefCell;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Instant;

use config::admin::{AdminError, ErrorCode};
use config::name::Slot;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::service::Service;
use super::{Control, Handle};
use crate::handover::wire::Word;
use crate::upstream::run::Claim;

/// How far a hand-over is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Custody {
    /// There is none: everything is ours.
    #[default]
    Ours,
    /// A successor reads the state, so that nothing may change.
    Offered,
    /// The state is the successor's.
    Given,
    /// The successor serves.
    Left,
    /// It has changed where requests go.
    Hurried,
}

/// A step of a hand-over.
#[derive(Debug)]
pub(crate) enum Step {
    /// Begin, where nothing would be lost by it.
    Offer,
    /// Write no more.
    Give,
    /// Accept no more.
    Leave,
    /// Let those go who are idle.
    Hurry,
    /// It came to nothing, and why.
    TakeBack(String),
    /// It had not begun, and why it did not.
    Note(String),
}

impl Control {
    /// Tells whether a successor can take over now.
    ///
    /// # Errors
    /// What is under way that a successor could not take up.
    pub(crate) fn admit_successor(&self) -> Result<(), AdminError> {
        let now = Instant::now();
        let under_way = self.services.values().find_map(|service| service.under_way(now));
        let leaving = self.shared.as_ref().is_some_and(|shared| !shared.leaving.borrow().is_empty());
        let leaving =
            leaving.then(|| ("endpoints are being taken out".to_owned(), "wait for their last requests".to_owned()));
        match under_way.or(leaving) {
            None => Ok(()),
            Some((what, hint)) => Err(AdminError::new(
                ErrorCode::NotNow,
                format!("no successor can take over now: {what}; this process serves on"),
            )
            .hint(format!("{hint}, then try again"))),
        }
    }

    /// Stops or begins to write.
    pub(crate) fn give_state(&mut self, is_given: bool) {
        self.store.is_given = is_given;
    }

    /// Tells whether another process has the state: it judges, and this one only answers what it still has.
    pub(super) fn is_given(&self) -> bool {
        self.store.is_given
    }

    /// Returns claims that stand for the requests which the process before us may still have: on what is live, and on an idle slot
    /// that visitors see. Nobody is served yet.
    fn claims_of_predecessor(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        for service in self.services.values() {
            let is_shown = service.canary.is_some() || service.preview.is_some();
            for slot in Slot::BOTH {
                let Some(state) = service.slot(slot) else { continue };
                if service.live == Some(slot) {
                    claims.extend(state.run.claim(0));
                } else if is_shown {
                    // It lets nobody in before it is found healthy, but for what is in already.
                    state.run.revive();
                    claims.extend(state.run.claim(0));
                    state.run.drain();
                }
            }
        }
        claims
    }
}

impl Service {
    /// Returns what of the service lives in this process alone, and what to do about it.
    fn under_way(&self, now: Instant) -> Option<(String, String)> {
        let name = &self.name;
        if let Some(lease) = self.lease.current(now) {
            let who = &lease.holder.who;
            return Some((format!("{who} is at work on {name}"), "wait for its end".to_owned()));
        }
        if let Some(bake) = self.bake.as_ref() {
            let left = bake.status(now).left.as_secs();
            return Some((
                format!("the new version of {name} is watched for another {left} s"),
                "wait for the bake".to_owned(),
            ));
        }
        if self.pause.is_some() {
            let hint = format!("`bgctl resume {name}` lets them go");
            return Some((format!("{name} is paused, and its requests wait here"), hint));
        }
        for slot in Slot::BOTH {
            let Some(state) = self.slot(slot).filter(|_| self.live != Some(slot)) else { continue };
            if state.drain.as_ref().is_some_and(|drain| drain.ended.is_none()) {
                let count = state.run.in_flight();
                return Some((format!("{slot} of {name} drains ({count} requests)"), "wait for the drain".to_owned()));
            }
            let is_shown = self.canary.is_some() || self.preview.is_some();
            if !state.was_live && !is_shown {
                return Some((
                    format!("{slot} of {name} waits for its flip"),
                    "flip to it, or clear the slot".to_owned(),
                ));
            }
        }
        None
    }
}

/// The process before us, as long as it finishes its last requests.
#[derive(Default)]
pub(crate) struct Predecessor {
    /// Count as in flight on what was live when we took over: a drain waits for them.
    claims: RefCell<Vec<Claim>>,
    hurry: Notify,
}

impl Predecessor {
    /// Tells whether it may still have requests.
    pub(crate) fn is_there(&self) -> bool {
        !self.claims.borrow().is_empty()
    }

    /// Asks it to let those go who are idle there, as they would be served by what is left now.
    pub(crate) fn hurry(&self) {
        if self.is_there() {
            self.hurry.notify_one();
        }
    }

    /// Notes that there is none any more.
    pub(crate) fn has_left(&self) {
        self.claims.take();
    }

    /// Follows it to its end.
    async fn follow(&self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let (mut from, mut to) = tokio::net::UnixStream::from_std(stream)?.into_split();
        let (mut nothing, hurry) = ([0; 64], Word::Hurry.to_bytes()?);
        loop {
            tokio::select! {
                read = from.read(&mut nothing) => match read {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                    Err(error) => return Err(error),
                },
                () = self.hurry.notified() => to.write_all(&hurry).await?,
            }
        }
    }
}

/// Follows the process before us to its end.
pub(crate) fn follow(handle: &Rc<Handle>, predecessor: UnixStream) {
    let handle = Rc::clone(handle);
    tokio::task::spawn_local(async move {
        if let Err(error) = handle.predecessor.follow(predecessor).await {
            tracing::warn!(%error, "the process before this one can't be followed");
        }
        handle.predecessor.has_left();
        tracing::info!("the process before this one has ended");
    });
}

impl Handle {
    /// Keeps what stands for the requests of the process before us, until that has ended.
    pub(crate) fn expect_predecessor(&self) {
        let claims = self.with(|control| control.claims_of_predecessor());
        self.predecessor.claims.replace(claims);
    }
}
