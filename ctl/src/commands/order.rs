//! A switch, by whichever command it is ordered: the lock, what was left open, the plan, the rollout, the report.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::config::admin::journal::Work;
use ::config::admin::response::SlotState;
use ::config::name::ServiceName;
use serde::Serialize;
use tokio::time::Instant;

use super::brought::Own;
use super::{known, proxy_table, rollout};
use crate::admin::{self, Client};
use crate::commands::described::{self, Described, OfProxy, OfService};
use crate::commands::options::Run;
use crate::commands::secret;
use crate::context::{Context, who};
use crate::deploy::execute::{Candidate, Rollout};
use crate::deploy::hook;
use crate::deploy::plan::{self, Situation};
use crate::deploy::recover::{Aim, Finder};
use crate::deploy::report::{Failure, Report};
use crate::deploy::settings::{PREVIOUS, Settings};
use crate::deploy::together::Party;
use crate::engine::docker::Docker;
use crate::engine::{Engine, EngineError, Instance, InstanceSpec, Pull};
use crate::error::{Error, ExitCode, Kind};
use crate::transfer::{self, Sent};

/// How often a lock that someone else holds is asked for again.
const LOCK_RETRY: Duration = Duration::from_millis(500);

/// What a switch is asked for, by whichever command.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) service: ServiceName,
    pub(crate) image: Option<String>,
    /// It is sent to the host before, where that is another one.
    pub(crate) is_pushed: bool,
    pub(crate) company: Company,
    pub(crate) options: Run,
}

/// With whom it goes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Company {
    /// The id that all of them share.
    pub(crate) deployment: Option<String>,
    /// Those that go with it.
    pub(crate) with: Vec<ServiceName>,
    /// It goes with another one, which takes care of what there is once.
    pub(crate) follows: bool,
}

/// Switches, and prints the report.
pub(crate) async fn switch(context: &Context<'_>, order: Order) -> Result<ExitCode, Error> {
    let service = order.service.clone();
    let report = try_switch(context, order).await;
    finish(context, &service, report)
}

/// Prints how a deployment ended and returns its exit code.
pub(crate) fn finish(
    context: &Context<'_>,
    service: &ServiceName,
    report: Result<Option<Report>, Error>,
) -> Result<ExitCode, Error> {
    match report {
        Ok(Some(report)) => {
            context.ui.event(&report);
            if !context.ui.tone().json {
                report.words().iter().for_each(|line| context.ui.data(line));
            }
            Ok(report.exit())
        }
        Ok(None) => Ok(ExitCode::DONE),
        Err(mut error) => {
            // Whatever is under way says for itself what still holds.
            if matches!(error.kind, Kind::Interrupted(_)) && error.hints.is_empty() {
                error = error.hint("nothing was changed yet");
            }
            error = error.led(&context.way());
            context.ui.event(&Failure::of(service, &error));
            Err(error)
        }
    }
}

/// Switches; `None` where nothing was to be flipped.
pub(crate) async fn try_switch(context: &Context<'_>, order: Order) -> Result<Option<Report>, Error> {
    let Order { service: name, mut image, is_pushed, company, mut options } = order;
    let described = Described::service(context, &name)?;
    secret::warn_of_typed(context.ui, &options.env);
    context.say_target(&format!("switch {name}")).await?;
    let mut of_proxy = OfProxy::default();
    if let Some(OfService { file, service, proxy }) = described {
        if service.to.is_some() {
            let what = format!("{name} is addresses in {}, which bgctl does not run", file.display());
            return Err(
                Error::usage(what).hint("`bgctl apply` puts them behind the proxy; an image takes the place of `to`")
            );
        }
        context.ui.say(&format!("{name} is described in {}", file.display()));
        if !options.go_on {
            image = image.or_else(|| service.image.clone());
        }
        options = options.over(described::options(service));
        if !company.follows {
            of_proxy = proxy;
        }
    }
    if options.dry_run {
        return dry_run(context, &name, image, &options, is_pushed).await.map(|()| None);
    }
    let hooks = options.hooks.clone();
    let report = if options.go_on {
        // What is staged was described when it was staged; it is run so, whatever the file says by now.
        options.below = None;
        go_on(context, &name, image.as_deref(), (options, company)).await
    } else {
        roll_out(context, Order { service: name.clone(), image, is_pushed, company, options }, &of_proxy).await
    };
    hook::tell(context, &name, &hooks, report).await
}

