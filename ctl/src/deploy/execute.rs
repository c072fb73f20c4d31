//! Executes a plan up to the flip: everything before it can be undone (`undo`). What follows it stands in `retire`.

use config::admin::journal::{Outcome, Work};
use config::admin::request::{Flip, Pause, Stage};
use config::admin::response::Flipped;
use config::duration::format;
use config::name::{EndpointAddr, ServiceName, Slot};
use config::project::Hooks;
use futures_util::future::try_join_all;
use tokio::time::{Duration, Instant};

use super::lease::leased;
use super::plan::{Plan, Step};
use super::preview::{self, Wanted};
use super::report::{Failure, Report};
use super::settings::{ImageHealth, Settings};
use super::wait::{Healthy, Wait};
use crate::admin::{self, Client, Match};
use crate::context::Context;
use crate::engine::{Engine, Instance, InstanceSpec, Restart};
use crate::error::{Error, Kind};

/// A pause around a flip outlives its drain by this: the flip itself takes no time.
pub(super) const PAUSE_SLACK: Duration = Duration::from_secs(5);

/// A worker without a health check of its own is believed to be well when it has run for so long.
const ALIVE: Duration = Duration::from_secs(5);

/// What is to become live.
pub enum Candidate {
    /// New instances: the first of them, like which the others are.
    New(Box<InstanceSpec>),
    /// Instances that were live before and are started again.
    Existing(Vec<Instance>),
    /// Addresses that we don't manage.
    Addresses(Vec<EndpointAddr>),
    /// The idle slot as it is: healthy, at this generation; with its instances, where they are ours.
    Warm(u64, Vec<Instance>),
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
    /// Visitors are held around the flip, so that no request of the old version meets the new one.
    pub pause: bool,
    /// The run ends with the flip; the proxy goes on by itself.
    pub detach: bool,
    /// The run ends before the flip: the new version is there to be looked at.
    pub no_flip: bool,
    /// What the file asks to be run around it.
    pub hooks: Hooks,
    /// The image's own health check.
    pub health_command: Option<Vec<String>>,
    /// What is done, as the journal tells it.
    pub work: Work,
}

/// How to take a step back.
pub(super) enum Undo {
    Clear(Slot),
    Remove(Instance),
    Stop(Instance),
    Name(Instance, bool),
    Resume,
    /// Starts again what was stopped first, and waits until it serves.
    Revive(Vec<Instance>),
}

/// What the steps before the flip have come to.
#[derive(Default)]
struct Tried {
    /// The instances of the candidate.
    instances: Vec<Instance>,
    /// Requests that the old version had not answered when it was stopped.
    cut: u64,
}

/// What stood when the flip was done.
pub(super) struct Live {
    pub(super) flipped: Flipped,
    /// False where the answer was lost and the proxy's status told.
    pub(super) timed: bool,
    pub(super) healthy: Option<Healthy>,
    pub(super) instances: Vec<Instance>,
    /// Requests that the old version had not answered when it was stopped first.
    pub(super) cut: u64,
    pub(super) at: Instant,
}

/// Why no flip is known to be done.
pub(super) struct Stopped {
    pub(super) error: Error,
    /// False where it can't be known whether the flip was done.
    is_before: bool,
}

impl<E: Into<Error>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self { error: error.into(), is_before: true }
    }
}

impl<'a> Rollout<'a> {
    /// Makes the candidate live and retires the old version; without a flip it returns no report.
    ///
    /// # Errors
    /// Before the flip everything is undone, and the error says what still holds; so it is where the proxy flips back in
    /// the bake. Else after the flip only a signal is an error, and says the way back.
    ///
    /// # Cancel safety
    /// Not to be dropped: it takes signals itself.
    pub async fn run(mut self) -> Result<Option<Report>, Error> {
        self.begin().await?;
        if self.plan.stops_first() || self.settings.no_port {
            // What was stopped can't answer for the new version; of what takes no requests nothing can be judged.
            self.settings.bake = Duration::ZERO;
        }
        let mut undo = Vec::new();
        match self.before_flip(&mut undo).await {
            Ok(Some(live)) => self.after_flip(live, undo).await.map(Some),
            Ok(None) => {
                self.tell_staged().await;
                Ok(None)
            }
            Err(Stopped { error, is_before: true }) => {
                let log = self.log_of(&undo).await;
                let error = self.take_back(undo, error).await;
                self.end(Outcome::Undone, Failure::of(self.service, &error).value(), log).await;
                Err(error)
            }
            // Neither version may be taken away.
            Err(Stopped { error, is_before: false }) => Err(error
                .hint("whether the flip was done is not known: both versions still run")
                .hint(format!("`{}` tells which is live", self.context.line("status", self.service)))),
        }
    }

