//! Versions that can't run side by side: visitors wait while the old one is stopped and the new one starts; where that fails
//! the old one is brought back.

use std::time::Duration;

use config::admin::Event;
use config::admin::request::{Pause, Stage};
use config::duration::format;
use config::name::ServiceName;
use futures_util::future::try_join_all;

use super::execute::{PAUSE_SLACK, Rollout, Undo};
use super::hook;
use super::lease::leased;
use super::settings::Settings;
use super::undo::clear;
use crate::admin::{Client, Match};
use crate::engine::Instance;
use crate::error::Error;

impl Rollout<'_> {
    /// Holds visitors, lets the old version answer what it has, and stops it; returns how many requests it had not answered.
    ///
    /// # Errors
    /// Where the proxy can't hold visitors, or the engine can't stop an instance.
    ///
    /// # Cancel safety
    /// Not to be dropped: it takes signals itself.
    pub(super) async fn stop_first(&mut self, running: Vec<Instance>, undo: &mut Vec<Undo>) -> Result<u64, Error> {
        let Settings { drain, stop_grace, deadline, before_timeout, .. } = self.settings;
        let before = self.settings.before.as_ref().map_or(Duration::ZERO, |_| before_timeout);
        let before_flip = self.hooks.before_flip.as_ref().map_or(Duration::ZERO, |_| hook::limit(&self.hooks));
        let wait = drain + stop_grace + before + deadline + before_flip + PAUSE_SLACK;
        let pause = Pause { wait, lasts: wait, drain, ..Pause::default() };
        let (ui, engine) = (self.context.ui, self.engine()?);
        let waits = if self.settings.no_port { "" } else { "visitors wait from now on: " };
        ui.say(&format!("{waits}the old version is stopped before the new one starts"));
        undo.push(Undo::Resume);
        let interrupt = self.context.interrupt.clone();
        let paused = interrupt.beside(self.client.pause(self.service, &pause)).await??;
        if paused.in_flight > 0 {
            ui.warn(&format!("{} requests did not end within {}, and are cut", paused.in_flight, format(drain)));
        }
        // Their restart policies stay: a reboot in between brings the old version back.
        undo.push(Undo::Revive(running.clone()));
        let stops = try_join_all(running.iter().map(|instance| engine.stop(instance, stop_grace)));
        leased(self.client, stops).await?;
        running.iter().for_each(|instance| ui.say(&format!("stopped {}", instance.name)));
        Ok(paused.in_flight)
    }

    /// Starts again what was stopped first, and waits until it serves.
    ///
    /// # Errors
    /// Where it can't be started, or does not become healthy.
    pub(super) async fn revive(&mut self, stopped: &[Instance]) -> Result<(), Error> {
        self.start_all(stopped, " again").await?;
        let live: Vec<Instance> =
            stopped.iter().filter(|instance| Some(instance.slot) == self.plan.live).cloned().collect();
        serves_again(self.client, self.service, &live, &self.work.deployment).await
    }
}

/// Waits until a live version that was started again serves.
///
/// The proxy may not have noticed that it was away, and takes it for healthy. So it is staged in the idle slot as well, where it
/// is probed from the beginning, and taken out when it has passed.
///
/// # Errors
/// Where it does not become healthy within its own deadline.
pub(super) async fn serves_again(
    client: &mut Client,
    name: &ServiceName,
    live: &[Instance],
    deployment: &str,
) -> Result<(), Error> {
    let Some(first) = live.first() else { return Ok(()) };
    let (slot, Settings { health, kept_headers, deadline, no_port, .. }) = (first.slot.other(), Settings::of(first));
    if no_port {
        return Ok(());
    }
    let stage = Stage {
        slot: Some(slot),
        endpoints: live.iter().map(|instance| instance.endpoint.clone()).collect(),
        health,
        kept_headers,
        deadline,
        // That of the run under way: should it be killed now, the next one clears the slot.
        deployment: Some(deployment.to_owned()),
        ..Stage::default()
    };
    let mut events = client.stage(name, Match::Any, &stage).await?;
    let mut verdict = Ok(());
    while let Some(event) = events.next().await? {
        if let Event::Error(refusal) = event {
            verdict = Err(Error::from(refusal));
        }
    }
    clear(client, name, slot).await?;
    verdict
}
