//! What a deployment writes into the service's journal: each step before it is done and after, so that whoever comes next
//! knows how far it got.

use config::admin::journal::{Journal, Outcome, StepState};
use serde::Serialize;
use serde_json::Value;

use super::execute::{Candidate, Rollout};
use crate::error::Error;

/// A step as it is told to programs.
#[derive(Serialize)]
#[serde(tag = "event", rename = "step")]
struct Told<'a> {
    service: &'a str,
    step: &'a str,
    state: StepState,
}

impl Rollout<'_> {
    /// Opens the journal.
    ///
    /// # Errors
    /// Where it can't be written: then nothing may be begun.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        self.write(&Journal::Begin { work: self.work.clone() }).await
    }

    /// Writes a line. A pure flip needs no journal to be finished or undone, and a full disk must keep nobody from going back:
    /// there what can't be written is told.
    async fn write(&mut self, line: &Journal) -> Result<(), Error> {
        match self.client.journal(self.service, line).await {
            Err(error) if matches!(self.candidate, Candidate::Warm(..)) => {
                self.context.ui.warn(&format!("this run is not noted in the journal: {error}"));
                Ok(())
            }
            written => Ok(written?),
        }
    }

    /// Notes that a step is about to be done.
    ///
    /// # Errors
    /// Where it can't be written: then it may not be done.
    pub(super) async fn begun(&mut self, step: &str) -> Result<(), Error> {
        self.note(step, StepState::Begun).await
    }

    /// Notes that a step was done.
    ///
    /// # Errors
    /// Where it can't be written.
    pub(super) async fn done(&mut self, step: &str) -> Result<(), Error> {
        self.note(step, StepState::Done).await
    }

    async fn note(&mut self, step: &str, state: StepState) -> Result<(), Error> {
        let line = Journal::Step { id: self.work.id.clone(), step: step.to_owned(), state };
        self.write(&line).await?;
        self.context.ui.event(&Told { service: self.service.as_str(), step, state });
        Ok(())
    }

    /// Closes the journal. What it can't note is told: the next run then finds the work open, and nothing left to do.
    pub(super) async fn end(&mut self, outcome: Outcome, report: Value, log: Option<String>) {
        let has_log = log.is_some();
        let end = |log| Journal::End { id: self.work.id.clone(), outcome, report: Box::new(report.clone()), log };
        let (line, bare) = (end(log), end(None));
        let mut ended = self.client.journal(self.service, &line).await;
        if has_log && ended.is_err() {
            // What was written may be too much for a call; that it has ended matters more.
            ended = self.client.journal(self.service, &bare).await;
        }
        if let Err(error) = ended {
            self.context.ui.warn(&format!("the end of this run is not noted in the journal: {error}"));
        }
    }
}
