//! `bgctl verify`: the self-test of a live service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ::config::admin::journal::Work;
use ::config::admin::request::{ServiceSettings, Stage};
use ::config::admin::response::{ServiceStatus, SlotState};
use ::config::name::{HostPattern, ServiceName, Slot};
use ::config::project::Hooks;
use clap::Args;

use super::known;
use super::scale::{copy_of, settle};
use crate::commands::order::{Lock, deployment_id, lock};
use crate::context::{Context, who};
use crate::deploy::execute::{Candidate, Rollout};
use crate::deploy::plan::{self, Situation};
use crate::deploy::report::Failure;
use crate::deploy::settings::Settings;
use crate::deploy::verify::{Proof, Trial, warm_again};
use crate::engine::InstanceSpec;
use crate::error::{Error, ExitCode, Kind};
use crate::traffic::steady::Visit;
use crate::traffic::wire::Wire;

/// What the first request goes by: an id that only our own proxy gives back.
const FIRST: &str = "verify-first";
/// A listener that can be reached answers a connection within this.
const CONNECT: Duration = Duration::from_secs(3);

/// Self-test of a service: own traffic, flips between two runs of the same version, verdict
#[derive(Debug, Args)]
pub struct Verify {
    /// The service
    service: ServiceName,
    /// So many flips; where they are odd, one more leads back
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    flips: u32,
    /// So many requests a second, whether answered or not
    #[arg(long, value_name = "R", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rps: u32,
    /// What visitors ask for (default: the health path)
    #[arg(long, value_name = "PATH", value_parser = path)]
    path: Option<String>,
    /// Where visitors reach the proxy (default: where it listens, or what its host publishes)
    #[arg(long, value_name = "HOST:PORT")]
    at: Option<String>,
    /// Wait so long while someone else holds the lock
    #[arg(long, value_name = "TIME", value_parser = ::config::duration::parse, default_value = "0s")]
    lock_wait: Duration,
}

impl Verify {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let name = self.service.clone();
        match self.verify(context).await {
            Ok(proof) => {
                context.ui.event(&proof);
                if !context.ui.tone().json {
                    proof.words().iter().for_each(|line| context.ui.data(line));
                }
                proof.failures().iter().for_each(|failure| context.ui.warn(&failure.line()));
                Ok(proof.exit())
            }
            Err(mut error) => {
                // Whatever is under way says for itself what still holds.
                if matches!(error.kind, Kind::Interrupted(_)) && error.hints.is_empty() {
                    error = error.hint("nothing was changed yet");
                }
                context.ui.event(&Failure::of(&name, &error));
                Err(error)
            }
        }
    }

    async fn verify(self, context: &Context<'_>) -> Result<Proof, Error> {
        let name = &self.service;
        context.say_target(&format!("verify {name}")).await?;
        let engine = context.engine().await?;
        let mut client = context.interrupt.beside(context.admin()).await??;
        known(&mut client, name).await?;
        lock(context, &mut client, Lock { name, what: "verify".to_owned(), wait: self.lock_wait }).await?;
        let proof = async {
            settle(context, &mut client, engine, name).await?;
            let service = known(&mut client, name).await?;
            let instances = engine.instances(Some(name)).await?;
            let situation = Situation { service: Some(&service), instances: &instances };
            let mut settings = situation.settings();
            let home = fit(context, &service, &settings)?;
            let first = situation.occupant(home).ok_or_else(|| {
                Error::usage(format!("{name} runs no instance of ours, so no second one can be put beside it"))
                    .hint("it is for services that `switch` or `deploy` runs")
            })?;
            let mut addresses = engine.addresses().await?;
            if let Some(at) = &self.at {
                addresses = vec![format!("http://{at}")];
            }
            let path = self.path.clone().unwrap_or_else(|| path_of(&service.settings, &settings.health.path));
            let visit = context.interrupt.beside(reach(&addresses, host_of(&service), path)).await??;
            context.ui.say(&format!(
                "{} requests a second of {}{} through {}",
                self.rps, visit.host, visit.path, visit.address
            ));
            let spec = copy_of(engine, first, &settings).await?;
            let plan = plan::switch(&situation, &settings);
            let warm = warm(&service, &situation, plan.slot);
            let deployment = deployment_id();
            // What was deployed has done it.
            settings.before = None;
            let rollout = Rollout {
                pause: false,
                context,
                engine: Some(engine),
                service: name,
                generation: service.generation,
                detach: false,
                no_flip: true,
                hooks: Hooks::default(),
                health_command: spec.image.health_command.clone(),
                work: Work {
                    id: deployment.clone(),
                    deployment: deployment.clone(),
                    what: "verify".to_owned(),
                    who: who(),
                    note: None,
                    slot: plan.slot,
                    image: Some(first.image.clone()),
                    image_id: Some(first.image_id.clone()),
                    revision: spec.image.revision.clone(),
                    old_image: Some(first.image.clone()),
                    with: Vec::new(),
                    scale: None,
                },
                candidate: Candidate::New(Box::new(InstanceSpec { slot: plan.slot, replica: 1, deployment, ..spec })),
                client: &mut client,
                plan,
                settings,
            };
            rollout.verify(Trial { flips: self.flips, visit, rps: self.rps, warm }).await
        }
        .await;
        // A lease that can't be given back ends by itself.
        let _gone = client.release().await;
        proof
    }
}

