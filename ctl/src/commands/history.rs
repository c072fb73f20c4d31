//! `bgctl history`: what was done to a service, by whom, and how it ended.

use ::config::admin::journal::{Entry, Outcome};
use ::config::name::ServiceName;
use clap::Args;

use super::no_such_service;
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::ui::Table;

/// Past switches with their reports, and who did them
#[derive(Debug, Args)]
pub struct History {
    /// The service
    service: ServiceName,
}

impl History {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let name = self.service;
        let history = context.admin().await?.history(&name).await?.ok_or_else(|| no_such_service(&name))?;
        if context.ui.tone().json {
            context.ui.document(&history);
            return Ok(ExitCode::DONE);
        }
        if history.entries.is_empty() {
            context.ui.data(&format!("nothing was done to {name} yet"));
            return Ok(ExitCode::DONE);
        }
        let mut table = Table::new(&["BEGAN", "DEPLOYMENT", "WHAT", "SLOT", "OUTCOME", "WHO", "NOTE"]);
        for entry in &history.entries {
            let work = &entry.work;
            table.row(vec![
                entry.began.clone(),
                work.deployment.clone(),
                work.what.clone(),
                work.slot.to_string(),
                outcome(entry),
                work.who.clone(),
                work.note.clone().or_else(|| work.revision.clone()).unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        table.lines().iter().for_each(|line| context.ui.data(line));
        Ok(ExitCode::DONE)
    }
}

fn outcome(entry: &Entry) -> String {
    let code = entry.report.as_ref().and_then(|report| report["exit_code"].as_u64());
    match (entry.outcome, code) {
        (None, _) => "open".to_owned(),
        (Some(Outcome::Done), Some(0) | None) => Outcome::Done.as_str().to_owned(),
        (Some(outcome), Some(code)) => format!("{} ({code})", outcome.as_str()),
        (Some(outcome), None) => outcome.as_str().to_owned(),
    }
}
