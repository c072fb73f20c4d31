//! What others hold of a client connection while its request is served, and what they note there.

use std::rc::Rc;

use super::{BodyAsked, Client, Phase};
use crate::clock;

/// Notes that a request is being served; dropped with the end of its answer.
pub(crate) struct Serving(pub(super) Rc<Client>);

impl Serving {
    /// Notes that the answer's body was asked for more.
    pub(crate) fn asks_for_more(&self) {
        self.0.answer_asked.set(true);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.awaits_body.set(false);
        self.0.requests.set(self.0.requests.get() - 1);
        if self.0.phase.get() == Phase::Serving && self.0.requests.get() == 0 {
            self.0.phase.set(Phase::Idle(clock::now()));
        }
    }
}

/// Lets a request's body note whether it waits for the client.
pub(crate) struct BodyWatch(Rc<Client>);

impl BodyWatch {
    pub(crate) fn new(client: &Rc<Client>) -> Self {
        Self(Rc::clone(client))
    }

    pub(crate) fn waits_for_client(&self, waits: bool) {
        self.0.awaits_body.set(waits);
        self.0.body_asked.set(Some(if waits { BodyAsked::Waits } else { BodyAsked::Came }));
    }

    pub(crate) fn is_left_unread(&self) {
        self.0.unread_body.set(true);
    }
}
