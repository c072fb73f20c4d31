//! The self-test of a live site: a second run of the live version in the idle slot, flips to it and back under traffic of our
//! own, and everything as it was before.

use std::time::Duration;

use config::admin::Event;
use config::admin::journal::Outcome;
use config::admin::request::{Flip, Stage};
use config::name::{ServiceName, Slot};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::execute::{Rollout, Stopped, Undo};
use super::lease::leased;
use super::report::Failure;
use super::settings::Settings;
use crate::admin::{Client, Match};
use crate::engine::{Instance, Restart};
use crate::error::{Error, ExitCode, Kind};
use crate::traffic::ended::Ended;
use crate::traffic::latency::Latency;
use crate::traffic::steady::{Seen, Steady, Visit};
use crate::traffic::{self, as_seconds};

/// The step of the journal by which whoever comes next knows that nothing new was to become live.
pub(crate) const STEP: &str = "verify";
/// Between two flips visitors come for so long, and so many of ours at least.
const INTERLUDE: (Duration, u32) = (Duration::from_millis(300), 5);
/// A slot that was left is waited for so long before the next flip: a WebSocket may stay on it for hours.
const IDLE_PATIENCE: Duration = Duration::from_secs(2);
/// So many failures are told one by one.
const SHOWN: usize = 20;

/// What is tried.
pub(crate) struct Trial {
    /// So many flips; where they are odd one more leads back.
    pub(crate) flips: u32,
    /// What our visitors ask.
    pub(crate) visit: Visit,
    /// How many of them come in a second.
    pub(crate) rps: u32,
    /// What is put into the idle slot again at the end, where a version was warm there.
    pub(crate) warm: Option<Stage>,
}

/// A flip, as it was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FlipSeen {
    live: Slot,
    flip_micros: u64,
    /// From the flip until the last request on the slot that was left had ended; null where one stayed longer.
    idle_millis: Option<f64>,
}

/// What it came to.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "report")]
pub(crate) struct Proof {
    service: ServiceName,
    image: Option<String>,
    live: Slot,
    flips: Vec<FlipSeen>,
    #[serde(serialize_with = "as_seconds")]
    seconds: Duration,
    requests: u64,
    failed: usize,
    failures: Vec<traffic::Failure>,
    connections: u64,
    connections_closed: u64,
    latency: Latency,
    /// What its drains ended of everybody's requests; null where the proxy was started anew meanwhile.
    #[serde(flatten)]
    others: Others,
    exit_code: u8,
}

/// What drains ended of everybody's requests.
#[derive(Debug, Clone, Copy, Serialize)]
struct Others {
    /// Requests and tunnels that were cut at the deadline.
    cut: Option<u64>,
    /// Tunnels and event streams that were closed there as they should be.
    closed: Option<u64>,
}

impl Proof {
    /// Returns 0, or 7 where a request failed or was cut, or where nobody can say that none was.
    pub(crate) fn exit(&self) -> ExitCode {
        if self.failed > 0 || self.others.cut != Some(0) { Kind::Lossy.exit_code() } else { ExitCode::DONE }
    }

    /// Returns the failures that are told one by one.
    pub(crate) fn failures(&self) -> &[traffic::Failure] {
        &self.failures
    }

    /// Returns the verdict in words.
    pub(crate) fn words(&self) -> Vec<String> {
        let Self { service, live, flips, seconds, requests, failed, connections, connections_closed, latency, .. } =
            self;
        let slowest = flips.iter().map(|flip| flip.flip_micros).max().unwrap_or(0);
        let idle: Vec<f64> = flips.iter().filter_map(|flip| flip.idle_millis).collect();
        let idle = match idle.iter().copied().reduce(f64::max) {
            Some(longest) if idle.len() == flips.len() => format!("; the old slot was idle within {longest:.1} ms"),
            _ => "; on an old slot someone stayed longer".to_owned(),
        };
        let others = match self.others {
            Others { cut: Some(cut), closed: Some(closed) } => {
                let hint = if cut > 0 { ": a longer drain (`switch --drain`) leaves them more time" } else { "" };
                format!("  others       {cut} cut and {closed} closed at the end of a drain{hint}")
            }
            _ => "  others       not known: the proxy was started anew meanwhile".to_owned(),
        };
        let verdict = if self.exit() == ExitCode::DONE { "nobody noticed" } else { "NOT what it should be" };
        let Latency { p50_millis, p99_millis, slowest_millis, .. } = latency;
        vec![
            format!("{service}: {} flips in {:.1} s, {live} is live as before", flips.len(), seconds.as_secs_f64()),
            format!("  flips        {slowest} us at most{idle}"),
            format!("  latency      p50 {p50_millis:.2} ms, p99 {p99_millis:.2} ms, slowest {slowest_millis:.2} ms"),
            format!("  connections  {connections} opened, {connections_closed} closed under a visitor"),
            others,
            format!("  requests     {requests}, {failed} failed: {verdict}"),
        ]
    }
}

