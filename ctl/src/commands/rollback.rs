//! `bgctl rollback`: back to the previous deployment, the quickest way that is left.

use std::time::Duration;

use ::config::admin::journal::{self, Entry, Work};
use ::config::admin::response::ServiceStatus;
use ::config::name::ServiceName;
use ::config::project::Hooks;
use clap::Args;

use super::known;
use crate::admin::Client;
use crate::commands::options::Run;
use crate::commands::order::{Company, Lock, Order, deployment_id, finish, image_of, lock, switch, try_switch};
use crate::context::{Context, who};
use crate::deploy::execute::{Candidate, Rollout};
use crate::deploy::plan::{self, Back, Plan, Situation};
use crate::deploy::recover::{Aim, Finder};
use crate::deploy::report::Report;
use crate::deploy::settings::Settings;
use crate::deploy::verify;
use crate::engine::{Engine, EngineError, Instance, Pull};
use crate::error::{Error, ExitCode, Kind};

/// Back to the previous deployment
#[derive(Debug, Clone, Args)]
pub struct Rollback {
    /// The service
    service: ServiceName,
    /// An earlier deployment or image
    #[arg(long, value_name = "ID|IMAGE")]
    to: Option<String>,
    /// Hold visitors around the flip, for versions that can't serve side by side
    #[arg(long)]
    pause: bool,
    /// Wait so long while someone else holds the lock
    #[arg(long, value_name = "TIME", value_parser = ::config::duration::parse, default_value = "0s")]
    lock_wait: Duration,
    /// Without the services that became live together with it
    #[arg(long)]
    alone: bool,
}

/// What a rollback came to.
enum Outcome {
    Done(Box<Report>),
    /// Only the image is known: it takes a switch.
    Image(String),
}

