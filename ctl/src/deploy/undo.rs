//! How a deployment that ends before its flip is taken back, the last step first.

use config::admin::request::Stage;
use config::admin::{Event, LOG_BYTES};
use config::name::{ServiceName, Slot};

use super::execute::{Rollout, Undo};
use super::lease::leased;
use crate::admin::{Client, Match};
use crate::engine::{Instance, LogRange};
use crate::error::Error;

/// Lines of a failed instance's log that are looked at for what is kept of it.
const LOG_LINES: usize = 20_000;

impl Rollout<'_> {
    /// Returns the end of the logs of what is about to be removed: nobody could read them afterwards.
    pub(super) async fn log_of(&self, undo: &[Undo]) -> Option<String> {
        let made = |step: &Undo| match step {
            Undo::Remove(instance) => Some(instance.clone()),
            Undo::Clear(_) | Undo::Stop(_) | Undo::Name(..) | Undo::Resume | Undo::Revive(_) => None,
        };
        let (engine, made): (_, Vec<Instance>) = (self.engine?, undo.iter().filter_map(made).collect());
        let mut logs = String::new();
        for instance in &made {
            let mut log = String::new();
            let range = LogRange { tail: Some(LOG_LINES), follow: false };
            let mut keep = |line: &str| {
                log.push_str(line);
                log.push('\n');
            };
            // What can't be read can't be kept; the failure itself has been told.
            if engine.logs(instance, range, &mut keep).await.is_err() {
                continue;
            }
            // Each of several has its share, and says whose it is.
            let title = if made.len() > 1 { format!("== {}\n", instance.name) } else { String::new() };
            let share = (LOG_BYTES / made.len()).saturating_sub(title.len());
            let from = (log.len().saturating_sub(share)..=log.len()).find(|at| log.is_char_boundary(*at))?;
            logs.push_str(&title);
            logs.push_str(&log[from..]);
        }
        Some(logs).filter(|logs| !logs.is_empty())
    }

    /// Undoes what was done, last first. A second signal leaves at once.
    pub(super) async fn take_back(&mut self, undo: Vec<Undo>, mut error: Error) -> Error {
        let interrupt = self.context.interrupt.clone();
        let left = tokio::select! {
            biased;
            _ = interrupt.second() => vec![format!("left at once; `{}` removes what is left", self.context.line("recover", self.service))],
            left = self.undo_all(undo) => left,
        };
        error.hints.splice(0..0, left);
        error.hints.push(match self.plan.live {
            Some(live) if self.settings.no_port => format!("{live} still runs"),
            Some(live) => format!("traffic still on {live}"),
            None => format!("{} was not live before, and is not now", self.service),
        });
        error
    }

    pub(super) async fn undo_all(&mut self, undo: Vec<Undo>) -> Vec<String> {
        let mut left = Vec::new();
        for step in undo.into_iter().rev() {
            let (what, done) = match &step {
                Undo::Clear(slot) => (format!("clear {slot}"), self.clear(*slot).await),
                Undo::Remove(instance) => (format!("remove {}", instance.name), self.remove(instance).await),
                Undo::Stop(instance) => (format!("stop {}", instance.name), self.stop(instance).await),
                Undo::Resume => {
                    let resumed = self.client.resume(self.service).await;
                    ("let held requests go".to_owned(), resumed.map(drop).map_err(Error::from))
                }
                Undo::Revive(stopped) => ("bring the old version back".to_owned(), self.revive(stopped).await),
                Undo::Name(instance, kept) => (format!("rename {}", instance.name), self.rename(instance, *kept).await),
            };
            match done {
                Ok(()) => self.context.ui.detail(&format!("undone: {what}")),
                Err(error) => left.push(format!("could not {what}: {error}")),
            }
        }
        left
    }

    pub(super) async fn clear(&mut self, slot: Slot) -> Result<(), Error> {
        clear(self.client, self.service, slot).await
    }

    pub(super) async fn remove(&mut self, instance: &Instance) -> Result<(), Error> {
        let engine = self.engine()?;
        Ok(leased(self.client, engine.remove(instance)).await?)
    }

    pub(super) async fn stop(&mut self, instance: &Instance) -> Result<(), Error> {
        let engine = self.engine()?;
        Ok(leased(self.client, engine.stop(instance, self.settings.stop_grace)).await?)
    }

    async fn rename(&self, instance: &Instance, kept: bool) -> Result<(), Error> {
        Ok(self.engine()?.set_kept(instance, kept).await.map(drop)?)
    }
}

/// Takes a slot out of the proxy.
pub(super) async fn clear(client: &mut Client, service: &ServiceName, slot: Slot) -> Result<(), Error> {
    let stage = Stage { slot: Some(slot), ..Stage::default() };
    let mut events = client.stage(service, Match::Any, &stage).await?;
    while let Some(event) = events.next().await? {
        if let Event::Error(refusal) = event {
            return Err(refusal.into());
        }
    }
    Ok(())
}
