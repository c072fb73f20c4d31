//! The wait for a new slot's health: the proxy's probes, the engine's word and the image's own check, side by side.

use std::time::Duration;

use config::admin::Event;
use config::name::{ServiceName, Slot};
use tokio::time::Instant;

use super::lease::keep;
use crate::admin::{self, Client, Events};
use crate::engine::{Engine, EngineError, Exit, Happening, Instance, LogRange};
use crate::error::{Error, Kind};
use crate::ui::Ui;

/// After this long with nothing but refused connections it is worth saying that nothing listens.
const NOTHING_LISTENS: Duration = Duration::from_secs(5);
/// The proxy ends the wait at the deadline with its reason; ours is later, for what it does not know of.
const SLACK: Duration = Duration::from_millis(500);
/// Lines of the log that a failure shows.
const LOG_LINES: usize = 20;

/// What is waited for.
pub struct Wait<'a> {
    /// The printer.
    pub ui: &'a Ui,
    /// The service.
    pub service: &'a ServiceName,
    /// The slot.
    pub slot: Slot,
    /// The new instance and its engine; `None` for addresses that we don't manage.
    pub instance: Option<(&'a Engine, &'a Instance)>,
    /// The image's own health check, where it must pass.
    pub health_command: Option<&'a [String]>,
    /// How often it is run.
    pub interval: Duration,
    /// The whole wait.
    pub deadline: Duration,
}

/// How the wait ended well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Healthy {
    /// From staging until now.
    pub seconds: f64,
    /// The service's generation since the staging.
    pub generation: u64,
}

/// What is known of the probes so far.
#[derive(Default)]
struct Seen {
    generation: Option<u64>,
    seconds: Option<f64>,
    last_probe: Option<String>,
    refused_only: bool,
}