impl Rollback {
    /// Returns the rollback of a service to its previous deployment.
    pub(crate) fn of(service: ServiceName, lock_wait: Duration) -> Self {
        Self { service, to: None, pause: false, lock_wait, alone: true }
    }

    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }

    pub(crate) fn lock_wait(&self) -> Duration {
        self.lock_wait
    }

    /// Returns the rollbacks of the services that became live together with this one and are live since. One that was switched by
    /// itself since then, or has nothing to go back to, stays, which is said.
    ///
    /// # Errors
    /// As of every call.
    pub(crate) async fn company(&self, context: &Context<'_>) -> Result<Vec<Self>, Error> {
        if self.alone {
            return Ok(Vec::new());
        }
        let mut client = context.admin().await?;
        let service = known(&mut client, &self.service).await?;
        let Some(deployment) = live_deployment(&service) else { return Ok(Vec::new()) };
        let with = with_of(&mut client, &self.service, &deployment).await?;
        if with.is_empty() {
            return Ok(Vec::new());
        }
        let to = match &self.to {
            Some(to) => Some(find(&mut client, &self.service, to).await?.deployment),
            None => None,
        };
        let engine = context.slots_engine().await?.map(|engine| &**engine);
        let mut company = Vec::new();
        for name in with {
            let Some(service) = client.service(&name).await? else { continue };
            let instances = match engine {
                Some(engine) => engine.instances(Some(&name)).await?,
                None => Vec::new(),
            };
            let situation = Situation { service: Some(&service), instances: &instances };
            let stays = match &to {
                _ if live_deployment(&service).as_ref() != Some(&deployment) => Some("it was switched by itself since"),
                Some(to) if find(&mut client, &name, to).await.is_err() => Some("it never had that deployment"),
                None if matches!(plan::rollback(&situation), Back::Nowhere) => Some("it has nothing to go back to"),
                Some(_) | None => None,
            };
            match stays {
                Some(why) => context.ui.say(&format!("{name} stays as it is: {why}")),
                None => company.push(Self { to: to.clone(), ..Self::of(name, self.lock_wait) }),
            }
        }
        Ok(company)
    }

    /// Goes back, and leaves the report to who runs several.
    ///
    /// # Errors
    /// As of [`Rollback::run`].
    pub(crate) async fn try_run(self, context: &Context<'_>) -> Result<Option<Report>, Error> {
        let service = self.service.clone();
        match self.go_back(context).await? {
            Outcome::Done(report) => Ok(Some(*report)),
            Outcome::Image(image) => {
                // What is there once, the file's [proxy] table, has no part in going back.
                let company = Company { follows: true, ..Company::default() };
                try_switch(context, Order { company, ..to_image(context, service, image) }).await
            }
        }
    }

    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let service = self.service.clone();
        match self.go_back(context).await {
            Ok(Outcome::Done(report)) => finish(context, &service, Ok(Some(*report))),
            Ok(Outcome::Image(image)) => {
                let order = to_image(context, service, image);
                switch(context, order).await
            }
            Err(error) => finish(context, &service, Err(error)),
        }
    }

    async fn go_back(self, context: &Context<'_>) -> Result<Outcome, Error> {
        let name = self.service;
        context.say_target(&format!("roll back {name}")).await?;
        let mut client = context.interrupt.beside(context.admin()).await??;
        known(&mut client, &name).await?;
        lock(context, &mut client, Lock { name: &name, what: "rollback".to_owned(), wait: self.lock_wait }).await?;
        let outcome = async {
            let engine = context.slots_engine().await?.map(|engine| &**engine);
            Finder { context, client: &mut client, engine, service: &name }.settle(Aim::Back).await?;
            let wanted = match &self.to {
                Some(to) => Some(find(&mut client, &name, to).await?),
                None => None,
            };
            let service = known(&mut client, &name).await?;
            let instances = match engine {
                Some(engine) => engine.instances(Some(&name)).await?,
                None => Vec::new(),
            };
            let situation = Situation { service: Some(&service), instances: &instances };
            let back = plan::rollback(&situation);
            if let Some(wanted) = wanted.filter(|wanted| !leads_to(&back, &service, &wanted.deployment)) {
                return image(engine, &wanted).await.map(Outcome::Image);
            }
            let (plan, previous) = match back {
                Back::Flip(plan) => (plan, Vec::new()),
                Back::Revive(plan, previous) => (plan, previous),
                Back::Image(image) => return Ok(Outcome::Image(image)),
                Back::Nowhere => {
                    let error = Error::new(Kind::NoFlip, format!("{name} has nothing to go back to"));
                    return Err(match situation.live() {
                        Some(live) => error.hint(format!("traffic still on {live}")),
                        None => error,
                    });
                }
            };
            if let Some(before) = plan.old.first().and_then(|live| Settings::of(live).before) {
                context.ui.say(&format!("what `{before}` changed stays changed: a rollback undoes no migration"));
            }
            let warm = service.slots.get(plan.slot);
            let deployment = previous
                .first()
                .map(|previous| previous.deployment.clone())
                .or_else(|| warm.deployment.clone())
                .unwrap_or_else(deployment_id);
            // What went with it when it was new goes with it again.
            let with = with_of(&mut client, &name, &deployment).await?;
            let settings = settings(&situation, &plan, previous.first());
            let image = warm.image.clone().filter(|_| previous.is_empty()).or_else(|| image_of(previous.first()));
            let rollout = Rollout {
                pause: self.pause,
                context,
                engine,
                service: &name,
                generation: service.generation,
                work: Work {
                    id: deployment_id(),
                    deployment,
                    what: match &image {
                        Some(image) => format!("rollback to {image}"),
                        None => "rollback".to_owned(),
                    },
                    who: who(),
                    note: None,
                    slot: plan.slot,
                    image_id: previous.first().map(|previous| previous.image_id.clone()),
                    image,
                    revision: None,
                    old_image: service.slots.get(plan.slot.other()).image.clone(),
                    with,
                    scale: None,
                },
                candidate: if previous.is_empty() {
                    Candidate::Warm(service.generation, situation.occupants(plan.slot))
                } else {
                    Candidate::Existing(previous)
                },
                detach: false,
                no_flip: false,
                hooks: Hooks::default(),
                // It passed when it went live before.
                health_command: None,
                client: &mut client,
                plan,
                settings,
            };
            let report = rollout.run().await?;
            let unflipped = || Error::new(Kind::NoFlip, "nothing was flipped");
            report.map(|report| Outcome::Done(Box::new(report))).ok_or_else(unflipped)
        }
        .await;
        // A lease that can't be given back ends by itself.
        let _gone = client.release().await;
        outcome
    }
}

