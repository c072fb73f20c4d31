//! `bgctl scale`: replicas of the live slot.

use std::time::Duration;

use ::config::admin::journal::{Scale as Scaled, Work};
use ::config::admin::request::Drain;
use ::config::admin::response::ServiceStatus;
use ::config::name::{EndpointAddr, ServiceName};
use clap::Args;

use super::known;
use crate::admin::Client;
use crate::commands::options::MOST_REPLICAS;
use crate::commands::order::{Lock, deployment_id, lock};
use crate::context::{Context, who};
use crate::deploy::plan::Situation;
use crate::deploy::recover::{Aim, Finder, Stand};
use crate::deploy::scale::{self, Plan, Scaling};
use crate::deploy::settings::Settings;
use crate::engine::{Engine, Image, Instance, InstanceSpec, Pull};
use crate::error::{Error, ExitCode, Kind};

/// Change the number of replicas of the live slot
#[derive(Debug, Args)]
pub struct Scale {
    /// The service
    service: ServiceName,
    /// So many, at least one
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_REPLICAS))]
    replicas: u32,
    /// Wait so long while someone else holds the lock
    #[arg(long, value_name = "TIME", value_parser = ::config::duration::parse, default_value = "0s")]
    lock_wait: Duration,
}

impl Scale {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let (name, wanted) = (&self.service, self.replicas);
        let what = format!("scale to {wanted}");
        context.say_target(&format!("scale {name} to {wanted}")).await?;
        let engine = context.engine().await?;
        let mut client = context.interrupt.beside(context.admin()).await??;
        known(&mut client, name).await?;
        lock(context, &mut client, Lock { name, what: what.clone(), wait: self.lock_wait }).await?;
        let scaled = async {
            settle(context, &mut client, engine, name).await?;
            let service = known(&mut client, name).await?;
            let instances = engine.instances(Some(name)).await?;
            let situation = Situation { service: Some(&service), instances: &instances };
            let slot = service.live.ok_or_else(|| Error::usage(format!("{name} has no live slot")))?;
            let present = situation.occupants(slot);
            let first = present.first().cloned().ok_or_else(|| {
                Error::usage(format!("{name} runs no instance of ours"))
                    .hint(format!("addresses that you run yourself are given by `bgctl route {name} --to ADDRESS`"))
            })?;
            let settings = situation.settings();
            if settings.no_port {
                let line = context.line_with("switch", name, &format!("--replicas {wanted}"));
                return Err(Error::usage(format!("{name} has no port, so the proxy can't share requests out to it"))
                    .hint(format!("`{line}` runs so many of it")));
            }
            let spec = copy_of(engine, &first, &settings).await?;
            let last = |instances: &[Instance]| instances.last().map_or(0, |instance| instance.replica);
            let from = last(&present);
            let plan = scale::plan(present, wanted);
            let to = plan.more.last().copied().unwrap_or_else(|| last(&plan.stay));
            let scaling = Scaling {
                context,
                client: &mut client,
                engine,
                service: name,
                generation: service.generation,
                endpoints: endpoints(&service, &plan)?,
                plan,
                settings,
                work: Work {
                    id: deployment_id(),
                    deployment: first.deployment.clone(),
                    what,
                    who: who(),
                    note: None,
                    slot,
                    image: Some(first.image.clone()),
                    image_id: Some(first.image_id.clone()),
                    revision: spec.image.revision.clone(),
                    old_image: None,
                    with: Vec::new(),
                    scale: Some(Scaled { from, to }),
                },
                spec,
            };
            scaling.run().await
        }
        .await;
        // A lease that can't be given back ends by itself.
        let _gone = client.release().await;
        let scaled = scaled?;
        if let Some(cut) = scaled.cut() {
            context.ui.warn(&cut);
        }
        context.ui.announce(&scaled.sentence());
        if context.ui.tone().json {
            context.ui.document(&scaled);
        }
        Ok(scaled.exit())
    }
}

/// Ends what was left open, and waits for an old version that still drains: its journal is not to be forgotten.
pub(super) async fn settle(
    context: &Context<'_>,
    client: &mut Client,
    engine: &Engine,
    name: &ServiceName,
) -> Result<(), Error> {
    let settle = async |client: &mut Client| {
        Finder { context, client, engine: Some(engine), service: name }.settle(Aim::End).await
    };
    if settle(client).await? == Some(Stand::Draining) {
        context.ui.say("waiting for the last requests on the old version");
        let mut events = client.drain(name, &Drain::default()).await?;
        let drained = async {
            while events.next().await?.is_some() {}
            Ok::<(), Error>(())
        };
        context.interrupt.beside(drained).await??;
        settle(client).await?;
    }
    Ok(())
}

/// Returns the live slot's endpoints, of which those that go must be the last.
fn endpoints(service: &ServiceStatus, plan: &Plan) -> Result<Vec<EndpointAddr>, Error> {
    let slots = &service.slots;
    let live = service.live.map(|live| slots.get(live)).into_iter();
    let endpoints: Vec<_> = live.flat_map(|slot| &slot.endpoints).map(|known| known.address.clone()).collect();
    let is_going = |address: &EndpointAddr| plan.fewer.iter().any(|instance| instance.endpoint == *address);
    let stay = endpoints.iter().take_while(|address| !is_going(address)).count();
    if endpoints[stay..].iter().any(|address| !is_going(address)) {
        let message =
            format!("the replicas of {} do not stand in the proxy in the order of their numbers", service.name);
        return Err(Error::new(Kind::NoFlip, message).hint("a switch to the same image brings them together again"));
    }
    Ok(endpoints)
}

/// Returns what one more instance is made like: the first one.
pub(super) async fn copy_of(engine: &Engine, first: &Instance, settings: &Settings) -> Result<InstanceSpec, Error> {
    let image = image(engine, first).await?;
    Ok(InstanceSpec {
        service: first.service.clone(),
        slot: first.slot,
        replica: first.replica,
        deployment: first.deployment.clone(),
        port: settings.port.unwrap_or(first.endpoint.port()),
        run: first.run.clone(),
        who: who(),
        notes: first.notes.clone(),
        image,
    })
}

/// Returns the image that an instance runs: the same one, whatever its name means by now.
async fn image(engine: &Engine, instance: &Instance) -> Result<Image, Error> {
    for reference in [&instance.image_id, &instance.image] {
        // The process engine knows programs by their names alone.
        if let Ok(image) = engine.image(reference, Pull::Never).await
            && image.id == instance.image_id
        {
            return Ok(Image { reference: instance.image.clone(), ..image });
        }
    }
    let message = format!("{} is not the image any more that {} runs", instance.image, instance.name);
    Err(Error::new(Kind::Refused, message).hint("a switch with --replicas changes both"))
}