/// Puts a new version into the idle slot and flips to it; `None` where nothing was to be flipped.
async fn roll_out(context: &Context<'_>, order: Order, of_proxy: &OfProxy) -> Result<Option<Report>, Error> {
    let OfProxy { table, certificates } = of_proxy;
    let Order { service: name, image, is_pushed, company, mut options } = order;
    let engine = context.engine().await?;
    let interrupt = &context.interrupt;
    refuse_folders_of_here(engine, &options)?;
    interrupt.beside(options.reveal(&name)).await??;
    let certificates = Own::read(context, certificates)?;
    let mut client = interrupt.beside(context.admin_or_up()).await??;
    // A table that would be refused is better refused before anything is done.
    if let Some(table) = table {
        proxy_table::admit(&mut client, table).await?;
    }
    // Pulling takes as long as it takes, so it is done before the lock is held.
    let reference = match image {
        Some(image) => image,
        None => {
            let service = client.service(&name).await?;
            let instances = engine.instances(Some(&name)).await?;
            live_image(&name, &Situation { service: service.as_ref(), instances: &instances })?
        }
    };
    if is_pushed {
        send(context, &reference, options.pull()).await?;
    }
    let image = interrupt.beside(engine.image(&reference, options.pull())).await??;
    let (what, wait) = (format!("switch to {reference}"), options.rollout.lock_wait.unwrap_or_default());
    lock(context, &mut client, Lock { name: &name, what, wait }).await?;
    let report = async {
        Finder { context, client: &mut client, engine: Some(engine), service: &name }.settle(Aim::Forward).await?;
        // Before the flip, which may be what brings the first visitors of a host.
        certificates.send(context, &mut client).await?;
        let service = client.service(&name).await?;
        let instances = engine.instances(Some(&name)).await?;
        let situation = Situation { service: service.as_ref(), instances: &instances };
        let mut settings = if options.reset { Settings::default() } else { situation.settings() };
        options.apply(&mut settings)?;
        rollout::check_tls(&settings)?;
        if settings.routes.is_tls_auto() {
            check_https(engine).await?;
        }
        let plan = plan::switch(&situation, &settings);
        let port = settings.port_for(&image)?;
        settings.port = Some(port);
        let deployment = company.deployment.unwrap_or_else(deployment_id);
        let mut notes = vec![settings.note()];
        notes.extend(plan.old.first().map(|old| (PREVIOUS.to_owned(), old.image.clone())));
        let spec = InstanceSpec {
            service: name.clone(),
            slot: plan.slot,
            replica: 1,
            deployment: deployment.clone(),
            port,
            run: settings.run.clone(),
            who: who(),
            notes,
            image,
        };
        let rollout = Rollout {
            pause: options.pause,
            context,
            engine: Some(engine),
            service: &name,
            generation: service.as_ref().map_or(0, |service| service.generation),
            detach: options.rollout.detach,
            no_flip: options.no_flip,
            hooks: options.hooks.clone(),
            health_command: spec.image.health_command.clone(),
            work: Work {
                id: deployment.clone(),
                deployment,
                what: format!("switch to {reference}"),
                who: who(),
                note: options.note.clone(),
                slot: plan.slot,
                image: Some(reference),
                image_id: Some(spec.image.id.clone()),
                revision: spec.image.revision.clone(),
                old_image: plan.old.first().map(|old| old.image.clone()),
                with: company.with,
                scale: None,
            },
            candidate: Candidate::New(Box::new(spec)),
            client: &mut client,
            plan,
            settings,
        };
        rollout.run().await
    }
    .await;
    // A lease that can't be given back ends by itself.
    let _gone = client.release().await;
    // Behind the switch, as one that fails changes nothing.
    if let (Ok(Some(_)), Some(table)) = (&report, table) {
        proxy_table::send_after(context, &mut client, table).await;
    }
    report
}

