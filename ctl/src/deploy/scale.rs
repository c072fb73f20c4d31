//! More replicas of the live slot, or fewer: those that stay serve all the time, and what fails is undone.

use std::time::Duration;

use config::admin::Event;
use config::admin::journal::{Journal, Outcome, StepState, Work};
use config::admin::request::Endpoints;
use config::name::{EndpointAddr, ServiceName, Slot};
use futures_util::future::{join_all, try_join_all};
use serde::Serialize;

use super::lease::leased;
use super::report::Failure;
use super::settings::Settings;
use super::wait::Wait;
use crate::admin::{Client, Match};
use crate::context::Context;
use crate::engine::{Engine, Instance, InstanceSpec, LogRange, Restart};
use crate::error::{Error, ExitCode, Kind};

/// Lines of the log of a replica that failed which are kept.
const LOG_LINES: usize = 1000;

/// What is under way on replicas that are taken back may take so long.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The numbers of those to create.
    pub more: Vec<u32>,
    /// Those that stay, of which the ones that died are started again.
    pub stay: Vec<Instance>,
    /// Those that go: the last ones.
    pub fewer: Vec<Instance>,
}

/// Plans the way from the instances of the live slot, in the order of their numbers, to so many.
pub fn plan(mut present: Vec<Instance>, wanted: u32) -> Plan {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).max(1);
    let fewer = present.split_off(wanted.min(present.len()));
    let last = present.last().map_or(0, |instance| instance.replica);
    let missing = u32::try_from(wanted - present.len()).unwrap_or(u32::MAX);
    Plan { more: (last + 1..=last.saturating_add(missing)).collect(), stay: present, fewer }
}

/// A change of the number of replicas under way, under the service's lease.
pub struct Scaling<'a> {
    /// Options, printer, signals.
    pub context: &'a Context<'a>,
    /// The proxy.
    pub client: &'a mut Client,
    /// The engine.
    pub engine: &'a Engine,
    /// The service.
    pub service: &'a ServiceName,
    /// Its generation at the time of the plan.
    pub generation: u64,
    /// What is to be done.
    pub plan: Plan,
    /// The endpoints of the live slot now.
    pub endpoints: Vec<EndpointAddr>,
    /// What its instances are run with.
    pub settings: Settings,
    /// What a new one is made like; its number apart.
    pub spec: InstanceSpec,
    /// What is done, as the journal tells it.
    pub work: Work,
}

/// What it came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scaled {
    /// The service.
    pub service: ServiceName,
    /// Its live slot.
    pub slot: Slot,
    /// How many replicas that has now.
    pub replicas: usize,
    /// How many it had before.
    pub before: usize,
    /// Requests that were under way on one that was stopped, when their time was over.
    pub in_flight: u64,
    /// The code that the program ends with.
    pub exit_code: u8,
}

/// Returns a number of replicas in words.
fn count(replicas: usize) -> String {
    if replicas == 1 { "1 replica".to_owned() } else { format!("{replicas} replicas") }
}

impl Scaled {
    /// Returns what was done in a sentence.
    pub fn sentence(&self) -> String {
        let before =
            if self.before == self.replicas { "as before".to_owned() } else { format!("{} before", self.before) };
        format!("SCALED: {} serves with {} on {}, {before}", self.service, count(self.replicas), self.slot)
    }

    /// Says what was cut off, where something was.
    pub fn cut(&self) -> Option<String> {
        let requests =
            if self.in_flight == 1 { "1 request".to_owned() } else { format!("{} requests", self.in_flight) };
        (self.in_flight > 0).then(|| {
            format!("{requests} had no answer within --drain on the replicas that were stopped, and were cut off; those that stay serve")
        })
    }

    /// Returns the exit code: requests that were cut are never plain success.
    pub fn exit(&self) -> ExitCode {
        if self.in_flight > 0 { Kind::Lossy.exit_code() } else { ExitCode::DONE }
    }
}

