//! The journals: what is being done to each service, so that whoever comes next knows, and what was done before.

use config::admin::event::Verdict;
use config::admin::journal::{Entry, FlipBack, History, Journal, Outcome, Step, StepState};
use config::admin::response::Counts;
use config::admin::{AdminError, ErrorCode, LOG_BYTES};
use config::name::ServiceName;

use super::{Control, not_saved, now_text, unknown};
use std::time::Instant;

/// Entries that are kept of each service.
const KEPT: usize = 50;

impl Control {
    /// Writes a line into a service's journal.
    ///
    /// # Errors
    /// Where someone else holds the lease, no such work is open, or the disk refuses; nothing is noted then.
    pub fn journal(&mut self, name: &ServiceName, line: Journal, lease: Option<&str>) -> Result<(), AdminError> {
        if let Some(service) = self.services.get_mut(name) {
            service.lease.check(lease, Instant::now())?;
        }
        let mut entries = self.journals.get(name).cloned().unwrap_or_default();
        match line {
            Journal::Begin { work } => {
                entries.iter_mut().filter(|entry| entry.ended.is_none()).for_each(|entry| {
                    entry.ended = Some(now_text());
                    entry.outcome = Some(Outcome::Abandoned);
                });
                let began = now_text();
                let (steps, flipped_back) = (Vec::new(), None);
                entries.insert(0, Entry { work, began, steps, flipped_back, ended: None, outcome: None, report: None });
                entries.truncate(KEPT);
            }
            Journal::Step { id, step, state } => {
                let entry = open(&mut entries, &id)?;
                match entry.steps.iter_mut().rev().find(|known| known.step == step && known.state == StepState::Begun) {
                    Some(known) => (known.state, known.at) = (state, now_text()),
                    None => entry.steps.push(Step { step, state, at: now_text() }),
                }
            }
            Journal::End { id, outcome, report, log } => {
                let entry = open(&mut entries, &id)?;
                entry.ended = Some(now_text());
                entry.outcome = Some(outcome);
                entry.report = Some(*report);
                if let Some(log) = log {
                    self.store.write_log(name, end_of(&log, LOG_BYTES)).map_err(|error| not_saved(&error))?;
                }
            }
        }
        self.store.write_journal(name, &entries).map_err(|error| not_saved(&error))?;
        self.journals.insert(name.clone(), entries);
        Ok(())
    }

    /// Notes that the proxy flipped back by itself.
    pub(super) fn note_flip_back(&mut self, name: &ServiceName, verdict: Verdict, reason: &str, counts: Counts) {
        let Some(entries) = self.journals.get_mut(name) else { return };
        let Some(entry) = entries.iter_mut().find(|entry| entry.ended.is_none()) else { return };
        let words = match verdict {
            Verdict::Dead => "dead",
            Verdict::Bad => "bad",
        };
        entry.flipped_back = Some(FlipBack { at: now_text(), reason: format!("{words}: {reason}"), counts });
        if let Err(error) = self.store.write_journal(name, entries) {
            tracing::error!(%error, service = %name, "the flip back could not be noted in the journal");
        }
    }

    /// Returns what was done to a service.
    ///
    /// # Errors
    /// `unknown_service`.
    pub fn history(&self, name: &ServiceName) -> Result<History, AdminError> {
        let entries = self.journals.get(name);
        if entries.is_none() && self.services.get(name).is_none_or(|service| service.generation == 0) {
            return Err(unknown(name));
        }
        Ok(History { service: name.clone(), entries: entries.cloned().unwrap_or_default() })
    }

    /// Returns the log of the last instance of a service that failed.
    ///
    /// # Errors
    /// `unknown_service` where there is none, `internal` where it can't be read.
    pub fn failed_log(&self, name: &ServiceName) -> Result<String, AdminError> {
        let log = self.store.read_log(name);
        let log =
            log.map_err(|error| AdminError::new(ErrorCode::Internal, format!("the log can't be read: {error}")))?;
        log.ok_or_else(|| {
            AdminError::new(ErrorCode::UnknownService, format!("no log of a failed version of {name} is kept"))
        })
    }
}

fn open<'e>(entries: &'e mut [Entry], id: &str) -> Result<&'e mut Entry, AdminError> {
    let found = entries.iter_mut().find(|entry| entry.work.id == id && entry.ended.is_none());
    found.ok_or_else(|| {
        AdminError::new(ErrorCode::Superseded, format!("{id} is not open in the journal: someone else began since"))
    })
}

/// Returns the end of a text, in whole characters.
fn end_of(text: &str, most: usize) -> &str {
    let from = (text.len().saturating_sub(most)..=text.len()).find(|at| text.is_char_boundary(*at));
    from.map_or("", |from| &text[from..])
}
