//! Executes a plan: everything before the flip can be undone, after it the flip stands.

use config::admin::Event;
use config::admin::request::{Drain, Flip, Stage};
use config::admin::response::{Counts, Flipped};
use config::name::{EndpointAddr, ServiceName, Slot};
use tokio::time::Instant;

use super::plan::{Plan, Step};
use super::report::{Report, Version};
use super::settings::{ImageHealth, Keep, Settings};
use super::wait::{Healthy, Wait};
use crate::admin::{self, Client, Match};
use crate::context::Context;
use crate::engine::{Engine, Instance, InstanceSpec, Restart};
use crate::error::{Error, Kind};

/// How often a lease is kept while nothing else is called: well within its life.
const RENEW: std::time::Duration = std::time::Duration::from_secs(5);

/// What is to become live.
pub enum Candidate {
    /// A new instance.
    New(Box<InstanceSpec>),
    /// An instance that was live before and is started again.
    Existing(Box<Instance>),
    /// Addresses that we don't manage.
    Addresses(Vec<EndpointAddr>),
    /// The idle slot as it is: warm and healthy, at this generation.
    Warm(u64),
}

/// A deployment under way, under the service's lease.
pub struct Rollout<'a> {
    /// Options, printer, signals.
    pub context: &'a Context<'a>,
    /// The proxy.
    pub client: &'a mut Client,
    /// The engine, where instances are run by one.
    pub engine: Option<&'a Engine>,
    /// The service.
    pub service: &'a ServiceName,
    /// The service's generation at the time of the plan; zero where it is not there.
    pub generation: u64,
    /// The way.
    pub plan: Plan,
    /// What it is run with.
    pub settings: Settings,
    /// What is to become live.
    pub candidate: Candidate,
    /// The image's own health check.
    pub health_command: Option<Vec<String>>,
    /// The deployment's id.
    pub deployment: String,
    /// The image of the new version and of the old one, for status and report.
    pub images: (Option<String>, Option<String>),
}

/// How to take a step back.
enum Undo {
    Clear(Slot),
    Remove(Instance),
    Stop(Instance),
    Name(Instance, bool),
}

/// What stood when the flip was done.
struct Live {
    flipped: Flipped,
    /// False where the answer was lost and the proxy's status told.
    timed: bool,
    healthy: Option<Healthy>,
    instance: Option<Instance>,
    at: Instant,
}