impl Scaling<'_> {
    /// Does what is planned.
    ///
    /// # Errors
    /// Where a new replica can't be made or does not become healthy, and where a signal comes: then all is as it was before.
    ///
    /// # Cancel safety
    /// Not to be dropped: it takes signals itself.
    pub async fn run(mut self) -> Result<Scaled, Error> {
        self.client.journal(self.service, &Journal::Begin { work: self.work.clone() }).await?;
        let mut made = Vec::new();
        let in_flight = match self.change(&mut made).await {
            Ok(in_flight) => in_flight,
            Err(error) => {
                let log = self.log_of(&made).await;
                let error = self.take_back(made, error).await;
                self.end(Outcome::Undone, Failure::of(self.service, &error).value(), log).await;
                return Err(error);
            }
        };
        let before = self.plan.stay.len() + self.plan.fewer.len();
        let replicas = self.plan.stay.len() + self.plan.more.len();
        let (service, slot) = (self.service.clone(), self.work.slot);
        let mut scaled = Scaled { service, slot, replicas, before, in_flight, exit_code: 0 };
        scaled.exit_code = scaled.exit().0;
        self.put_away(&made).await;
        self.end(Outcome::Done, serde_json::to_value(&scaled).expect("our own types are JSON"), None).await;
        Ok(scaled)
    }

    /// Does all that can be undone; returns how many requests are left on what was taken out.
    async fn change(&mut self, made: &mut Vec<Instance>) -> Result<u64, Error> {
        let dead: Vec<Instance> = self.plan.stay.iter().filter(|instance| !instance.running).cloned().collect();
        if !self.plan.more.is_empty() || !dead.is_empty() {
            self.note("create", StepState::Begun).await?;
            for replica in self.plan.more.clone() {
                self.context.interrupt.check()?;
                let spec = InstanceSpec { replica, ..self.spec.clone() };
                made.push(leased(self.client, self.engine.create(&spec)).await?);
            }
            let started: Vec<Instance> = made.iter().chain(&dead).cloned().collect();
            let engine = self.engine;
            leased(self.client, try_join_all(started.iter().map(|instance| engine.start(instance)))).await?;
            started.iter().for_each(|instance| self.context.ui.say(&format!("started {}", instance.name)));
            self.note("create", StepState::Done).await?;
        }
        self.context.interrupt.check()?;
        let gone = |address: &EndpointAddr| self.plan.fewer.iter().any(|instance| instance.endpoint == *address);
        let mut wanted: Vec<EndpointAddr> = self.endpoints.iter().filter(|address| !gone(address)).cloned().collect();
        wanted.extend(made.iter().map(|instance| instance.endpoint.clone()));
        self.note("endpoints", StepState::Begun).await?;
        let in_flight = self.set_endpoints(wanted, made).await?;
        self.note("endpoints", StepState::Done).await?;
        Ok(in_flight)
    }

    /// Gives the live slot its endpoints, and waits until they are healthy and those that were taken out have nothing to do.
    async fn set_endpoints(&mut self, wanted: Vec<EndpointAddr>, made: &[Instance]) -> Result<u64, Error> {
        let Settings { drain, deadline, .. } = self.settings;
        let wanted = Endpoints { endpoints: wanted, drain, deadline };
        let mut events = self.client.endpoints(self.service, Match::Generation(self.generation), &wanted).await?;
        if made.is_empty() {
            let interrupt = self.context.interrupt.clone();
            let followed = interrupt.beside(async {
                while let Some(event) = events.next().await? {
                    match event {
                        Event::Draining { in_flight, .. } => {
                            self.context
                                .ui
                                .progress(&format!("{in_flight} requests in flight on the replicas that go"));
                        }
                        Event::Endpoints { in_flight, .. } => return Ok(in_flight),
                        Event::Error(refusal) => return Err(refusal.into()),
                        _ => {}
                    }
                }
                Err(Error::new(Kind::NoProxy, "the proxy ended the change without a verdict"))
            });
            return followed.await?;
        }
        let command = self.spec.image.health_command.clone();
        let required = self.settings.image_health == super::settings::ImageHealth::Require;
        let wait = Wait {
            ui: self.context.ui,
            told: false,
            service: self.service,
            slot: self.work.slot,
            engine: Some(self.engine),
            instances: made,
            health_command: command.as_deref().filter(|_| required),
            alive: Duration::ZERO,
            interval: self.settings.health.interval,
            deadline,
        };
        self.context.interrupt.beside(wait.until_healthy(self.client, events)).await??;
        Ok(0)
    }

    /// Sets restart policies, and stops and removes what was taken out; what fails is a warning.
    async fn put_away(&mut self, made: &[Instance]) {
        let (ui, engine, grace) = (self.context.ui, self.engine, self.settings.stop_grace);
        for instance in made {
            if let Err(error) = engine.set_restart(instance, Restart::Always).await {
                ui.warn(&format!("the restart policy of {} is not set: {error}", instance.name));
            }
        }
        if self.plan.fewer.is_empty() {
            return;
        }
        if let Err(error) = self.note("put_away", StepState::Begun).await {
            ui.warn(&format!("put_away is not noted in the journal: {error}"));
        }
        let put_away = async |instance: &Instance| {
            engine.set_restart(instance, Restart::No).await?;
            engine.stop(instance, grace).await?;
            engine.remove(instance).await
        };
        let ended = leased(self.client, join_all(self.plan.fewer.iter().map(put_away))).await;
        for (instance, ended) in self.plan.fewer.iter().zip(ended) {
            match ended {
                Ok(()) => ui.say(&format!("stopped and removed {}", instance.name)),
                Err(error) => ui.warn(&format!("{} is not removed: {error}", instance.name)),
            }
        }
    }

    /// Gives the live slot its endpoints back, and removes what was made. A second signal leaves at once.
    async fn take_back(&mut self, made: Vec<Instance>, mut error: Error) -> Error {
        let interrupt = self.context.interrupt.clone();
        let undo = async {
            let mut left = Vec::new();
            if let Err(error) = self.give_back().await {
                left.push(format!("could not give the live slot its endpoints back: {error}"));
            }
            for instance in made {
                if let Err(error) = leased(self.client, self.engine.remove(&instance)).await {
                    left.push(format!("could not remove {}: {error}", instance.name));
                }
            }
            left
        };
        let left = tokio::select! {
            biased;
            _ = interrupt.second() => vec!["left at once; the next run removes what is left".to_owned()],
            left = undo => left,
        };
        error.hints.splice(0..0, left);
        let replicas = self.plan.stay.len() + self.plan.fewer.len();
        error.hint(format!("traffic still on {}, with {} as before", self.work.slot, count(replicas)))
    }

    async fn give_back(&mut self) -> Result<(), Error> {
        let service = self.client.service(self.service).await?;
        let is_same = service.is_some_and(|service| {
            let present = &service.slots.get(self.work.slot).endpoints;
            service.live != Some(self.work.slot) || present.iter().map(|known| &known.address).eq(&self.endpoints)
        });
        if is_same {
            return Ok(());
        }
        set(self.client, self.service, self.endpoints.clone()).await
    }

    /// Returns the end of the logs of replicas that are about to be removed.
    async fn log_of(&self, made: &[Instance]) -> Option<String> {
        let mut logs = String::new();
        for instance in made {
            logs.push_str(&format!("== {}\n", instance.name));
            let range = LogRange { tail: Some(LOG_LINES), follow: false };
            let mut keep = |line: &str| {
                logs.push_str(line);
                logs.push('\n');
            };
            // What can't be read can't be kept; the failure itself has been told.
            self.engine.logs(instance, range, &mut keep).await.ok()?;
        }
        Some(logs).filter(|logs| !logs.is_empty())
    }

    async fn note(&mut self, step: &str, state: StepState) -> Result<(), Error> {
        let line = Journal::Step { id: self.work.id.clone(), step: step.to_owned(), state };
        Ok(self.client.journal(self.service, &line).await?)
    }

    async fn end(&mut self, outcome: Outcome, report: serde_json::Value, log: Option<String>) {
        let line = Journal::End { id: self.work.id.clone(), outcome, report: Box::new(report), log };
        if let Err(error) = self.client.journal(self.service, &line).await {
            self.context.ui.warn(&format!("the end of this run is not noted in the journal: {error}"));
        }
    }
}

