//! `bgctl complete`: names for the scripts of `bgctl completions`.
//!
//! Someone waits with a finger on a key: names that were seen a moment ago are told at once, else the proxy is asked for half a
//! second at most. One that is reached by ssh is never asked, since that may want a password.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ::config::admin::response::ServiceStatus;
use clap::{Args, ValueEnum};
use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::engine::docker::Docker;
use crate::error::{Error, ExitCode};
use crate::global::{EngineKind, Global};

/// Names as fresh as this are told without asking.
const FRESH: Duration = Duration::from_secs(10);
/// For so long the proxy is asked.
const PATIENCE: Duration = Duration::from_millis(500);

/// Names for completions
#[derive(Debug, Args)]
pub struct Complete {
    /// What kind of name
    what: What,
    /// The line so far, whose options say which proxy is meant
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    line: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    Services,
}

impl Complete {
    /// Prints a name a line; where none can be found out it prints none, and is no failure.
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let What::Services = self.what;
        let mut meant = context.global.clone();
        point(&mut meant, &self.line);
        let cached = read(&meant);
        let names = match cached {
            Some((names, age)) if age < FRESH => names,
            cached => {
                let place = Context::new(meant.clone(), context.ui, context.interrupt.clone());
                let asked = tokio::time::timeout(PATIENCE, ask(&place)).await.ok().flatten();
                asked.or(cached.map(|(names, _)| names)).unwrap_or_default()
            }
        };
        names.iter().for_each(|name| context.ui.data(name));
        Ok(ExitCode::DONE)
    }
}

async fn ask(place: &Context<'_>) -> Option<Vec<String>> {
    if is_far(&place.global) {
        return None;
    }
    let status = place.admin().await.ok()?.status().await.ok()?;
    let names: Vec<String> = status.services.iter().map(|service| service.name.to_string()).collect();
    keep(&place.global, &names);
    Some(names)
}

/// Tells whether a proxy is reached by a connection that may ask for something.
fn is_far(place: &Global) -> bool {
    let is_docker = place.admin.is_none() && place.engine() == EngineKind::Docker;
    is_docker && !Docker::would_be_here(place.host.as_deref())
}

/// Keeps the names of a proxy that is not asked for them, since someone has just looked at it.
pub(crate) fn remember(place: &Global, services: &[ServiceStatus]) {
    if is_far(place) {
        keep(place, &services.iter().map(|service| service.name.to_string()).collect::<Vec<_>>());
    }
}

/// Keeps names for the next completion; what can't be kept is asked for again.
fn keep(place: &Global, names: &[String]) {
    let Some(path) = file(place) else { return };
    let folder = path.parent().map(std::fs::create_dir_all);
    if matches!(folder, Some(Ok(()))) {
        drop(std::fs::write(path, names.join("\n")));
    }
}

fn read(place: &Global) -> Option<(Vec<String>, Duration)> {
    let path = file(place)?;
    let changed = std::fs::metadata(&path).ok()?.modified().ok()?;
    let names = std::fs::read_to_string(path).ok()?.lines().map(str::to_owned).collect();
    // A clock that was set back makes them old, not new.
    Some((names, SystemTime::now().duration_since(changed).unwrap_or(Duration::MAX)))
}

/// Returns the file of a proxy's names: everything that tells it from another is in its name.
fn file(place: &Global) -> Option<PathBuf> {
    let cache = ::config::paths::variable("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(::config::paths::variable("HOME")?).join(".cache")))?;
    let variables = [::config::paths::ENV_DOCKER_HOST, ::config::paths::ENV_DOCKER_CONTEXT];
    let around = variables.map(|name| ::config::paths::variable(name).unwrap_or_default());
    let what = format!("{:?} {:?} {:?} {:?} {around:?}", place.host, place.admin, place.engine(), place.gateway);
    let digest = Sha256::digest(what.as_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Some(cache.join("bluegreen").join(format!("names-{name}")))
}

/// Takes the options that say where from a line that is not finished.
fn point(place: &mut Global, line: &[String]) {
    let mut words = line.iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if word.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let mut value = || value.clone().or_else(|| words.next().cloned()).filter(|value| !value.is_empty());
        match name {
            "-H" | "--host" => place.host = value().or(place.host.take()),
            "--gateway" => place.gateway = value().or(place.gateway.take()),
            "--admin" => place.admin = value().map(PathBuf::from).or(place.admin.take()),
            "--engine" => {
                place.engine = value().and_then(|kind| EngineKind::from_str(&kind, true).ok()).or(place.engine)
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_line_says_which_proxy_is_meant() {
        let mut place = Global { gateway: Some("other".to_owned()), ..Global::default() };
        let line = ["-H", "production", "--engine=process", "flip", "--gateway", ""].map(str::to_owned);
        point(&mut place, &line);
        assert_eq!((place.host.as_deref(), place.engine), (Some("production"), Some(EngineKind::Process)));
        assert_eq!(place.gateway.as_deref(), Some("other"));
        assert_ne!(file(&place), file(&Global::default()));
    }
}
