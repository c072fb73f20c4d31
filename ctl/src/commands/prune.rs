//! `bgctl prune`: images and kept containers beyond what is to be kept.

use std::collections::BTreeSet;

use ::config::admin::journal::{History, Outcome};
use ::config::name::ServiceName;
use clap::Args;

use super::known;
use crate::commands::confirm::ask;
use crate::context::Context;
use crate::deploy::plan::Situation;
use crate::engine::{Engine, Instance};
use crate::error::{Error, ExitCode};

/// Remove images of past deployments and kept containers beyond what is to be kept (--keep-images of the service); only ours
#[derive(Debug, Args)]
pub struct Prune {
    /// One service only
    service: Option<ServiceName>,
}

/// What would go of one service.
#[derive(Debug, Default)]
struct Going {
    instances: Vec<Instance>,
    /// By id, with the name that the deployment had for it.
    images: Vec<(String, String)>,
    /// What pushes left that were cut and not done again; one that is under way sends all of it then.
    partials: Vec<String>,
}

impl Prune {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        context.say_target("prune").await?;
        let engine = context.engine().await?;
        let mut client = context.admin().await?;
        let services = match &self.service {
            Some(name) => vec![known(&mut client, name).await?],
            None => client.status().await?.services,
        };
        let all = engine.instances(None).await?;
        let mut going = Going::default();
        for service in &services {
            let own: Vec<Instance> = all.iter().filter(|instance| instance.service == service.name).cloned().collect();
            let situation = Situation { service: Some(service), instances: &own };
            let history = client.history(&service.name).await?;
            let keep = usize::try_from(situation.settings().keep_images).unwrap_or(usize::MAX);
            going.instances.extend(stale(&situation));
            going.images.extend(history.iter().flat_map(|history| old_images(history, keep)));
        }
        let used: BTreeSet<&str> = all.iter().map(|instance| instance.image_id.as_str()).collect();
        going.images.retain(|(id, _)| !used.contains(id.as_str()));
        if let (None, Engine::Docker(docker)) = (&self.service, &**engine) {
            going.partials = docker.partials().await?.into_iter().map(|partial| partial.name).collect();
        }
        remove(context, engine, going).await
    }
}

async fn remove(context: &Context<'_>, engine: &Engine, going: Going) -> Result<ExitCode, Error> {
    let mut present = Vec::new();
    for (id, name) in going.images {
        if engine.has_image(&id).await? {
            present.push((id, name));
        }
    }
    let mut lines: Vec<String> = going.instances.iter().map(|instance| instance.name.clone()).collect();
    lines.extend(present.iter().map(|(_, name)| format!("the image {name}")));
    lines.extend(going.partials.iter().map(|name| format!("{name}, of a push that was cut")));
    let mut removed = Vec::new();
    if lines.is_empty() {
        context.ui.say("nothing is beyond what is to be kept");
    } else {
        ask(context, &lines).await?;
    }
    for instance in going.instances {
        engine.remove(&instance).await?;
        context.ui.say(&format!("removed {}", instance.name));
        removed.push(instance.name);
    }
    for (id, name) in present {
        match engine.remove_image(&id).await {
            Ok(()) => {
                context.ui.say(&format!("removed the image {name}"));
                removed.push(name);
            }
            // Someone else uses it, or gave it another name: then it is not ours alone.
            Err(error) => context.ui.warn(&format!("the image {name} stays: {error}")),
        }
    }
    for name in going.partials {
        if let Engine::Docker(docker) = engine {
            docker.remove_partial(&name).await?;
            context.ui.say(&format!("removed {name}"));
            removed.push(name);
        }
    }
    if context.ui.tone().json {
        context.ui.document(&serde_json::json!({ "removed": removed }));
    }
    Ok(ExitCode::DONE)
}

/// Returns kept instances in whose slot there is another version: only a run that was cut off leaves such.
fn stale(situation: &Situation<'_>) -> Vec<Instance> {
    let is_stale = |instance: &&Instance| {
        let occupant = situation.occupant(instance.slot);
        instance.kept && occupant.is_some_and(|occupant| occupant.deployment != instance.deployment)
    };
    situation.instances.iter().filter(is_stale).cloned().collect()
}

/// Returns the images of past deployments beyond the last so many, by id and name.
fn old_images(history: &History, keep: usize) -> Vec<(String, String)> {
    let mut seen: Vec<(String, String)> = Vec::new();
    for entry in history.entries.iter().filter(|entry| entry.outcome == Some(Outcome::Done)) {
        if let (Some(id), Some(name)) = (&entry.work.image_id, &entry.work.image)
            && !seen.iter().any(|(known, _)| known == id)
        {
            seen.push((id.clone(), name.clone()));
        }
    }
    seen.split_off(keep.min(seen.len()))
}