    /// Tells how to go on from a version that is staged.
    async fn tell_staged(&mut self) {
        let (ui, slot) = (self.context.ui, self.plan.slot);
        let still =
            self.plan.live.map_or_else(|| "nobody sees it".to_owned(), |live| format!("visitors are on {live}"));
        ui.announce(&format!("STAGED: {} is healthy on {slot}; {still}", self.service));
        let wanted = Wanted { lasts: config::defaults::PREVIEW, path: "/" };
        let link = match preview::link(self.client, self.engine, self.service, wanted).await {
            Ok(link) => Some(link),
            Err(error) => {
                // A service that was never live has no route yet, and an older proxy makes no links.
                ui.detail(&format!("no link to look at it: {error}"));
                None
            }
        };
        if let Some(link) = &link {
            ui.say(&format!("whoever has this link, until {}: {}", link.expires, link.url));
        }
        ui.say(&format!("some visitors: {}", self.context.line_with("canary", self.service, "10")));
        ui.say(&format!("all of them: {}", self.context.line_with("switch", self.service, "--continue")));
        let mut report =
            serde_json::json!({ "event": "report", "service": self.service, "staged": slot, "exit_code": 0 });
        let kept = report.clone();
        // Whoever may read the history need not have the link.
        report["preview"] = serde_json::json!(link);
        ui.event(&report);
        self.end(Outcome::Done, kept, None).await;
    }

