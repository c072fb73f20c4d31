//! `bgctl up --replace`: moves over in place from nginx and the bash recipe.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ::config::admin::journal::Work;
use ::config::admin::request::Delete;
use ::config::name::Slot;
use ::config::project::Hooks;

use crate::admin::{Client, Door, Match};
use crate::commands::confirm::{Question, confirm};
use crate::commands::order::{Lock, deployment_id, lock};
use crate::context::{Context, who};
use crate::deploy::execute::{Candidate, Rollout};
use crate::deploy::plan::Plan;
use crate::deploy::settings::Settings;
use crate::engine::docker::{Adoption, Docker, Recipe, Rehearsal};
use crate::engine::{Engine, Gateway, GatewaySpec, Instance, Restart};
use crate::error::{Error, Kind};

/// A lock frees itself 15 s after its holder went silent.
const LEFT_LOCK: std::time::Duration = std::time::Duration::from_secs(20);

/// Replaces the recipe's nginx; `None` where there is none, or nothing was to be done.
///
/// # Errors
/// Whatever keeps from it: nginx then serves on, or again.
pub(crate) async fn replace(context: &Context<'_>, spec: &GatewaySpec, is_dry: bool) -> Result<Option<Gateway>, Error> {
    let Engine::Docker(docker) = &**context.engine().await? else {
        return Err(Error::usage("--replace is for containers, and --engine process has none"));
    };
    if !is_dry {
        context.interrupt.beside(docker.mend()).await??.iter().for_each(|line| context.ui.say(line));
    }
    let Some(mut recipe) = context.interrupt.beside(docker.recipe()).await?? else {
        context.ui.say("there is no nginx to replace");
        return Ok(None);
    };
    if !spec.publish.is_empty() {
        recipe.publish.clone_from(&spec.publish);
    }
    if recipe.publish.is_empty() {
        return Err(Error::usage("nginx publishes no port by itself or by its holder, so there is none to take over")
            .hint("name it, if it should: --publish 80:80"));
    }
    if recipe.services.is_empty() {
        let error =
            Error::usage("nginx sends nothing to a container that has a slot's name, so there is nothing to take over");
        return Err(recipe.left.iter().fold(error, |error, line| error.detail(line.clone())));
    }
    let lines = recipe.lines();
    if is_dry {
        show(context, &recipe, &lines);
        return Ok(None);
    }
    let question = Question { nothing: "nothing was changed", what: "this would be done:", lines: &lines };
    confirm(context, &question).await?;
    lines.iter().for_each(|line| context.ui.say(line));
    let kept = keep(&recipe.config, Path::new("."))?;
    context.ui.say(&format!("nginx's configuration is kept in {}", kept.display()));
    let moving = docker.moving();
    let rehearsal = context.interrupt.beside(moving.rehearse(spec)).await;
    let rehearsal = match rehearsal {
        Ok(rehearsal) => rehearsal.map_err(|error| Error::from(error).hint("nginx serves as before"))?,
        // What it had made by then carries our labels.
        Err(interrupted) => {
            docker.mend().await?;
            return Err(interrupted.hint("nginx serves as before"));
        }
    };
    context.ui.say("bgproxy runs beside nginx, without a port, and takes the services over");
    let instances = match adopt_all(context, &recipe, &moving).await {
        Ok(instances) => instances,
        Err(error) => {
            moving.give_up(rehearsal).await;
            return Err(error.hint("nginx serves as before"));
        }
    };
    let gateway = take_over(&moving, &recipe, rehearsal, &instances).await?;
    for (adoption, instance) in
        recipe.services.iter().flat_map(|adoption| adoption.instances.iter().map(move |one| (adoption, one)))
    {
        let restart = if instance.slot == adoption.live { Restart::Always } else { Restart::No };
        if let Err(error) = context.engine().await?.set_restart(instance, restart).await {
            context.ui.warn(&format!("the restart policy of {} is not set: {error}", instance.name));
        }
    }
    Ok(Some(gateway))
}

async fn take_over(
    moving: &Docker,
    recipe: &Recipe,
    rehearsal: Rehearsal,
    instances: &[Instance],
) -> Result<Gateway, Error> {
    Ok(moving.take_over(recipe, rehearsal, instances).await?)
}

fn show(context: &Context<'_>, recipe: &Recipe, lines: &[String]) {
    if context.ui.tone().json {
        let services: Vec<_> = recipe
            .services
            .iter()
            .map(|adoption| serde_json::json!({ "service": adoption.service, "live": adoption.live, "routes": adoption.routes }))
            .collect();
        let document = serde_json::json!({ "services": services, "publish": recipe.publish, "left": recipe.left });
        return context.ui.document(&document);
    }
    lines.iter().for_each(|line| context.ui.data(line));
}