/// Returns the switch to an image whose container is gone.
fn to_image(context: &Context<'_>, service: ServiceName, image: String) -> Order {
    context.ui.say(&format!("its instance is gone; switching to its image {image}"));
    let (company, options) = (Company::default(), Run::default());
    Order { service, image: Some(image), is_pushed: false, company, options }
}

/// Returns the deployment that is live.
fn live_deployment(service: &ServiceStatus) -> Option<String> {
    service.slots.get(service.live?).deployment.clone()
}

/// Returns the services that became live together with a deployment of one.
async fn with_of(client: &mut Client, name: &ServiceName, deployment: &str) -> Result<Vec<ServiceName>, Error> {
    let history = client.history(name).await?;
    let entries = history.into_iter().flat_map(|history| history.entries);
    let of_it = |entry: &Entry| entry.work.deployment == deployment && !entry.work.with.is_empty();
    Ok(entries.into_iter().find(of_it).map(|entry| entry.work.with).unwrap_or_default())
}

/// Tells whether the quickest way back leads to a deployment.
fn leads_to(back: &Back, service: &ServiceStatus, deployment: &str) -> bool {
    match back {
        Back::Flip(plan) => service.slots.get(plan.slot).deployment.as_deref() == Some(deployment),
        Back::Revive(_, previous) => previous.iter().any(|instance| instance.deployment == deployment),
        Back::Image(_) | Back::Nowhere => false,
    }
}

/// Finds an earlier deployment in the history, by its id, the beginning of that, or its image.
async fn find(client: &mut Client, name: &ServiceName, to: &str) -> Result<Work, Error> {
    let history = client.history(name).await?;
    let entries = history.map(|history| history.entries).unwrap_or_default();
    // A self-test made nothing live.
    let done = |entry: &Entry| entry.outcome == Some(journal::Outcome::Done) && !entry.has_begun(verify::STEP);
    let is_it = |work: &Work| work.deployment.starts_with(to) || work.image.as_deref() == Some(to);
    let found = entries.into_iter().find(|entry| done(entry) && is_it(&entry.work)).map(|entry| entry.work);
    found.ok_or_else(|| {
        Error::new(Kind::NoFlip, format!("{name} never had a deployment or image `{to}`"))
            .hint(format!("`bgctl history {name}` lists those that it had"))
    })
}

/// Returns the image of a deployment as the engine has it: by its name while that is still the same image, else by its id.
async fn image(engine: Option<&Engine>, work: &Work) -> Result<String, Error> {
    let Work { deployment, image, image_id, .. } = work;
    let gone = || {
        let image = image.as_deref().unwrap_or("unknown");
        Error::new(Kind::Refused, format!("the image of {deployment} ({image}) is not there any more"))
    };
    let engine = engine.ok_or_else(gone)?;
    let mut kept = None;
    for reference in [image, image_id].into_iter().flatten() {
        match engine.image(reference, Pull::Never).await {
            Ok(found) if image_id.as_ref().is_none_or(|id| *id == found.id) => {
                kept = Some(reference.clone());
                break;
            }
            Ok(_) | Err(EngineError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    kept.ok_or_else(gone)
}

/// The previous version runs with what it was deployed with; nobody watches the version that was just left.
fn settings(situation: &Situation<'_>, plan: &Plan, previous: Option<&Instance>) -> Settings {
    let previous = previous.or_else(|| situation.occupant(plan.slot));
    let mut settings = previous.map_or_else(|| situation.settings(), Settings::of);
    settings.bake = Duration::ZERO;
    settings
}
