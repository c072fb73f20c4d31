//! `bgctl rollback`: back to the previous deployment, the quickest way that is left.

use std::time::Duration;

use ::config::name::ServiceName;
use clap::Args;

use super::known;
use crate::commands::options::Run;
use crate::commands::switch::{Lock, Order, deployment_id, finish, image_of, lock, switch};
use crate::context::Context;
use crate::deploy::execute::{Candidate, Rollout};
use crate::deploy::plan::{self, Back, Plan, Situation};
use crate::deploy::report::Report;
use crate::deploy::settings::Settings;
use crate::engine::Instance;
use crate::error::{Error, ExitCode, Kind};

/// Back to the previous deployment
#[derive(Debug, Args)]
pub struct Rollback {
    /// The service
    service: ServiceName,
    /// An earlier deployment or image
    #[arg(long, value_name = "ID|IMAGE")]
    to: Option<String>,
    /// Wait so long while someone else holds the lock
    #[arg(long, value_name = "TIME", value_parser = ::config::duration::parse, default_value = "0s")]
    lock_wait: Duration,
}

/// What a rollback came to.
enum Outcome {
    Done(Box<Report>),
    /// Only the image is known: it takes a switch.
    Image(String),
}

impl Rollback {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        if self.to.is_some() {
            return Err(Error::not_there_yet("bgctl rollback --to"));
        }
        let service = self.service.clone();
        match self.go_back(context).await {
            Ok(Outcome::Done(report)) => finish(context, &service, Ok(Some(*report))),
            Ok(Outcome::Image(image)) => {
                context.ui.say(&format!("the previous container is gone; switching to its image {image}"));
                let options = Run { pull: "missing".to_owned(), ..Run::default() };
                switch(context, Order { service, image: Some(image), options }).await
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
            let service = known(&mut client, &name).await?;
            let instances = match engine {
                Some(engine) => engine.instances(Some(&name)).await?,
                None => Vec::new(),
            };
            let situation = Situation { service: Some(&service), instances: &instances };
            let (plan, previous) = match plan::rollback(&situation) {
                Back::Flip(plan) => (plan, None),
                Back::Revive(plan, previous) => (plan, Some(previous)),
                Back::Image(image) => return Ok(Outcome::Image(image)),
                Back::Nowhere => {
                    let error = Error::new(Kind::NoFlip, format!("{name} has nothing to go back to"));
                    return Err(match situation.live() {
                        Some(live) => error.hint(format!("traffic still on {live}")),
                        None => error,
                    });
                }
            };
            let warm = service.slots.get(plan.slot);
            let settings = settings(&situation, &plan, previous.as_deref());
            let image = warm.image.clone().filter(|_| previous.is_none()).or_else(|| image_of(previous.as_deref()));
            let rollout = Rollout {
                context,
                engine,
                service: &name,
                generation: service.generation,
                images: (image, service.slots.get(plan.slot.other()).image.clone()),
                deployment: previous
                    .as_ref()
                    .map(|previous| previous.deployment.clone())
                    .or_else(|| warm.deployment.clone())
                    .unwrap_or_else(deployment_id),
                candidate: previous.map_or(Candidate::Warm(service.generation), Candidate::Existing),
                // It passed when it went live before.
                health_command: None,
                client: &mut client,
                plan,
                settings,
            };
            rollout.run().await.map(|report| Outcome::Done(Box::new(report)))
        }
        .await;
        // A lease that can't be given back ends by itself.
        let _gone = client.release().await;
        outcome
    }
}

/// The previous version runs with what it was deployed with; nobody watches the version that was just left.
fn settings(situation: &Situation<'_>, plan: &Plan, previous: Option<&Instance>) -> Settings {
    let previous = previous.or_else(|| situation.occupant(plan.slot));
    let mut settings = previous.map_or_else(|| situation.settings(), Settings::of);
    settings.bake = Duration::ZERO;
    settings
}