    pub(super) fn engine(&self) -> Result<&'a Engine, Error> {
        self.engine.ok_or_else(|| Error::usage("an instance needs an engine"))
    }

    pub(super) async fn before_flip(&mut self, undo: &mut Vec<Undo>) -> Result<Option<Live>, Stopped> {
        let mut tried = Tried::default();
        if let Candidate::Existing(instances) | Candidate::Warm(_, instances) = &self.candidate {
            tried.instances.clone_from(instances);
        }
        let stops_first = self.plan.stops_first();
        if !stops_first {
            self.go_before().await?;
        }
        for step in self.plan.steps.clone() {
            // A step is never torn: a signal is taken between two.
            self.context.interrupt.check()?;
            self.context.ui.detail(&step.sentence());
            let name = step.name();
            let is_stopped = matches!(step, Step::StopFirst(_));
            self.begun(name).await?;
            self.take_step(step, &mut tried, undo).await?;
            self.done(name).await?;
            if is_stopped {
                self.go_before().await?;
            }
        }
        let Tried { instances, cut } = tried;
        self.context.interrupt.check()?;
        let (healthy, generation) = match self.candidate {
            Candidate::Warm(generation, _) => (None, generation),
            Candidate::New(_) | Candidate::Existing(_) | Candidate::Addresses(_) => {
                self.begun("stage").await?;
                let healthy = self.stage(&instances, undo).await?;
                self.done("stage").await?;
                (Some(healthy), healthy.generation)
            }
        };
        self.context.interrupt.check()?;
        if self.no_flip {
            self.wait_for_others().await?;
            return Ok(None);
        }
        if let Some(line) = self.hooks.before_flip.clone() {
            self.begun("before_flip").await?;
            self.run_before_flip(&instances, &line).await?;
            self.done("before_flip").await?;
            self.context.interrupt.check()?;
        }
        self.wait_for_others().await?;
        if self.pause && !stops_first {
            self.begun("pause").await?;
            undo.push(Undo::Resume);
            let interrupt = self.context.interrupt.clone();
            interrupt.beside(self.hold_visitors()).await??;
        }
        self.begun("flip").await?;
        let (flipped, timed) = self.flip(generation).await?;
        if self.pause || stops_first {
            undo.retain(|step| !matches!(step, Undo::Resume));
            if let Err(error) = self.client.resume(self.service).await {
                self.context.ui.warn(&format!("requests are held until the pause ends by itself: {error}"));
            }
        }
        Ok(Some(Live { flipped, timed, healthy, instances, cut, at: Instant::now() }))
    }

    /// Waits until all that go together are healthy.
    async fn wait_for_others(&mut self) -> Result<(), Error> {
        let Some(party) = &self.context.together else { return Ok(()) };
        let interrupt = self.context.interrupt.clone();
        interrupt.beside(leased(self.client, party.ready())).await?
    }

    /// Runs the command that goes before a new version.
    async fn go_before(&mut self) -> Result<(), Error> {
        if let (Candidate::New(spec), Some(line)) = (&self.candidate, self.settings.before.clone()) {
            let spec = spec.clone();
            self.begun("before").await?;
            self.run_before(&spec, &line).await?;
            self.done("before").await?;
        }
        Ok(())
    }

    async fn take_step(&mut self, step: Step, tried: &mut Tried, undo: &mut Vec<Undo>) -> Result<(), Error> {
        let instances = &mut tried.instances;
        match step {
            Step::StopFirst(running) => tried.cut = self.stop_first(running, undo).await?,
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
                let engine = self.engine()?;
                leased(self.client, engine.remove(&leftover)).await?;
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
                instances.iter_mut().filter(|known| known.id == named.id).for_each(|known| *known = named.clone());
            }
            Step::Create(replicas) => {
                let Candidate::New(first) = &self.candidate else {
                    return Err(Error::usage("there is nothing to create"));
                };
                let engine = self.engine()?;
                for replica in 1..=replicas {
                    self.context.interrupt.check()?;
                    let spec = InstanceSpec { replica, ..(**first).clone() };
                    let created = leased(self.client, engine.create(&spec)).await?;
                    undo.push(Undo::Remove(created.clone()));
                    instances.push(created);
                }
                self.start_all(instances, &format!(" from {}", first.image.reference)).await?;
            }
            Step::Start => {
                let idle = instances.iter().filter(|instance| !instance.running);
                undo.extend(idle.cloned().map(Undo::Stop));
                self.start_all(instances, "").await?;
            }
        }
        Ok(())
    }

    /// Starts instances side by side, and says so.
    pub(super) async fn start_all(&mut self, instances: &[Instance], from: &str) -> Result<(), Error> {
        let engine = self.engine()?;
        let starts = try_join_all(instances.iter().map(|instance| engine.start(instance)));
        leased(self.client, starts).await?;
        for instance in instances {
            self.context.ui.say(&format!("started {}{from}", instance.name));
        }
        Ok(())
    }

    async fn stage(&mut self, instances: &[Instance], undo: &mut Vec<Undo>) -> Result<Healthy, Error> {
        let endpoints = match &self.candidate {
            Candidate::Addresses(addresses) => addresses.clone(),
            _ if self.settings.no_port => Vec::new(),
            _ if instances.is_empty() => return Err(Error::usage("there is nothing to stage")),
            _ => instances.iter().map(|instance| instance.endpoint.clone()).collect(),
        };
        let stage = Stage {
            slot: Some(self.plan.slot),
            endpoints,
            no_endpoints: self.settings.no_port,
            health: self.settings.health.clone(),
            kept_headers: self.settings.kept_headers.clone(),
            settings: Some(self.settings.routes.clone()),
            image: self.work.image.clone(),
            deployment: Some(self.work.deployment.clone()),
            was_live: false,
            deadline: self.settings.deadline,
        };
        let events = self.client.stage(self.service, Match::Generation(self.generation), &stage).await?;
        undo.push(Undo::Clear(self.plan.slot));
        let required = self.settings.image_health == ImageHealth::Require;
        let wait = Wait {
            ui: self.context.ui,
            told: true,
            service: self.service,
            slot: self.plan.slot,
            engine: self.engine,
            instances,
            health_command: self.health_command.as_deref().filter(|_| required),
            alive: if self.settings.no_port && !(required && self.health_command.is_some()) {
                ALIVE.min(self.settings.deadline)
            } else {
                Duration::ZERO
            },
            interval: self.settings.health.interval,
            deadline: self.settings.deadline,
        };
        self.context.interrupt.beside(wait.until_healthy(self.client, events)).await?
    }

    /// Holds visitors and waits until the old version has answered all that it has.
    async fn hold_visitors(&mut self) -> Result<(), Error> {
        let drain = self.settings.drain;
        let wait = drain + PAUSE_SLACK;
        let pause = Pause { wait, lasts: wait, drain, ..Pause::default() };
        self.context.ui.say(&format!("holding visitors until the old version is idle, {} at most", format(drain)));
        let paused = self.client.pause(self.service, &pause).await?;
        if paused.in_flight > 0 {
            let message = format!("{} requests did not end within {}", paused.in_flight, format(drain));
            return Err(Error::new(Kind::NoFlip, message).hint("a longer --drain waits longer"));
        }
        Ok(())
    }

    /// Flips; where the answer is lost the proxy's status tells what happened.
    async fn flip(&mut self, generation: u64) -> Result<(Flipped, bool), Stopped> {
        let to = self.plan.slot;
        let Settings { drain, drain_tunnels, bake, margins, .. } = self.settings;
        let flip = Flip { to: Some(to), force: false, drain, drain_tunnels, bake, margins };
        match self.client.flip(self.service, Match::Generation(generation), &flip).await {
            Ok(flipped) => Ok((flipped, true)),
            Err(admin::Error::Refused(refusal)) => {
                let mut error = Error::from(refusal);
                if matches!(error.kind, Kind::Unhealthy) {
                    error.kind = Kind::NoFlip;
                }
                Err(error.into())
            }
            Err(lost) => match self.client.service(self.service).await {
                Ok(Some(service)) if service.live == Some(to) => {
                    let generation = service.generation;
                    let flipped = Flipped { live: to, old: self.plan.live, flip_micros: 0, in_flight: 0, generation };
                    Ok((flipped, false))
                }
                Ok(_) => Err(lost.into()),
                Err(_) => Err(Stopped { error: lost.into(), is_before: false }),
            },
        }
    }
}