/// Returns the live slot of a service that can be tried.
fn fit(context: &Context<'_>, service: &ServiceStatus, settings: &Settings) -> Result<Slot, Error> {
    let name = &service.name;
    let home = service.live.ok_or_else(|| Error::usage(format!("{name} has no live slot")))?;
    if settings.no_port {
        return Err(Error::usage(format!("{name} has no port, so no visitor can reach it")));
    }
    if settings.stop_first {
        return Err(Error::usage(format!("two versions of {name} can't run at once (--stop-first), as this wants")));
    }
    if service.paused.is_some() || service.maintenance.is_some() {
        return Err(Error::usage(format!("{name} is closed to its visitors now"))
            .hint("`bgctl status` says why: a pause, or maintenance"));
    }
    let staged = service.slots.get(home.other());
    let is_staged = matches!(staged.state, SlotState::Starting | SlotState::Ready | SlotState::Unhealthy);
    if service.canary.is_some() || is_staged {
        let message = format!("{} of {name} has a version that waits for its flip", home.other());
        let line = context.line_with("switch", name, "--continue");
        return Err(Error::new(Kind::NoFlip, message).hint(format!("`{line}` flips to it")));
    }
    Ok(home)
}

/// Returns how the version that is warm in the idle slot is put there again.
fn warm(service: &ServiceStatus, situation: &Situation<'_>, slot: Slot) -> Option<Stage> {
    let status = service.slots.get(slot);
    if !matches!(status.state, SlotState::Warm | SlotState::Draining) {
        return None;
    }
    let stage = warm_again(slot, &[situation.occupant(slot)?])?;
    // The proxy knows all of them, and by which name.
    let endpoints = status.endpoints.iter().map(|known| known.address.clone()).collect();
    Some(Stage { endpoints, image: status.image.clone(), deployment: status.deployment.clone(), ..stage })
}

/// Returns the name that visitors know the service by.
fn host_of(service: &ServiceStatus) -> String {
    let domains = &service.settings.domains;
    let exact = domains.iter().find(|domain| matches!(domain, HostPattern::Exact(_)));
    match exact.or(domains.first()) {
        Some(domain) => domain.to_string().replace('*', "verify"),
        None => service.name.to_string(),
    }
}

/// Returns the health path as visitors reach it.
fn path_of(settings: &ServiceSettings, health: &str) -> String {
    match settings.paths.first() {
        Some(prefix) if settings.strip_path => format!("{}{health}", prefix.trimmed()),
        Some(prefix) if !settings.paths.iter().any(|prefix| prefix.takes(health)) => prefix.to_string(),
        Some(_) | None => health.to_owned(),
    }
}

