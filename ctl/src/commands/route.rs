//! `bgctl route`: addresses that we don't manage behind the proxy, or other routes for a service.

use ::config::admin::journal::Work;
use ::config::admin::response::SlotState;
use ::config::name::{EndpointAddr, ServiceName};
use ::config::options::ServiceOptions;
use ::config::project::Hooks;
use clap::Args;

use super::known;
use crate::admin::{Client, Match};
use crate::commands::options::Run;
use crate::commands::order::{Lock, deployment_id, finish, lock};
use crate::commands::rollout;
use crate::context::{Context, who};
use crate::deploy::execute::{Candidate, Rollout};
use crate::deploy::plan::{Plan, Situation, Step};
use crate::deploy::recover::{Aim, Finder};
use crate::deploy::report::Report;
use crate::error::{Error, ExitCode};

/// Put addresses that we don't manage behind the proxy
#[derive(Debug, Args)]
pub struct Route {
    /// The service
    service: ServiceName,
    /// Where it listens, HOST:PORT (again for more); without it only the routes change
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    to: Vec<EndpointAddr>,
    /// Count the addresses as healthy without a probe
    #[arg(long)]
    no_health: bool,
    #[command(flatten)]
    options: rollout::Rollout,
    /// How its requests are served, where a file says so.
    #[arg(skip)]
    served: Option<ServiceOptions>,
}

impl Route {
    /// Returns what makes addresses of a file live.
    pub(crate) fn described(service: ServiceName, to: Vec<EndpointAddr>, no_health: bool, run: Run) -> Self {
        Self { service, to, no_health, options: run.rollout, served: run.served }
    }

    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let name = self.service.clone();
        let report = self.try_route(context).await;
        finish(context, &name, report)
    }

    async fn try_route(self, context: &Context<'_>) -> Result<Option<Report>, Error> {
        let name = &self.service;
        context.say_target(&format!("route {name}")).await?;
        let mut client = context.interrupt.beside(context.admin_or_up()).await??;
        let wait = self.options.lock_wait.unwrap_or_default();
        lock(context, &mut client, Lock { name, what: "route".to_owned(), wait }).await?;
        let done = if self.to.is_empty() {
            self.change_routes(context, &mut client).await.map(|()| None)
        } else {
            self.stage_and_flip(context, &mut client).await
        };
        // A lease that can't be given back ends by itself.
        let _gone = client.release().await;
        done
    }

    async fn change_routes(&self, context: &Context<'_>, client: &mut Client) -> Result<(), Error> {
        let service = known(client, &self.service).await?;
        let situation = Situation { service: Some(&service), instances: &[] };
        let mut settings = situation.settings();
        self.options.apply(&mut settings)?;
        rollout::check_tls(&settings)?;
        if settings.routes == service.settings {
            context.ui.say(&format!("{} has these routes already", self.service));
            return Ok(());
        }
        client.put(&self.service, Match::Generation(service.generation), &settings.routes).await?;
        context.ui.announce(&format!("{} has its new routes", self.service));
        Ok(())
    }

    /// Stages the addresses and flips to them, under a lock that is held.
    pub(crate) async fn stage_and_flip(
        &self,
        context: &Context<'_>,
        client: &mut Client,
    ) -> Result<Option<Report>, Error> {
        if let Some(engine) = context.slots_engine().await? {
            // Else nobody would stop them, and a reboot would start them again.
            let ours: Vec<String> = engine.instances(Some(&self.service)).await?.into_iter().map(|i| i.name).collect();
            if !ours.is_empty() {
                return Err(Error::usage(format!("{} runs instances of ours: {}", self.service, ours.join(", ")))
                    .hint(format!(
                        "give the addresses a service of their own, or `{}` first",
                        context.line("rm", &self.service)
                    )));
            }
        }
        Finder { context, client: &mut *client, engine: None, service: &self.service }.settle(Aim::Forward).await?;
        let service = client.service(&self.service).await?;
        let situation = Situation { service: service.as_ref(), instances: &[] };
        let mut settings = situation.settings();
        self.options.apply(&mut settings)?;
        rollout::check_tls(&settings)?;
        settings.health.enabled = !self.no_health;
        settings.routes.options = self.served.clone().or(settings.routes.options);
        let slot = situation.idle();
        let mut steps = Vec::new();
        if service.as_ref().is_some_and(|service| service.slots.get(slot).state == SlotState::Draining) {
            steps.push(Step::AwaitDrain(slot));
        }
        let deployment = deployment_id();
        let to: Vec<String> = self.to.iter().map(ToString::to_string).collect();
        let rollout = Rollout {
            pause: false,
            context,
            client,
            engine: None,
            service: &self.service,
            generation: service.as_ref().map_or(0, |service| service.generation),
            plan: Plan { live: situation.live(), slot, steps, old: Vec::new(), stale: Vec::new() },
            settings,
            candidate: Candidate::Addresses(self.to.clone()),
            detach: self.options.detach,
            no_flip: false,
            hooks: Hooks::default(),
            health_command: None,
            work: Work {
                id: deployment.clone(),
                deployment,
                what: format!("route to {}", to.join(", ")),
                who: who(),
                note: None,
                slot,
                image: None,
                image_id: None,
                revision: None,
                old_image: None,
                with: Vec::new(),
                scale: None,
            },
        };
        rollout.run().await
    }
}