/// Writes nginx's configuration into a new file of a folder.
fn keep(config: &str, folder: &Path) -> Result<PathBuf, Error> {
    let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string().replace([':', '.'], "-");
    let path = folder.join(format!("nginx-before-bluegreen-{now}.conf"));
    // It may hold what is nobody's business, as headers with secrets.
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(config.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        Error::usage(format!("keep nginx's configuration in {}: {error}", path.display())).hint("nothing was changed")
    })?;
    Ok(path)
}

/// Puts every service into the proxy that is tried; returns their containers, with what the next switch is to know of them.
async fn adopt_all(context: &Context<'_>, recipe: &Recipe, moving: &Docker) -> Result<Vec<Instance>, Error> {
    let mut client = Client::open(Door::Engine(Arc::new(Engine::Docker(moving.moving())))).await?;
    let mut instances = Vec::new();
    for adoption in &recipe.services {
        let settings = adopt(context, &mut client, adoption).await?;
        for instance in &adoption.instances {
            let settings = Settings { port: Some(instance.endpoint.port()), ..settings.clone() };
            instances.push(Instance { notes: vec![settings.note()], ..instance.clone() });
        }
    }
    Ok(instances)
}

/// Makes one service live as nginx has it. Visitors are on it now, so a probe that fails is no reason to leave it.
async fn adopt(context: &Context<'_>, client: &mut Client, adoption: &Adoption) -> Result<Settings, Error> {
    let name = &adoption.service;
    // What saved state says of it is of another time: nobody is served by the proxy that is tried.
    if client.service(name).await?.is_some() {
        // A run that was killed may have left its lock, which ends by itself; no one else changes what is only tried.
        let what = "up --replace".to_owned();
        lock(context, client, Lock { name, what, wait: LEFT_LOCK }).await?;
        client.delete(name, Match::Any, &Delete { drain: std::time::Duration::ZERO }).await?;
        // It went with the service.
        let _gone = client.release().await;
    }
    lock(context, client, Lock { name, what: "up --replace".to_owned(), wait: std::time::Duration::ZERO }).await?;
    let mut settings =
        Settings { routes: adoption.routes.clone(), bake: std::time::Duration::ZERO, ..Settings::default() };
    let mut adopted = stage_and_flip(context, client, adoption, &settings).await;
    if let Err(error) = adopted.as_ref().map_err(|error| (error.kind, error.message.clone())) {
        if error.0 != Kind::Unhealthy {
            return Err(adopted.err().unwrap_or_else(|| Error::usage(error.1)));
        }
        context.ui.warn(&format!(
            "{}\n{name} is taken over without health checks; name its health path with the next switch: --health-path",
            error.1
        ));
        settings.health.enabled = false;
        adopted = stage_and_flip(context, client, adoption, &settings).await;
        settings.health.enabled = true;
    }
    adopted?;
    // A lease that can't be given back ends by itself.
    let _gone = client.release().await;
    Ok(Settings { bake: Settings::default().bake, ..settings })
}

async fn stage_and_flip(
    context: &Context<'_>,
    client: &mut Client,
    adoption: &Adoption,
    settings: &Settings,
) -> Result<(), Error> {
    let (name, slot): (_, Slot) = (&adoption.service, adoption.live);
    let live = adoption.instances.iter().find(|instance| instance.slot == slot);
    let live = live.ok_or_else(|| Error::usage(format!("{name} has no live container")))?;
    let generation = client.service(name).await?.map_or(0, |service| service.generation);
    let rollout = Rollout {
        pause: false,
        context,
        client,
        engine: None,
        service: name,
        generation,
        plan: Plan { live: None, slot, steps: Vec::new(), old: Vec::new(), stale: Vec::new() },
        settings: settings.clone(),
        candidate: Candidate::Addresses(vec![live.endpoint.clone()]),
        detach: false,
        no_flip: false,
        hooks: Hooks::default(),
        health_command: None,
        work: Work {
            id: deployment_id(),
            deployment: live.deployment.clone(),
            what: format!("taken over from nginx: {}", live.name),
            who: who(),
            note: None,
            slot,
            image: Some(live.image.clone()),
            image_id: Some(live.image_id.clone()),
            revision: None,
            old_image: None,
            with: Vec::new(),
            scale: None,
        },
    };
    rollout.run().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_kept_for_its_owner_alone_and_overwrites_nothing() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = keep("http {}", folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "http {}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(keep("x", &folder.path().join("none")).is_err());
    }
}
