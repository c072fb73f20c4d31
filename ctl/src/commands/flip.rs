//! `bgctl flip`: the bare pointer swap.

use ::config::admin::journal::{Journal, Outcome, Work};
use ::config::admin::request;
use ::config::admin::response::ServiceStatus;
use ::config::name::{ServiceName, Slot};
use clap::Args;

use super::known;
use crate::admin::Match;
use crate::commands::order::deployment_id;
use crate::context::{Context, who};
use crate::engine::Restart;
use crate::error::{Error, ExitCode, Kind};

/// Make the other slot live: the bare pointer swap
#[derive(Debug, Args)]
pub struct Flip {
    /// The service
    service: ServiceName,
    /// The slot (default: the one that is not live)
    #[arg(long, value_name = "blue|green")]
    to: Option<Slot>,
    /// Flip to a slot that is not healthy too
    #[arg(long)]
    force: bool,
}

/// Returns a flip as the journal tells it.
fn work(service: &ServiceStatus, slot: Slot) -> Work {
    let (id, status) = (deployment_id(), service.slots.get(slot));
    Work {
        deployment: status.deployment.clone().unwrap_or_else(|| id.clone()),
        id,
        what: format!("flip to {slot}"),
        who: who(),
        note: None,
        slot,
        image: status.image.clone(),
        image_id: None,
        revision: None,
        old_image: service.live.and_then(|live| service.slots.get(live).image.clone()),
        with: Vec::new(),
        scale: None,
    }
}

impl Flip {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let name = self.service;
        context.say_target(&format!("flip {name}")).await?;
        let mut client = context.admin().await?;
        known(&mut client, &name).await?;
        client.acquire(&name, who(), "flip".to_owned()).await?;
        let service = known(&mut client, &name).await?;
        let slot = self.to.or(service.live.map(Slot::other)).unwrap_or(Slot::Blue);
        let work = work(&service, slot);
        let id = work.id.clone();
        if let Err(error) = client.journal(&name, &Journal::Begin { work }).await {
            // A full disk must keep nobody from going back.
            context.ui.warn(&format!("this run is not noted in the journal: {error}"));
        }
        let flip = request::Flip { to: self.to, force: self.force, ..request::Flip::default() };
        let flipped = client.flip(&name, Match::Generation(service.generation), &flip).await;
        let (outcome, report) = match &flipped {
            Ok(flipped) => (Outcome::Done, serde_json::json!({ "live": flipped.live, "exit_code": 0 })),
            Err(error) => (Outcome::Undone, serde_json::json!({ "error": error.to_string(), "exit_code": 4 })),
        };
        let end = Journal::End { id, outcome, report: Box::new(report), log: None };
        if let Err(error) = client.journal(&name, &end).await {
            context.ui.warn(&format!("the end of this run is not noted in the journal: {error}"));
        }
        if flipped.is_err() {
            // The refusal matters more than the lease, which ends by itself.
            let _gone = client.release().await;
        }
        let flipped = flipped.map_err(|error| {
            // Whatever the reason is, what was refused here is a flip.
            let mut error = Error::from(error);
            if error.kind == Kind::Unhealthy {
                error.kind = Kind::NoFlip;
            }
            match service.live {
                Some(live) => error.hint(format!("traffic still on {live}")),
                None => error,
            }
        })?;
        context.ui.announce(&format!("LIVE: {name} on {} ({} us)", flipped.live, flipped.flip_micros));
        if let Some(engine) = context.slots_engine().await? {
            for instance in engine.instances(Some(&name)).await?.iter().filter(|instance| !instance.kept) {
                let restart = if instance.slot == flipped.live { Restart::Always } else { Restart::No };
                engine.set_restart(instance, restart).await?;
            }
        }
        client.release().await?;
        if context.ui.tone().json {
            context.ui.document(&flipped);
        }
        Ok(ExitCode::DONE)
    }
}