impl Rollout<'_> {
    /// Flips to the candidate, which is the live version once more, and back; then takes it away.
    ///
    /// # Errors
    /// Where the candidate can't be staged or a flip is refused, and where a signal comes: everything is as it was before. Where
    /// the way home fails too, both versions run, the journal stays open, and the error says so.
    ///
    /// # Cancel safety
    /// Not to be dropped: it takes signals itself.
    pub(crate) async fn verify(mut self, trial: Trial) -> Result<Proof, Error> {
        let home = self.plan.slot.other();
        let before = self.ended().await?;
        self.begin().await?;
        let began = Instant::now();
        let traffic = Steady::start(trial.visit, trial.rps);
        let (mut undo, mut flips) = (Vec::new(), Vec::new());
        let pause = INTERLUDE.0.max(Duration::from_secs(1) * INTERLUDE.1 / trial.rps.max(1));
        let tried = match self.put_beside(&mut undo).await {
            Ok(()) => self.flip_about(trial.flips, pause, (&traffic, before), &mut flips).await,
            Err(error) => Err(error),
        };
        self.go_home(home).await?;
        if let Err(error) = tried {
            let log = self.log_of(&undo).await;
            let error = self.take_back(undo, error).await;
            self.stage_again(trial.warm).await;
            self.end(Outcome::Undone, Failure::of(self.service, &error).value(), log).await;
            return Err(error);
        }
        self.clear_up(undo).await;
        self.stage_again(trial.warm).await;
        let seen = traffic.finish().await;
        // Each slot that was left is idle by now, or what was on it has had its deadline.
        let others = self.ended().await.ok().and_then(|now| now.since(before));
        let proof = self.proof(home, flips, began.elapsed(), (seen, others));
        self.end(Outcome::Done, serde_json::to_value(&proof).expect("our own types are JSON"), None).await;
        Ok(proof)
    }

    /// Puts the live version into the idle slot once more.
    async fn put_beside(&mut self, undo: &mut Vec<Undo>) -> Result<(), Error> {
        self.begun(STEP).await?;
        self.before_flip(undo).await.map(drop).map_err(|Stopped { error, .. }| error)?;
        let copies = self.engine()?.instances(Some(self.service)).await?;
        let copies: Vec<_> = copies.into_iter().filter(|copy| copy.deployment == self.work.deployment).collect();
        // A reboot between two flips must bring back whichever is live.
        self.set_restarts(&copies, Restart::Always).await;
        Ok(())
    }

    async fn flip_about(
        &mut self,
        flips: u32,
        pause: Duration,
        (traffic, before): (&Steady, Ended),
        seen: &mut Vec<FlipSeen>,
    ) -> Result<(), Error> {
        let interrupt = self.context.interrupt.clone();
        self.begun("flip").await?;
        for number in 1..=flips.next_multiple_of(2) {
            interrupt.beside(leased(self.client, tokio::time::sleep(pause))).await?;
            if number % 2 == 1 {
                let is_harmless = self.ended().await?.since(before).is_some_and(|ended| ended.cut == 0);
                if !traffic.seen().failures.is_empty() || !is_harmless {
                    // There is nothing more to prove, and visitors to be spared.
                    break;
                }
            }
            let to = if number % 2 == 1 { self.plan.slot } else { self.plan.slot.other() };
            let flip = interrupt.beside(self.one_flip(to)).await??;
            let (requests, failed) = {
                let seen = traffic.seen();
                (seen.requests, seen.failures.len())
            };
            let idle = flip.idle_millis.map_or("is not idle yet".to_owned(), |idle| format!("idle after {idle:.1} ms"));
            let FlipSeen { flip_micros, .. } = flip;
            self.context.ui.say(&format!(
                "flip {number}: {to} is live ({flip_micros} us), {} {idle}; {requests} requests, {failed} failed",
                to.other()
            ));
            seen.push(flip);
        }
        interrupt.beside(leased(self.client, tokio::time::sleep(pause))).await?;
        self.done("flip").await
    }

    /// Returns what drains have ended of the service's requests so far.
    async fn ended(&mut self) -> Result<Ended, Error> {
        let text = self.client.metrics().await?;
        let ended = Ended::of(self.service, &text);
        ended.ok_or_else(|| Error::new(Kind::NoProxy, "the proxy's metrics do not say when it started"))
    }

    /// Flips, and waits a while for the last request on the slot that was left.
    async fn one_flip(&mut self, to: Slot) -> Result<FlipSeen, Error> {
        let (drain, drain_tunnels) = (self.settings.drain, self.settings.drain_tunnels);
        let flip = Flip { to: Some(to), drain, drain_tunnels, ..Flip::default() };
        let flipped = self.client.flip(self.service, Match::Any, &flip).await.map_err(|error| {
            let mut error = Error::from(error);
            if error.kind == Kind::Unhealthy {
                error.kind = Kind::NoFlip;
            }
            error
        })?;
        self.context.ui.event(&Event::Flipped {
            service: self.service.clone(),
            live: flipped.live,
            old: flipped.old,
            flip_micros: flipped.flip_micros,
        });
        let idle = timeout(IDLE_PATIENCE, self.drained(to.other())).await;
        let idle_millis = match idle {
            Ok(idle) => Some(idle?.1 * 1000.0),
            // It goes on draining, and is flipped back to as it is.
            Err(_) => None,
        };
        Ok(FlipSeen { live: to, flip_micros: flipped.flip_micros, idle_millis })
    }

    /// Makes the slot live that was live before, and waits until nothing is in flight on the other one. A second signal leaves at
    /// once.
    async fn go_home(&mut self, home: Slot) -> Result<(), Error> {
        let interrupt = self.context.interrupt.clone();
        let way = async {
            let live = self.client.service(self.service).await?.and_then(|service| service.live);
            if live != Some(home) {
                self.one_flip(home).await?;
            }
            self.drained(home.other()).await.map(drop)
        };
        let gone = tokio::select! {
            biased;
            signal = interrupt.second() => Err(Error::interrupted(signal)),
            gone = way => gone,
        };
        gone.map_err(|error| {
            error
                .hint("both runs of the version are there, and whichever is live serves")
                .hint(format!("the next run leads home, or: {}", self.context.line("recover", self.service)))
        })
    }

    /// Takes the second run away; what can't be done is told.
    async fn clear_up(&mut self, undo: Vec<Undo>) {
        let made = undo.iter().filter_map(|step| match step {
            Undo::Remove(instance) => Some(instance.clone()),
            Undo::Clear(_) | Undo::Stop(_) | Undo::Name(..) | Undo::Resume | Undo::Revive(_) => None,
        });
        let made: Vec<_> = made.collect();
        self.set_restarts(&made, Restart::No).await;
        let interrupt = self.context.interrupt.clone();
        let clearing = async {
            if let Err(error) = self.clear(self.plan.slot).await {
                self.context.ui.warn(&format!("{} is not cleared in the proxy: {error}", self.plan.slot));
            }
            for instance in &made {
                // It was live: it may end as it would at any other time.
                if let Err(error) = self.stop(instance).await {
                    self.context.ui.detail(&format!("{} did not stop: {error}", instance.name));
                }
            }
            self.undo_all(undo).await
        };
        let left = tokio::select! {
            biased;
            _ = interrupt.second() => vec!["left at once; the next run removes what is left".to_owned()],
            left = clearing => left,
        };
        left.iter().for_each(|line| self.context.ui.warn(line));
    }

    /// Puts the version that was warm in the idle slot there again: it is probed, and can be gone back to.
    async fn stage_again(&mut self, warm: Option<Stage>) {
        let Some(stage) = warm else { return };
        if let Err(error) = put_back(self.client, self.service, &stage).await {
            self.context.ui.warn(&format!("what was warm on {} is not there again: {error}", self.plan.slot));
        }
    }

    fn proof(
        &self,
        live: Slot,
        flips: Vec<FlipSeen>,
        seconds: Duration,
        (seen, ended): (Seen, Option<Ended>),
    ) -> Proof {
        let Seen { requests, mut failures, connections, closed, took } = seen;
        let failed = failures.len();
        failures.truncate(SHOWN);
        let mut proof = Proof {
            service: self.service.clone(),
            image: self.work.image.clone(),
            live,
            flips,
            seconds,
            requests,
            failed,
            failures,
            connections,
            connections_closed: closed,
            latency: Latency::of(took),
            others: Others { cut: ended.map(|ended| ended.cut), closed: ended.map(|ended| ended.closed) },
            exit_code: 0,
        };
        proof.exit_code = proof.exit().0;
        proof
    }
}

/// Returns how a version that took requests is put into a slot again, from what is known of the instances that run it.
pub(crate) fn warm_again(slot: Slot, instances: &[&Instance]) -> Option<Stage> {
    let first = instances.first()?;
    let settings = Settings::of(first);
    Some(Stage {
        slot: Some(slot),
        endpoints: instances.iter().map(|instance| instance.endpoint.clone()).collect(),
        health: settings.health,
        kept_headers: settings.kept_headers,
        image: Some(first.image.clone()),
        deployment: Some(first.deployment.clone()),
        was_live: true,
        ..Stage::default()
    })
}

/// Puts a version that took requests into its slot again, and waits until it is healthy: from then on it is warm.
///
/// # Errors
/// Those of the proxy, and that it is not healthy in time; it is still probed then.
pub(crate) async fn put_back(client: &mut Client, service: &ServiceName, stage: &Stage) -> Result<(), Error> {
    let mut events = client.stage(service, Match::Any, stage).await?;
    while let Some(event) = events.next().await? {
        if let Event::Error(refusal) = event {
            return Err(refusal.into());
        }
    }
    Ok(())
}
