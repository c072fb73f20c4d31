//! What the proxy did by itself, as the webhook tells it: the event, what happened in words, and what still holds.

use std::time::SystemTime;

use bytes::Bytes;
use config::admin::Event;
use config::admin::event::Verdict;
use config::name::{ServiceName, Slot};
use serde::Serialize;

use super::Control;
use super::slot::unlike_any;
use crate::webhook::Notice;

/// The body: the event as `/v1/events` has it, and beside it what someone wants to read in the night.
#[derive(Serialize)]
struct Told<'e> {
    id: &'e str,
    time: String,
    what: String,
    holds: String,
    /// What looks further.
    hint: String,
    #[serde(flatten)]
    event: &'e Event,
}

impl Control {
    /// Returns the notice of an event, where in it the proxy acted alone: nobody had asked for that flip or that end.
    pub(super) fn notice(&self, event: &Event) -> Option<Notice> {
        let (service, what, holds) = match event {
            Event::FlippedBack { service, live, left, verdict, reason, .. } => {
                let bad = match verdict {
                    Verdict::Dead => "nothing answers there any more",
                    Verdict::Bad => "it does far worse than the version before it",
                };
                let left = self.in_words(service, *left);
                let what = format!("{service} left {left} within its bake: {bad} ({reason})");
                (service, what, format!("{} is live again and takes every request", self.in_words(service, *live)))
            }
            Event::Canary { service, slot, reason: Some(reason), .. } => {
                let what = format!("the canary of {service} on {} was ended: {reason}", self.in_words(service, *slot));
                let live = self.in_words(service, slot.other());
                (service, what, format!("{live} is live as before and takes every request"))
            }
            _ => return None,
        };
        let (id, at) = (unlike_any(), SystemTime::now());
        let told = Told {
            id: &id,
            time: humantime::format_rfc3339_millis(at).to_string(),
            what,
            holds,
            hint: format!("`bgctl status {service}` and `bgctl logs {service} --failed` tell more"),
            event,
        };
        match serde_json::to_vec(&told) {
            Ok(body) => Some(Notice { id, at, body: Bytes::from(body) }),
            Err(error) => {
                tracing::error!(%error, "a notice can't be written");
                None
            }
        }
    }

    /// A slot and what is in it: `GREEN (shop:42)`.
    fn in_words(&self, service: &ServiceName, slot: Slot) -> String {
        let image = self.services.get(service).and_then(|service| service.slot(slot)?.image.as_deref());
        image.map_or_else(|| slot.to_string(), |image| format!("{slot} ({image})"))
    }
}
