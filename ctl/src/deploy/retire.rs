//! What follows the flip, which stands whatever happens: restart policies, drain, bake, and the old version put away.

use std::time::Duration;

use config::admin::Event;
use config::admin::event::Verdict;
use config::admin::journal::{Outcome, StepState};
use config::admin::request::Drain;
use config::admin::response::Counts;
use config::name::Slot;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::execute::{Live, Rollout, Undo};
use super::lease::leased;
use super::report::{Failure, Report, Version};
use super::settings::Keep;
use super::wait::last_lines;
use crate::engine::{Instance, Restart};
use crate::error::{Error, Kind};

/// How often it is told how long the watch goes on: a log shows each line.
const PROGRESS: Duration = Duration::from_secs(5);

/// What was seen until the end of drain and bake.
#[derive(Debug, Clone, Copy, Default)]
struct Watched {
    counts: Counts,
    drain_seconds: f64,
}

/// Why the proxy flipped back.
struct FlippedBack {
    reason: String,
    verdict: Verdict,
    failing_micros: Option<u64>,
    counts: Counts,
}

impl Rollout<'_> {
    pub(super) async fn after_flip(&mut self, live: Live, undo: Vec<Undo>) -> Result<Report, Error> {
        let slot = live.flipped.live;
        let name = self.work.image.as_deref().and_then(|image| image.rsplit_once(':')).map_or("", |(_, tag)| tag);
        let took =
            if live.timed { format!("{} us", live.flipped.flip_micros) } else { "its answer was lost".to_owned() };
        let rest = match (live.flipped.old, self.settings.bake.is_zero()) {
            (None, _) => String::new(),
            (Some(_), _) if self.settings.no_port => "; the old version is stopped".to_owned(),
            (Some(_), _) if self.plan.stops_first() => "; visitors wait no more".to_owned(),
            (Some(_), true) => "; old slot drains".to_owned(),
            (Some(_), false) => {
                format!("; old slot drains, watching {}", humane(self.settings.bake))
            }
        };
        let words = [self.service.as_str(), name, "on", slot.upper()];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        self.context.ui.announce(&format!("LIVE: {} ({took}){rest}", words.join(" ")));
        self.context.ui.event(&Event::Flipped {
            service: self.service.clone(),
            live: slot,
            old: live.flipped.old,
            flip_micros: live.flipped.flip_micros,
        });
        self.note_after("flip", StepState::Done).await;
        // A reboot from here on brings back exactly the new version.
        self.set_restarts(&live.instances, Restart::Always).await;
        self.set_restarts(&self.plan.old, Restart::No).await;
        if self.detach && live.flipped.old.is_some() {
            let line = self.context.line("recover", self.service);
            let goes_on =
                if self.settings.no_port { "the old version runs on" } else { "the old version drains by itself" };
            self.context.ui.say(&format!("{goes_on}; the next run puts it away, or: {line}"));
            return Ok(self.report(&live, None));
        }
        let interrupt = self.context.interrupt.clone();
        let retired = interrupt.beside(self.retire(&live)).await;
        let retired = retired.and_then(|retired| retired).map_err(|error| {
            let back = self.context.line("rollback", self.service);
            let old = if self.settings.no_port {
                "the next run puts the old version away"
            } else {
                "the proxy drains the old slot by itself"
            };
            error.hint(format!("{slot} is live and stays so; {old}")).hint(format!("the way back: {back}"))
        })?;
        let watched = match retired {
            Ok(watched) => watched,
            Err(failed) => return Err(self.go_back(&live, undo, failed).await),
        };
        let report = self.report(&live, Some(watched));
        let value = serde_json::to_value(&report).expect("our own types are JSON");
        self.end(Outcome::Done, value, None).await;
        Ok(report)
    }

    fn report(&self, live: &Live, watched: Option<Watched>) -> Report {
        let slot = live.flipped.live;
        let old = live.flipped.old.map(|slot| Version { slot, image: self.work.old_image.clone() });
        let mut report = Report {
            service: self.service.clone(),
            deployment: self.work.deployment.clone(),
            kept: match (&old, watched) {
                (None, _) => Keep::None.as_str(),
                (Some(_), None) => Keep::Warm.as_str(),
                (Some(_), Some(_)) => self.kept().as_str(),
            },
            old,
            new: Version { slot, image: self.work.image.clone() },
            healthy_seconds: live.healthy.as_ref().map(|healthy| healthy.seconds),
            flip_micros: live.timed.then_some(live.flipped.flip_micros),
            requests: watched.map(|watched| Counts { cut: watched.counts.cut + live.cut, ..watched.counts }),
            replicas: Some(live.instances.len()).filter(|count| *count > 0),
            has_port: !self.settings.no_port,
            drain_seconds: watched.map(|watched| watched.drain_seconds),
            after_failed: None,
            exit_code: 0,
        };
        report.exit_code = report.exit().0;
        report
    }

    /// Addresses that we don't manage stay staged: nobody could start them again.
    fn kept(&self) -> Keep {
        if !self.plan.old.is_empty() { self.settings.keep } else { Keep::Warm }
    }

    /// Waits for the end of drain and bake, and puts the old version away; `Err`: the proxy flipped back.
    async fn retire(&mut self, live: &Live) -> Result<Result<Watched, FlippedBack>, Error> {
        let Some(old) = live.flipped.old else { return Ok(Ok(Watched::default())) };
        self.note_after("watch", StepState::Begun).await;
        let watched = self.watch(old, live.at + self.settings.bake).await?;
        self.note_after("watch", StepState::Done).await;
        if watched.is_ok() {
            self.note_after("put_away", StepState::Begun).await;
            self.put_away(old).await;
            self.note_after("put_away", StepState::Done).await;
        }
        Ok(watched)
    }

    /// Follows the drain of the old slot and the bake of the new one to the end of both.
    async fn watch(&mut self, old: Slot, bake_ends: Instant) -> Result<Result<Watched, FlippedBack>, Error> {
        let mut events = self.client.drain(self.service, &Drain { slot: Some(old), bake: true }).await?;
        let mut watched = Watched::default();
        let mut tick = tokio::time::interval(PROGRESS);
        // Of what takes no requests nothing drains, and nothing is watched.
        let has_port = !self.settings.no_port;
        loop {
            let event = tokio::select! {
                biased;
                event = events.next() => event?,
                _ = tick.tick(), if has_port => {
                    let left = bake_ends.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
                    self.context.ui.progress(&format!("watching {} for {left} s more", old.other()));
                    continue;
                }
            };
            let Some(event) = event else { return Ok(Ok(watched)) };
            self.context.ui.event(&event);
            match event {
                Event::Draining { in_flight, .. } if has_port => {
                    self.context.ui.progress(&format!("{old} drains: {in_flight} in flight"));
                }
                Event::Drained { counts, seconds, .. } => watched = Watched { counts, drain_seconds: seconds },
                Event::Baked { counts, .. } => watched.counts = counts,
                Event::FlippedBack { reason, verdict, failing_micros, counts, .. } => {
                    events.finish().await;
                    return Ok(Err(FlippedBack { reason, verdict, failing_micros, counts }));
                }
                Event::Error(refusal) => return Err(refusal.into()),
                _ => {}
            }
        }
    }

    /// Tells that the proxy flipped back, and undoes what was done for the new version.
    async fn go_back(&mut self, live: &Live, undo: Vec<Undo>, failed: FlippedBack) -> Error {
        let FlippedBack { reason, verdict, failing_micros, counts } = failed;
        let (service, left) = (self.service, live.flipped.live);
        let why = match verdict {
            Verdict::Dead => "nothing answers there",
            Verdict::Bad => "it does worse than the version before",
        };
        let after = failing_micros.map(|micros| format!(", {:.1} ms after the first failure", micros as f64 / 1000.0));
        let after = after.unwrap_or_default();
        self.context.ui.warn(&format!("the proxy flipped back to {}{after}: {reason}", left.other()));
        self.set_restarts(&self.plan.old, Restart::Always).await;
        self.set_restarts(&live.instances, Restart::No).await;
        let mut error = Error::new(Kind::NoFlip, format!("{service} on {left} was flipped back: {why}"));
        error = error.detail(reason);
        let Counts { held, retried, cut, failed, .. } = counts;
        error = error.detail(format!("requests: {held} held, {retried} retried, {cut} cut, {failed} failed"));
        if let Some(engine) = self.engine {
            for instance in &live.instances {
                error.details.append(&mut last_lines(engine, instance, live.instances.len()).await);
            }
        }
        // What is still answered there is not taken away under its visitors.
        if let Err(lost) = self.drained(left).await {
            error = error.hint(format!("whether {left} has drained is not known: {lost}"));
        }
        let log = self.log_of(&undo).await;
        let error = self.take_back(undo, error).await;
        self.end(Outcome::FlippedBack, Failure::of(self.service, &error).value(), log).await;
        error
    }

    /// Sets restart policies; what can't be set is told.
    pub(super) async fn set_restarts(&self, instances: &[Instance], restart: Restart) {
        let Some(engine) = self.engine else { return };
        for instance in instances {
            if let Err(error) = engine.set_restart(instance, restart).await {
                self.context.ui.warn(&format!("the restart policy of {} is not set: {error}", instance.name));
            }
        }
    }

    /// Notes a step after the flip: what can't be noted keeps nothing from being done any more.
    async fn note_after(&mut self, step: &str, state: StepState) {
        let noted = match state {
            StepState::Begun => self.begun(step).await,
            StepState::Done => self.done(step).await,
        };
        if let Err(error) = noted {
            self.context.ui.warn(&format!("{step} is not noted in the journal: {error}"));
        }
    }

    /// Stops or removes what is of no use any more; what fails is a warning, since the new version serves.
    async fn put_away(&mut self, slot: Slot) {
        let Some(engine) = self.engine else { return };
        let old = self.plan.old.clone();
        if !old.is_empty() && self.settings.keep != Keep::Warm {
            if let Err(error) = self.clear(slot).await {
                self.context.ui.warn(&format!("{slot} is not cleared in the proxy: {error}"));
            }
            let (grace, removes) = (self.settings.stop_grace, self.settings.keep == Keep::None);
            let put_away = async |instance: &Instance| {
                engine.stop(instance, grace).await?;
                if removes { engine.remove(instance).await } else { Ok(()) }
            };
            // Side by side: each may take its whole grace.
            let put_away = leased(self.client, join_all(old.iter().map(put_away))).await;
            for (instance, put_away) in old.iter().zip(put_away) {
                if let Err(error) = put_away {
                    self.context.ui.warn(&format!("{} still runs: {error}", instance.name));
                }
            }
        }
        for stale in &self.plan.stale {
            if let Err(error) = leased(self.client, engine.remove(stale)).await {
                self.context.ui.warn(&format!("{} is not removed: {error}", stale.name));
            }
        }
    }

    /// Waits until nothing is in flight on a slot that was live; returns what was counted and the seconds it took.
    pub(super) async fn drained(&mut self, slot: Slot) -> Result<(Counts, f64), Error> {
        let mut events = self.client.drain(self.service, &Drain { slot: Some(slot), bake: false }).await?;
        while let Some(event) = events.next().await? {
            self.context.ui.event(&event);
            match event {
                Event::Draining { in_flight, .. } => {
                    self.context.ui.progress(&format!("{slot} drains: {in_flight} in flight"));
                }
                Event::Drained { counts, seconds, .. } => {
                    events.finish().await;
                    return Ok((counts, seconds));
                }
                Event::Error(refusal) => return Err(refusal.into()),
                _ => {}
            }
        }
        Err(Error::new(Kind::NoProxy, "the proxy ended the drain without a verdict"))
    }
}

/// Returns a duration as people say it in a sentence: `10 s`.
fn humane(duration: std::time::Duration) -> String {
    if duration.subsec_nanos() == 0 { format!("{} s", duration.as_secs()) } else { config::duration::format(duration) }
}
