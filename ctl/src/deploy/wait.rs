//! The wait for a new slot's health: the proxy's probes, the engine's word and the image's own check, side by side.

use std::collections::BTreeMap;
use std::time::Duration;

use config::admin::Event;
use config::name::{ServiceName, Slot};
use futures_util::future::{join_all, select_all};
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
    /// Whether programs are told each event.
    pub told: bool,
    /// The service.
    pub service: &'a ServiceName,
    /// The slot.
    pub slot: Slot,
    /// The engine of the new instances.
    pub engine: Option<&'a Engine>,
    /// The new instances; none for addresses that we don't manage.
    pub instances: &'a [Instance],
    /// The image's own health check, where it must pass.
    pub health_command: Option<&'a [String]>,
    /// How long it must have run, in any case.
    pub alive: Duration,
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
    /// The last outcome of each endpoint, and whether it passed.
    probes: BTreeMap<String, (bool, String)>,
    /// The endpoint that was told of last.
    last: Option<String>,
    refused_only: bool,
}

impl Seen {
    /// Returns what is to be told of the probes: those that failed, else the last one.
    fn complaints(&self) -> Vec<String> {
        let words = |address: &String| Some(format!("last probe: {address}: {}", self.probes.get(address)?.1));
        let failed: Vec<String> =
            self.probes.iter().filter(|(_, (passed, _))| !passed).filter_map(|(address, _)| words(address)).collect();
        if failed.is_empty() { self.last.iter().filter_map(words).collect() } else { failed }
    }
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
        let happening = self.watch_all();
        let check = self.image_checks();
        tokio::pin!(happening, check);
        loop {
            if seen.seconds.is_some()
                && let Some(events) = events.take()
            {
                events.finish().await;
            }
            let has_lived = begun.elapsed() >= self.alive;
            if let (Some(seconds), Some(generation), true) = (seen.seconds, seen.generation, image_passed && has_lived)
            {
                return Ok(Healthy { seconds: seconds.max(begun.elapsed().as_secs_f64()), generation });
            }
            tokio::select! {
                biased;
                (instance, what) = &mut happening => return Err(self.ended(instance, what?, begun, &seen).await),
                event = next(&mut events), if events.is_some() => match event? {
                    Some(event) => self.take(event, &mut seen).await?,
                    None => return Err(Error::new(Kind::NoProxy, "the proxy ended the staging without a verdict")),
                },
                () = &mut check, if !image_passed => image_passed = true,
                never = keep(client), if events.is_none() => match never {},
                () = tokio::time::sleep_until(begun + self.alive), if !has_lived => {}
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
        if self.told {
            self.ui.event(&event);
        }
        match event {
            Event::Staged { generation, .. } => seen.generation = Some(generation),
            Event::Probe { address, passed, outcome, .. } => {
                seen.refused_only =
                    !passed && outcome.contains("refused") && (seen.last.is_none() || seen.refused_only);
                self.ui
                    .progress(&format!("waiting for {} on {}: {address} answers {outcome}", self.service, self.slot));
                let address = address.to_string();
                seen.last = Some(address.clone());
                seen.probes.insert(address, (passed, outcome));
            }
            Event::Healthy { seconds, .. } => seen.seconds = Some(seconds),
            Event::Endpoints { seconds, .. } => {
                // No flip follows that would have to name it.
                seen.generation = Some(0);
                seen.seconds = Some(seconds);
            }
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

    /// Ends when the engine knows of an instance that it is no use to wait for it.
    async fn watch_all(&self) -> (&Instance, Result<Happening, EngineError>) {
        match self.engine {
            Some(engine) if !self.instances.is_empty() => {
                let watch = |instance| Box::pin(async move { (instance, self.watch(engine, instance).await) });
                select_all(self.instances.iter().map(watch)).await.0
            }
            _ => std::future::pending().await,
        }
    }

    async fn watch(&self, engine: &Engine, instance: &Instance) -> Result<Happening, EngineError> {
        loop {
            match engine.watch(instance).await? {
                // Its own check is to be ignored, but its end is not; the engine tells the state again at once.
                Happening::Unhealthy if self.health_command.is_none() => tokio::time::sleep(self.interval).await,
                happening => return Ok(happening),
            }
        }
    }

    /// Ends when the image's own health check has passed once in each instance.
    async fn image_checks(&self) {
        match (self.engine, self.health_command) {
            (Some(engine), Some(command)) if !self.instances.is_empty() => {
                join_all(self.instances.iter().map(|instance| self.image_check(engine, instance, command))).await;
            }
            _ => std::future::pending().await,
        }
    }

    async fn image_check(&self, engine: &Engine, instance: &Instance, command: &[String]) {
        let mut words = String::new();
        let mut turn = tokio::time::interval(self.interval.max(Duration::from_millis(1)));
        loop {
            turn.tick().await;
            // An instance that ended can't run it; the watch tells that better.
            let outcome = match engine.run_health_command(instance, command).await {
                Ok(Ok(())) => return,
                Ok(Err(outcome)) => outcome,
                Err(error) => error.to_string(),
            };
            if outcome != words {
                self.ui.detail(&format!("the image's own health check in {}: {outcome}", instance.name));
                words = outcome;
            }
        }
    }

    async fn ended(&self, instance: &Instance, happening: Happening, begun: Instant, seen: &Seen) -> Error {
        let Self { service, slot, .. } = self;
        let which = if self.instances.len() > 1 { format!(": {}", instance.name) } else { String::new() };
        let message = match happening {
            Happening::Exited(Exit { code, oom }) => {
                let why = if oom { ", killed for want of memory (OOM)" } else { "" };
                let after = begun.elapsed().as_secs_f64();
                format!("{service} on {slot}{which} exited with code {code}{why}, {after:.1} s after it was staged")
            }
            Happening::Unhealthy => format!("{service} on {slot}{which}: the engine's health check gave up on it"),
        };
        self.failure_of(&[instance], message, seen).await
    }

    /// Returns the failure of whichever instances did not pass their last probe.
    async fn failure(&self, message: String, seen: &Seen) -> Error {
        let passed =
            |instance: &&Instance| seen.probes.get(&instance.endpoint.to_string()).is_some_and(|(passed, _)| *passed);
        let failed: Vec<&Instance> = self.instances.iter().filter(|instance| !passed(instance)).collect();
        let all: Vec<&Instance> = self.instances.iter().collect();
        self.failure_of(if failed.is_empty() { &all } else { &failed }, message, seen).await
    }

    async fn failure_of(&self, instances: &[&Instance], message: String, seen: &Seen) -> Error {
        let mut error = Error::new(Kind::Unhealthy, message);
        error.details.append(&mut seen.complaints());
        if let Some(engine) = self.engine {
            for instance in instances {
                error.details.append(&mut last_lines(engine, instance, self.instances.len()).await);
            }
        }
        if seen.refused_only { error.hint(nothing_listens()) } else { error }
    }
}

/// Returns the last lines of an instance's log, for a failure; of one of several it says whose they are.
pub(super) async fn last_lines(engine: &Engine, instance: &Instance, of: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let range = LogRange { tail: Some(LOG_LINES), follow: false };
    let read = engine.logs(instance, range, &mut |line| lines.push(format!("| {line}"))).await;
    let name = &instance.name;
    let title = match (lines.is_empty(), of) {
        (true, 0 | 1) => "it wrote no log".to_owned(),
        (false, 0 | 1) => "its last log lines:".to_owned(),
        (true, _) => format!("{name} wrote no log"),
        (false, _) => format!("the last log lines of {name}:"),
    };
    lines.insert(0, title);
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