/// Finds out through which of the addresses the service is reached from here, with one request.
async fn reach(addresses: &[String], host: String, path: String) -> Result<Visit, Error> {
    let mut why = Vec::new();
    for text in addresses {
        let Some(place) = text.strip_prefix("http://") else { continue };
        let found = match tokio::time::timeout(CONNECT, tokio::net::lookup_host(place)).await {
            Ok(Ok(found)) => found.map(reachable).collect(),
            Ok(Err(error)) => {
                why.push(format!("{place}: {error}"));
                Vec::new()
            }
            Err(_) => {
                why.push(format!("{place}: no answer to the look-up of its name"));
                Vec::new()
            }
        };
        for address in found {
            let visit = Visit { address, host: host.clone(), path: path.clone() };
            match tokio::time::timeout(CONNECT, Wire::open(address)).await {
                Ok(Ok(mut wire)) => return first(&mut wire, visit).await,
                Ok(Err(error)) => why.push(format!("{address}: {error}")),
                Err(_) => why.push(format!("{address}: no answer")),
            }
        }
    }
    let mut error = Error::usage("the proxy's listener can't be reached from here, and nothing was changed")
        .hint("`--at HOST:PORT` names where visitors reach it; or run this on the host itself");
    error.details = why;
    Err(error)
}

/// Sends the first request: what it is answered tells whether there is any sense in more.
async fn first(wire: &mut Wire, visit: Visit) -> Result<Visit, Error> {
    let Visit { address, host, path } = &visit;
    let hint = "nothing was changed; --path names what visitors are to ask for, --at where";
    let asked = format!("http://{host}{path} through {address}");
    let answer = visit.send(wire, FIRST, false).await;
    let answer = answer.map_err(|why| Error::usage(format!("{asked}: {why}")).hint(hint))?;
    if answer.field("x-request-id") != Some(FIRST) {
        return Err(Error::usage(format!("{address} is not the proxy: something else answers there")).hint(hint));
    }
    if answer.status >= 400 {
        return Err(Error::usage(format!("{asked} answered {}", answer.status_line())).hint(hint));
    }
    Ok(visit)
}

/// Returns an address that can be connected to: what listens on every one listens on that of this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Reads a path that visitors ask for.
pub(super) fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a path begins with `/`, and has no spaces".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(paths: &[&str], strip_path: bool) -> ServiceSettings {
        let paths = paths.iter().map(|path| path.parse().unwrap()).collect();
        ServiceSettings { paths, strip_path, ..ServiceSettings::default() }
    }

    #[test]
    fn visitors_reach_the_health_path_below_the_services_own() {
        assert_eq!(path_of(&settings(&[], false), "/up"), "/up");
        assert_eq!(path_of(&settings(&["/shop"], true), "/up"), "/shop/up");
        assert_eq!(path_of(&settings(&["/shop", "/"], false), "/up"), "/up");
        assert_eq!(path_of(&settings(&["/shop"], false), "/shop/up"), "/shop/up");
        // The health path itself can't be reached through the proxy.
        assert_eq!(path_of(&settings(&["/shop"], false), "/up"), "/shop");
    }

    #[test]
    fn what_listens_everywhere_is_reached_on_this_machine() {
        let reached =
            ["0.0.0.0:80", "[::]:81", "192.0.2.1:82"].map(|text| reachable(text.parse().unwrap()).to_string());
        assert_eq!(reached, ["127.0.0.1:80", "[::1]:81", "192.0.2.1:82"]);
    }

    #[tokio::test]
    async fn what_is_not_our_proxy_and_what_can_not_be_reached_is_said_before_anything_is_changed() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        });
        let ask = async |places: &[String]| reach(places, "shop".to_owned(), "/".to_owned()).await.unwrap_err();
        let other = ask(&[format!("http://{address}")]).await;
        assert!(other.message.contains("is not the proxy") && other.kind == Kind::Usage, "{other}");
        let unreachable = ask(&["https://127.0.0.1:443".to_owned()]).await;
        assert!(unreachable.message.contains("can't be reached"), "{unreachable}");
        assert!(unreachable.hints[0].contains("--at"));
    }
}