/// Refuses to mount a folder of this machine on another one: the engine there would make an empty one of that name.
fn refuse_folders_of_here(engine: &Engine, options: &Run) -> Result<(), Error> {
    match (engine, options.begins_here()) {
        (Engine::Docker(docker), Some(place)) if !docker.is_here() => Err(Error::usage(format!(
            "`{place}` was written as a relative path, which begins on this machine, and the containers are to be on another: {}",
            docker.target()
        ))
        .hint("name a volume, or write the absolute path of a folder of that host")),
        _ => Ok(()),
    }
}

/// Sends the image to the host of this run, where it is another one; with `--pull` that decides where it comes from, nothing is sent.
async fn send(context: &Context<'_>, reference: &str, pull: Pull) -> Result<(), Error> {
    let Engine::Docker(docker) = &**context.engine().await? else { return Ok(()) };
    if docker.is_here() && context.global.host.is_none() || pull != Pull::Missing {
        return Ok(());
    }
    let sent = context.interrupt.beside(transfer::push(context, docker, reference)).await??;
    context.ui.say(&sent.words(&docker.target()));
    context.ui.event(&Pushed { sent: &sent });
    Ok(())
}

/// The end of sending, as it is told to programs.
#[derive(Serialize)]
#[serde(tag = "event", rename = "pushed")]
struct Pushed<'a> {
    #[serde(flatten)]
    sent: &'a Sent,
}

/// Flips to the version that a switch without a flip has staged.
async fn go_on(
    context: &Context<'_>,
    name: &ServiceName,
    image: Option<&str>,
    (options, company): (Run, Company),
) -> Result<Option<Report>, Error> {
    if let Some(image) = image {
        let error = Error::usage(format!("--continue goes on with what is staged, and --image {image} names another"));
        return Err(error.hint("leave one of the two out"));
    }
    let engine = context.engine().await?;
    let mut client = context.interrupt.beside(context.admin()).await??;
    known(&mut client, name).await?;
    let wait = options.rollout.lock_wait.unwrap_or_default();
    lock(context, &mut client, Lock { name, what: "switch --continue".to_owned(), wait }).await?;
    let report = async {
        let service = known(&mut client, name).await?;
        let instances = engine.instances(Some(name)).await?;
        let situation = Situation { service: Some(&service), instances: &instances };
        let slot = situation.idle();
        let staged = service.slots.get(slot);
        let is_staged = matches!(staged.state, SlotState::Ready | SlotState::Starting | SlotState::Unhealthy);
        let instance = situation.occupant(slot).filter(|_| is_staged);
        let instance = instance.ok_or_else(|| {
            Error::new(Kind::NoFlip, format!("{name} has no version that waits for its flip"))
                .hint(format!("`{}` makes one", context.line_with("switch", name, "--no-flip")))
        })?;
        let mut settings = Settings::of(instance);
        options.apply(&mut settings)?;
        rollout::check_tls(&settings)?;
        let plan = plan::go_on(&situation);
        let rollout = Rollout {
            pause: options.pause,
            context,
            engine: Some(engine),
            service: name,
            generation: service.generation,
            detach: options.rollout.detach,
            no_flip: false,
            hooks: options.hooks.clone(),
            health_command: None,
            work: Work {
                id: deployment_id(),
                deployment: instance.deployment.clone(),
                what: format!("switch to {}", instance.image),
                who: who(),
                note: options.note.clone(),
                slot,
                image: Some(instance.image.clone()),
                image_id: Some(instance.image_id.clone()),
                revision: None,
                old_image: plan.old.first().map(|old| old.image.clone()),
                with: company.with,
                scale: None,
            },
            candidate: Candidate::Warm(service.generation, situation.occupants(slot)),
            client: &mut client,
            plan,
            settings,
        };
        rollout.run().await
    }
    .await;
    // A lease that can't be given back ends by itself.
    let _gone = client.release().await;
    report
}

/// Returns the image that the live slot runs.
fn live_image(name: &ServiceName, situation: &Situation<'_>) -> Result<String, Error> {
    let live = situation.live().and_then(|slot| situation.occupant(slot));
    image_of(live).ok_or_else(|| {
        Error::usage(format!("{name} has no live slot whose image could be used")).hint("name one: --image IMAGE")
    })
}