impl Wait<'_> {
    /// Waits until the slot is healthy, or it is certain that it won't be.
    ///
    /// # Errors
    /// [`Kind::Unhealthy`] with exit code, last probe and last log lines.
    ///
    /// # Cancel safety
    /// Dropping it ends the wait; the slot stays staged.
    pub async fn until_healthy(&self, client: &mut Client, events: Events) -> Result<Healthy, Error> {
        // While it streams the proxy keeps the lease; then it is for us to keep.
        let mut events = Some(events);
        let begun = Instant::now();
        let mut seen = Seen::default();
        let mut image_passed = self.health_command.is_none();
        let mut told = false;
        let mut image_words = String::new();
        let happening = self.watch();
        let check = self.image_check(&mut image_words);
        tokio::pin!(happening, check);
        loop {
            if seen.seconds.is_some()
                && let Some(events) = events.take()
            {
                events.finish().await;
            }
            if let (Some(seconds), Some(generation), true) = (seen.seconds, seen.generation, image_passed) {
                return Ok(Healthy { seconds: seconds.max(begun.elapsed().as_secs_f64()), generation });
            }
            tokio::select! {
                biased;
                what = &mut happening => return Err(self.ended(what?, begun, &seen).await),
                event = next(&mut events), if events.is_some() => match event? {
                    Some(event) => self.take(event, &mut seen).await?,
                    None => return Err(Error::new(Kind::NoProxy, "the proxy ended the staging without a verdict")),
                },
                () = &mut check, if !image_passed => image_passed = true,
                never = keep(client), if events.is_none() => match never {},
                () = tokio::time::sleep_until(begun + NOTHING_LISTENS), if seen.refused_only && !told => {
                    told = true;
                    self.ui.warn(&nothing_listens());
                }
                () = tokio::time::sleep_until(begun + self.deadline + SLACK) => {
                    let what = if seen.seconds.is_some() { "the image's own health check did not pass" } else { "it did not become healthy" };
                    let waited = config::duration::format(self.deadline);
                    return Err(self.failure(format!("{} on {}: {what} within {waited}", self.service, self.slot), &seen).await);
                }
            }
        }
    }

    async fn take(&self, event: Event, seen: &mut Seen) -> Result<(), Error> {
        self.ui.event(&event);
        match event {
            Event::Staged { generation, .. } => seen.generation = Some(generation),
            Event::Probe { address, passed, outcome, .. } => {
                seen.refused_only =
                    !passed && outcome.contains("refused") && (seen.last_probe.is_none() || seen.refused_only);
                self.ui
                    .progress(&format!("waiting for {} on {}: {address} answers {outcome}", self.service, self.slot));
                seen.last_probe = Some(format!("{address}: {outcome}"));
            }
            Event::Healthy { seconds, .. } => seen.seconds = Some(seconds),
            Event::Error(refusal) => {
                let refusal = Error::from(refusal);
                if refusal.kind != Kind::Unhealthy {
                    return Err(refusal);
                }
                return Err(self.failure(refusal.message, seen).await);
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends when the engine knows that it is no use to wait.
    async fn watch(&self) -> Result<Happening, EngineError> {
        match self.instance {
            Some((engine, instance)) => loop {
                match engine.watch(instance).await? {
                    // Its own check is to be ignored, but its end is not; the engine tells the state again at once.
                    Happening::Unhealthy if self.health_command.is_none() => tokio::time::sleep(self.interval).await,
                    happening => return Ok(happening),
                }
            },
            None => std::future::pending().await,
        }
    }

    /// Ends when the image's own health check has passed once.
    async fn image_check(&self, words: &mut String) {
        let (Some((engine, instance)), Some(command)) = (self.instance, self.health_command) else {
            return std::future::pending().await;
        };
        let mut turn = tokio::time::interval(self.interval.max(Duration::from_millis(1)));
        loop {
            turn.tick().await;
            // An instance that ended can't run it; the watch tells that better.
            let outcome = match engine.run_health_command(instance, command).await {
                Ok(Ok(())) => return,
                Ok(Err(outcome)) => outcome,
                Err(error) => error.to_string(),
            };
            if outcome != *words {
                self.ui.detail(&format!("the image's own health check: {outcome}"));
                *words = outcome;
            }
        }
    }

    async fn ended(&self, happening: Happening, begun: Instant, seen: &Seen) -> Error {
        let Self { service, slot, .. } = self;
        let message = match happening {
            Happening::Exited(Exit { code, oom }) => {
                let why = if oom { ", killed for want of memory (OOM)" } else { "" };
                let after = begun.elapsed().as_secs_f64();
                format!("{service} on {slot} exited with code {code}{why}, {after:.1} s after it was staged")
            }
            Happening::Unhealthy => format!("{service} on {slot}: the engine's health check gave up on it"),
        };
        self.failure(message, seen).await
    }

    async fn failure(&self, message: String, seen: &Seen) -> Error {
        let mut error = Error::new(Kind::Unhealthy, message);
        if let Some(probe) = &seen.last_probe {
            error = error.detail(format!("last probe: {probe}"));
        }
        if let Some((engine, instance)) = self.instance {
            error.details.append(&mut last_lines(engine, instance).await);
        }
        if seen.refused_only { error.hint(nothing_listens()) } else { error }
    }
}

/// Returns the last lines of an instance's log, for a failure.
pub(super) async fn last_lines(engine: &Engine, instance: &Instance) -> Vec<String> {
    let mut lines = Vec::new();
    let range = LogRange { tail: Some(LOG_LINES), follow: false };
    let read = engine.logs(instance, range, &mut |line| lines.push(format!("| {line}"))).await;
    lines.insert(0, if lines.is_empty() { "it wrote no log" } else { "its last log lines:" }.to_owned());
    if let Err(unread) = read {
        lines.push(format!("its log can't be read: {unread}"));
    }
    lines
}

async fn next(events: &mut Option<Events>) -> Result<Option<Event>, admin::Error> {
    match events {
        Some(events) => events.next().await,
        None => Ok(None),
    }
}

fn nothing_listens() -> String {
    "nothing listens on that port yet: does the application use another port (--port), or only 127.0.0.1?".to_owned()
}