/// Gives a live slot endpoints that it had before, and those that are left a moment for what is under way.
pub(super) async fn set(client: &mut Client, service: &ServiceName, endpoints: Vec<EndpointAddr>) -> Result<(), Error> {
    let wanted = Endpoints { endpoints, drain: LAST_WORDS, deadline: LAST_WORDS };
    let mut events = client.endpoints(service, Match::Any, &wanted).await?;
    // How they do is for the next run to find out.
    while events.next().await?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::RunSettings;

    fn present(numbers: &[u32]) -> Vec<Instance> {
        let instance = |number: &u32| Instance {
            id: number.to_string(),
            name: format!("shop_BLUE_{number}"),
            service: "shop".parse().unwrap(),
            slot: Slot::Blue,
            replica: *number,
            kept: false,
            running: true,
            endpoint: format!("shop_BLUE_{number}:80").parse().unwrap(),
            deployment: "d".to_owned(),
            image: "shop:1".to_owned(),
            image_id: "x".to_owned(),
            run: RunSettings::default(),
            notes: Vec::new(),
            created: String::new(),
        };
        numbers.iter().map(instance).collect()
    }

    #[test]
    fn it_says_how_many_serve_and_what_was_cut_off() {
        let service: ServiceName = "shop".parse().unwrap();
        let mut scaled = Scaled { service, slot: Slot::Blue, replicas: 3, before: 1, in_flight: 0, exit_code: 0 };
        assert_eq!(scaled.sentence(), "SCALED: shop serves with 3 replicas on BLUE, 1 before");
        assert_eq!((scaled.cut(), scaled.exit()), (None, ExitCode::DONE));
        (scaled.replicas, scaled.in_flight) = (1, 1);
        assert_eq!(scaled.sentence(), "SCALED: shop serves with 1 replica on BLUE, as before");
        assert!(scaled.cut().unwrap().starts_with("1 request had no answer within --drain"), "{:?}", scaled.cut());
        assert_eq!(scaled.exit(), ExitCode(7));
    }

    fn planned(numbers: &[u32], wanted: u32) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
        let Plan { more, stay, fewer } = plan(present(numbers), wanted);
        let of = |instances: Vec<Instance>| instances.into_iter().map(|instance| instance.replica).collect();
        (more, of(stay), of(fewer))
    }

    #[test]
    fn new_replicas_come_behind_the_last_one_and_the_last_ones_go() {
        assert_eq!(planned(&[1], 3), (vec![2, 3], vec![1], vec![]));
        assert_eq!(planned(&[1, 2, 3], 1), (vec![], vec![1], vec![2, 3]));
        assert_eq!(planned(&[1, 2], 2), (vec![], vec![1, 2], vec![]));
        // One that somebody removed by hand leaves a gap, since the others keep their places in the proxy.
        assert_eq!(planned(&[1, 3], 3), (vec![4], vec![1, 3], vec![]));
        assert_eq!(planned(&[1, 3], 1), (vec![], vec![1], vec![3]));
        assert_eq!(planned(&[1, 2], 0), (vec![], vec![1], vec![2]), "never below one");
    }
}