/// Shows what a switch would do. Nothing is changed: no image is sent or pulled, and no proxy started where there is none.
async fn dry_run(
    context: &Context<'_>,
    name: &ServiceName,
    image: Option<String>,
    options: &Run,
    is_pushed: bool,
) -> Result<(), Error> {
    let engine = context.engine().await?;
    let service = match context.admin().await {
        Ok(mut client) => client.service(name).await?,
        Err(error) if error.kind == Kind::NoProxy => None,
        Err(error) => return Err(error),
    };
    refuse_folders_of_here(engine, options)?;
    let instances = engine.instances(Some(name)).await?;
    let situation = Situation { service: service.as_ref(), instances: &instances };
    let reference = image.map_or_else(|| live_image(name, &situation), Ok)?;
    let there = engine.image(&reference, Pull::Never).await;
    let image = match there {
        Err(EngineError::Refused(_)) if is_pushed => {
            Docker::connect(None, None).await?.image(&reference, Pull::Never).await
        }
        there => there,
    };
    let image = image.map_err(|error| match error {
        EngineError::Refused(_) => {
            Error::new(Kind::Refused, format!("there is no image {reference} yet, and a dry run fetches none"))
        }
        other => other.into(),
    })?;
    let mut settings = if options.reset { Settings::default() } else { situation.settings() };
    options.apply(&mut settings)?;
    rollout::check_tls(&settings)?;
    settings.port = Some(settings.port_for(&image)?);
    show(context, &plan::switch(&situation, &settings).sentences(&settings, &options.hooks), &settings);
    Ok(())
}

/// Checks that visitors who are led to https get there: where its port was taken, `up` has published http alone.
async fn check_https(engine: &Engine) -> Result<(), Error> {
    let addresses = match engine {
        Engine::Docker(_) => engine.addresses().await?,
        // Its proxy opens the port itself, and leads nobody where it can't.
        Engine::Process(_) => Vec::new(),
    };
    if addresses.is_empty() || addresses.iter().any(|address| address.starts_with("https://")) {
        return Ok(());
    }
    Err(Error::usage("--tls leads visitors to https, and the gateway publishes no port for it; nothing was changed")
        .hint("free port 443 of the host, then `bgctl down` and `bgctl up --publish 80:80 --publish 443:443`; the site is away meanwhile"))
}

/// A lock to take.
pub(crate) struct Lock<'a> {
    pub(crate) name: &'a ServiceName,
    pub(crate) what: String,
    pub(crate) wait: Duration,
}

/// Takes the lease, asking again for as long as the user wants to wait.
pub(crate) async fn lock(context: &Context<'_>, client: &mut Client, lock: Lock<'_>) -> Result<(), Error> {
    let deadline = Instant::now() + lock.wait;
    loop {
        match client.acquire(lock.name, who(), lock.what.clone()).await {
            Ok(()) => {
                context.together.iter().for_each(Party::has_lock);
                return Ok(());
            }
            Err(admin::Error::Refused(refusal))
                if Error::from(refusal.clone()).kind == Kind::Locked && Instant::now() < deadline =>
            {
                context.ui.progress(&format!("waiting for the lock: {}", refusal.message));
                context.interrupt.beside(tokio::time::sleep(LOCK_RETRY)).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Shows a dry run.
fn show(context: &Context<'_>, steps: &[String], settings: &Settings) {
    let settings = settings.clone().masked();
    if context.ui.tone().json {
        context.ui.document(&serde_json::json!({ "steps": steps, "settings": settings }));
        return;
    }
    steps.iter().enumerate().for_each(|(number, step)| context.ui.data(&format!("{}. {step}", number + 1)));
    context.ui.document(&settings);
}

/// Returns a new deployment's id: the time in seconds and a part that tells two of one second apart.
pub(crate) fn deployment_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:05x}", now.as_secs(), now.subsec_micros())
}

/// Returns the image that an instance runs.
pub(crate) fn image_of(instance: Option<&Instance>) -> Option<String> {
    instance.map(|instance| instance.image.clone())
}