impl Rollout<'_> {
    /// Makes the candidate live and retires the old version.
    ///
    /// # Errors
    /// Before the flip everything is undone, and the error says what still holds; after it only a signal is an error,
    /// and says the way back.
    ///
    /// # Cancel safety
    /// Not to be dropped: it takes signals itself.
    pub async fn run(mut self) -> Result<Report, Error> {
        let mut undo = Vec::new();
        match self.before_flip(&mut undo).await {
            Ok(live) => self.after_flip(live).await,
            Err(error) => Err(self.take_back(undo, error).await),
        }
    }

    fn engine(&self) -> Result<&Engine, Error> {
        self.engine.ok_or_else(|| Error::usage("an instance needs an engine"))
    }

    async fn before_flip(&mut self, undo: &mut Vec<Undo>) -> Result<Live, Error> {
        let mut instance = match &self.candidate {
            Candidate::Existing(instance) => Some((**instance).clone()),
            Candidate::New(_) | Candidate::Addresses(_) | Candidate::Warm(_) => None,
        };
        for step in self.plan.steps.clone() {
            // A step is never torn: a signal is taken between two.
            self.context.interrupt.check()?;
            self.context.ui.detail(&step.sentence());
            self.take_step(step, &mut instance, undo).await?;
        }
        self.context.interrupt.check()?;
        let (healthy, generation) = match self.candidate {
            Candidate::Warm(generation) => (None, generation),
            Candidate::New(_) | Candidate::Existing(_) | Candidate::Addresses(_) => {
                let healthy = self.stage(instance.as_ref(), undo).await?;
                (Some(healthy), healthy.generation)
            }
        };
        self.context.interrupt.check()?;
        let (flipped, timed) = self.flip(generation, undo).await?;
        Ok(Live { flipped, timed, healthy, instance, at: Instant::now() })
    }

    async fn take_step(
        &mut self,
        step: Step,
        instance: &mut Option<Instance>,
        undo: &mut Vec<Undo>,
    ) -> Result<(), Error> {
        match step {
            Step::AwaitDrain(slot) => {
                self.context.ui.say(&format!("waiting for the last requests on {slot}"));
                let interrupt = self.context.interrupt.clone();
                interrupt.beside(self.drained(slot)).await??;
                // Draining to its end gave the service no new generation, but what else happened may have.
                let service = self.client.service(self.service).await?;
                self.generation = service.map_or(0, |service| service.generation);
            }
            Step::RemoveLeftover(leftover) => {
                self.context.ui.say(&format!("removing {}, which an interrupted run left", leftover.name));
                self.engine()?.remove(&leftover).await?;
            }
            Step::Park(previous) => {
                let engine = self.engine()?;
                engine.set_restart(&previous, Restart::No).await?;
                let parked = engine.set_kept(&previous, true).await?;
                // The list of what is stale names it as it was.
                for stale in self.plan.stale.iter_mut().filter(|stale| stale.id == previous.id) {
                    *stale = parked.clone();
                }
                undo.push(Undo::Name(parked, false));
            }
            Step::Unpark(kept) => {
                let named = self.engine()?.set_kept(&kept, false).await?;
                undo.push(Undo::Name(named.clone(), true));
                *instance = Some(named);
            }
            Step::Create => {
                let Candidate::New(spec) = &self.candidate else {
                    return Err(Error::usage("there is nothing to create"));
                };
                let engine = self.engine()?;
                let created = engine.create(spec).await?;
                undo.push(Undo::Remove(created.clone()));
                engine.start(&created).await?;
                self.context.ui.say(&format!("started {} from {}", created.name, spec.image.reference));
                *instance = Some(created);
            }
            Step::Start => {
                let Some(previous) = instance else { return Err(Error::usage("there is nothing to start")) };
                let engine = self.engine()?;
                if !previous.running {
                    undo.push(Undo::Stop(previous.clone()));
                }
                engine.start(previous).await?;
                self.context.ui.say(&format!("started {}", previous.name));
            }
        }
        Ok(())
    }

    async fn stage(&mut self, instance: Option<&Instance>, undo: &mut Vec<Undo>) -> Result<Healthy, Error> {
        let endpoints = match (&self.candidate, instance) {
            (Candidate::Addresses(addresses), _) => addresses.clone(),
            (_, Some(instance)) => vec![instance.endpoint.clone()],
            (_, None) => return Err(Error::usage("there is nothing to stage")),
        };
        let stage = Stage {
            slot: Some(self.plan.slot),
            endpoints,
            health: self.settings.health.clone(),
            settings: Some(self.settings.routes.clone()),
            image: self.images.0.clone(),
            deployment: Some(self.deployment.clone()),
            deadline: self.settings.deadline,
        };
        let events = self.client.stage(self.service, Match::Generation(self.generation), &stage).await?;
        undo.push(Undo::Clear(self.plan.slot));
        let required = self.settings.image_health == ImageHealth::Require;
        let wait = Wait {
            ui: self.context.ui,
            service: self.service,
            slot: self.plan.slot,
            instance: self.engine.zip(instance),
            health_command: self.health_command.as_deref().filter(|_| required),
            interval: self.settings.health.interval,
            deadline: self.settings.deadline,
        };
        self.context.interrupt.beside(wait.until_healthy(events)).await?
    }

    /// Flips; where the answer is lost the proxy's status tells what happened.
    async fn flip(&mut self, generation: u64, undo: &mut Vec<Undo>) -> Result<(Flipped, bool), Error> {
        let to = self.plan.slot;
        let flip = Flip { to: Some(to), force: false, drain: self.settings.drain };
        match self.client.flip(self.service, Match::Generation(generation), &flip).await {
            Ok(flipped) => Ok((flipped, true)),
            Err(admin::Error::Refused(refusal)) => {
                let mut error = Error::from(refusal);
                if matches!(error.kind, Kind::Unhealthy) {
                    error.kind = Kind::NoFlip;
                }
                Err(error)
            }
            Err(lost) => match self.client.service(self.service).await {
                Ok(Some(service)) if service.live == Some(to) => {
                    let generation = service.generation;
                    let flipped = Flipped { live: to, old: self.plan.live, flip_micros: 0, in_flight: 0, generation };
                    Ok((flipped, false))
                }
                Ok(_) => Err(lost.into()),
                Err(_) => {
                    // Whether it was done can't be known, so neither version may be taken away.
                    undo.clear();
                    Err(Error::from(lost).hint("whether the flip was done is not known: both versions still run"))
                }
            },
        }
    }

    /// Undoes what was done, last first. A second signal leaves at once.
    async fn take_back(&mut self, undo: Vec<Undo>, mut error: Error) -> Error {
        let interrupt = self.context.interrupt.clone();
        let left = tokio::select! {
            biased;
            _ = interrupt.second() => vec!["left at once; the next `bgctl switch` removes what is left".to_owned()],
            left = self.undo_all(undo) => left,
        };
        error.hints.splice(0..0, left);
        error.hints.push(match self.plan.live {
            Some(live) => format!("traffic still on {live}"),
            None => format!("{} was not live before, and is not now", self.service),
        });
        error
    }

    async fn undo_all(&mut self, undo: Vec<Undo>) -> Vec<String> {
        let mut left = Vec::new();
        for step in undo.into_iter().rev() {
            let (what, done) = match &step {
                Undo::Clear(slot) => (format!("clear {slot}"), self.clear(*slot).await),
                Undo::Remove(instance) => (format!("remove {}", instance.name), self.remove(instance).await),
                Undo::Stop(instance) => (format!("stop {}", instance.name), self.stop(instance).await),
                Undo::Name(instance, kept) => (format!("rename {}", instance.name), self.rename(instance, *kept).await),
            };
            match done {
                Ok(()) => self.context.ui.detail(&format!("undone: {what}")),
                Err(error) => left.push(format!("could not {what}: {error}")),
            }
        }
        left
    }

    async fn clear(&mut self, slot: Slot) -> Result<(), Error> {
        let stage = Stage { slot: Some(slot), ..Stage::default() };
        let mut events = self.client.stage(self.service, Match::Any, &stage).await?;
        while let Some(event) = events.next().await? {
            if let Event::Error(refusal) = event {
                return Err(refusal.into());
            }
        }
        Ok(())
    }

    async fn remove(&self, instance: &Instance) -> Result<(), Error> {
        Ok(self.engine()?.remove(instance).await?)
    }

    async fn stop(&self, instance: &Instance) -> Result<(), Error> {
        Ok(self.engine()?.stop(instance, self.settings.stop_grace).await?)
    }

    async fn rename(&self, instance: &Instance, kept: bool) -> Result<(), Error> {
        Ok(self.engine()?.set_kept(instance, kept).await.map(drop)?)
    }

    // === After the flip: it stands, whatever happens ===

    async fn after_flip(&mut self, live: Live) -> Result<Report, Error> {
        let slot = live.flipped.live;
        let name = self.images.0.as_deref().and_then(|image| image.rsplit_once(':')).map_or("", |(_, tag)| tag);
        let took =
            if live.timed { format!("{} us", live.flipped.flip_micros) } else { "its answer was lost".to_owned() };
        let rest = match (live.flipped.old, self.settings.bake.is_zero()) {
            (None, _) => String::new(),
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
        // A reboot from here on brings back exactly the new version.
        for (instance, restart) in [(&live.instance, Restart::Always), (&self.plan.old, Restart::No)] {
            if let (Some(engine), Some(instance)) = (self.engine, instance)
                && let Err(error) = engine.set_restart(instance, restart).await
            {
                self.context.ui.warn(&format!("the restart policy of {} is not set: {error}", instance.name));
            }
        }
        let interrupt = self.context.interrupt.clone();
        let retired = interrupt.beside(self.retire(&live)).await;
        let (counts, drain_seconds) = retired.and_then(|retired| retired).map_err(|error| {
            let back = self.context.line("rollback", self.service);
            error
                .hint(format!("{slot} is live and stays so; the proxy drains the old slot by itself"))
                .hint(format!("the way back: {back}"))
        })?;
        let old = live.flipped.old.map(|slot| Version { slot, image: self.images.1.clone() });
        let mut report = Report {
            service: self.service.clone(),
            deployment: self.deployment.clone(),
            kept: if old.is_some() { self.kept().as_str() } else { Keep::None.as_str() },
            old,
            new: Version { slot, image: self.images.0.clone() },
            healthy_seconds: live.healthy.map(|healthy| healthy.seconds),
            flip_micros: live.timed.then_some(live.flipped.flip_micros),
            requests: counts,
            drain_seconds,
            exit_code: 0,
        };
        report.exit_code = report.exit().0;
        Ok(report)
    }

    /// Addresses that we don't manage stay staged: nobody could start them again.
    fn kept(&self) -> Keep {
        if self.plan.old.is_some() { self.settings.keep } else { Keep::Warm }
    }

    async fn retire(&mut self, live: &Live) -> Result<(Counts, f64), Error> {
        let Some(old) = live.flipped.old else { return Ok((Counts::default(), 0.0)) };
        let drained = self.drained(old).await?;
        let bake_ends = live.at + self.settings.bake;
        while Instant::now() < bake_ends {
            let rest = bake_ends.saturating_duration_since(Instant::now());
            self.context.ui.progress(&format!("{old} stays warm for {} s more", rest.as_secs_f64().ceil()));
            tokio::time::sleep(rest.min(RENEW)).await;
            self.client.renew().await?;
        }
        self.put_away(old).await;
        Ok(drained)
    }

    /// Stops or removes what is of no use any more; what fails is a warning, since the new version serves.
    async fn put_away(&mut self, slot: Slot) {
        let Some(engine) = self.engine else { return };
        if let Some(old) = self.plan.old.clone()
            && self.settings.keep != Keep::Warm
        {
            if let Err(error) = self.clear(slot).await {
                self.context.ui.warn(&format!("{slot} is not cleared in the proxy: {error}"));
            }
            let mut put_away = self.stop(&old).await;
            if self.settings.keep == Keep::None && put_away.is_ok() {
                put_away = self.remove(&old).await;
            }
            if let Err(error) = put_away {
                self.context.ui.warn(&format!("{} still runs: {error}", old.name));
            }
        }
        for stale in &self.plan.stale {
            if let Err(error) = engine.remove(stale).await {
                self.context.ui.warn(&format!("{} is not removed: {error}", stale.name));
            }
        }
    }

    async fn drained(&mut self, slot: Slot) -> Result<(Counts, f64), Error> {
        let mut events = self.client.drain(self.service, &Drain { slot: Some(slot) }).await?;
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
                Event::Staged { .. }
                | Event::Probe { .. }
                | Event::Healthy { .. }
                | Event::Flipped { .. }
                | Event::Cleared { .. }
                | Event::Health { .. }
                | Event::Changed { .. }
                | Event::Removed { .. }
                | Event::Reloaded { .. } => {}
            }
        }
        Err(Error::new(Kind::NoProxy, "the proxy ended the drain without a verdict"))
    }
}

/// Returns a duration as people say it in a sentence: `10 s`.
fn humane(duration: std::time::Duration) -> String {
    if duration.subsec_nanos() == 0 { format!("{} s", duration.as_secs()) } else { config::duration::format(duration) }
}
