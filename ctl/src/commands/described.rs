//! What `bluegreen.toml` says of a service, as the options that someone could have typed.

use std::path::{Path, PathBuf};

use ::config::error::Problem;
use ::config::name::ServiceName;
use ::config::paths;
use ::config::project::{self, CertificateFiles, Deployment, Project, Reading, Service};
use ::config::settings::ProxySettings;
use clap::ValueEnum;

use crate::commands::options::Run;
use crate::commands::rollout::Rollout;
use crate::context::Context;
use crate::engine;
use crate::error::Error;
use crate::global::{EngineKind, Global};

/// A file that was read.
pub(crate) struct Described {
    pub(crate) file: PathBuf,
    pub(crate) project: Project,
}

/// What a file says that names a service.
pub(crate) struct OfService {
    pub(crate) file: PathBuf,
    pub(crate) service: Service,
    pub(crate) proxy: OfProxy,
}

/// What a file says of the proxy itself.
#[derive(Default)]
pub(crate) struct OfProxy {
    /// Its own settings, where the file has the table.
    pub(crate) table: Option<ProxySettings>,
    /// Own certificates, which it is brought.
    pub(crate) certificates: Vec<CertificateFiles>,
}

impl Described {
    /// Reads the file of `--file`, else the one in the working folder, where there is one.
    ///
    /// # Errors
    /// Every problem of the file.
    pub(crate) fn find(context: &Context<'_>) -> Result<Option<Self>, Error> {
        let Some(file) = file(&context.global)? else { return Ok(None) };
        let project = project::load(&file, reading(&context.global)).map_err(|problems| refusal(&problems))?;
        Ok(Some(Self { file, project }))
    }

    /// As [`Described::find`], for commands that are about the file.
    ///
    /// # Errors
    /// Also where there is none.
    pub(crate) fn needed(context: &Context<'_>) -> Result<Self, Error> {
        Self::find(context)?.ok_or_else(|| {
            Error::usage(format!("there is no {} in this folder", project::FILE))
                .hint("`bgctl init` writes one; `--file FILE` names one elsewhere")
        })
    }

    /// Returns what the file says of a service, and of the proxy; a file that was named must say something.
    ///
    /// # Errors
    /// Every problem of the file, and a named file without the service.
    pub(crate) fn service(context: &Context<'_>, name: &ServiceName) -> Result<Option<OfService>, Error> {
        let Some(Self { file, project }) = Self::find(context)? else { return Ok(None) };
        match project.services.into_iter().find(|service| service.name == *name) {
            Some(service) => {
                let proxy = OfProxy { table: project.proxy, certificates: project.certificates };
                Ok(Some(OfService { file, service, proxy }))
            }
            None if context.global.file.is_none() => Ok(None),
            None => Err(unnamed(&file, Some(name))),
        }
    }
}

/// Returns how a run reads a file.
pub(crate) fn reading(global: &Global) -> Reading<'_> {
    Reading { judge: &engine::judge, variable: &paths::variable, target: global.target.as_deref() }
}

/// Returns the file that a run uses, which must be there where a target of it was named.
fn file(global: &Global) -> Result<Option<PathBuf>, Error> {
    if let Some(file) = &global.file {
        return Ok(Some(file.clone()));
    }
    let file = Some(PathBuf::from(project::FILE)).filter(|file| file.exists());
    match (&global.target, &file) {
        (Some(target), None) => Err(Error::usage(format!(
            "`{target}` is to be a target of {}, and there is none in this folder",
            project::FILE
        ))
        .hint("`--file FILE` names one elsewhere")),
        _ => Ok(file),
    }
}

/// Returns the host of a run: the one given, else the file's.
///
/// # Errors
/// Where the file can't be read: a command that would have worked there must not work here instead. So too where the environment
/// names one host and the target another.
pub(crate) fn host(global: &Global) -> Result<Option<String>, Error> {
    let given = global.host.clone();
    if global.admin.is_some() || global.engine() == EngineKind::Process || given.is_some() && global.target.is_none() {
        return Ok(given);
    }
    let Some(file) = file(global)? else { return Ok(given) };
    let found = project::host(&file, global.target.as_deref(), &paths::variable);
    let found = found.map_err(|problems| refusal(&problems).hint("`--host HOST` says where without the file"))?;
    match (given, found) {
        (Some(given), Some(found)) if found.is_of_target && found.name != given && from_environment(&given) => {
            let target = global.target.as_deref().unwrap_or_default();
            let what = format!("{} says {given}, and the target {target} is at {}", paths::ENV_HOST, found.name);
            Err(Error::usage(what).hint(format!("`unset {}`, or name one: --host HOST", paths::ENV_HOST)))
        }
        (given, found) => Ok(given.or(found.map(|found| found.name))),
    }
}

fn from_environment(host: &str) -> bool {
    paths::variable(paths::ENV_HOST).as_deref() == Some(host)
}

/// Returns the refusal of a file with all that is wrong with it.
pub(crate) fn refusal(problems: &[Problem]) -> Error {
    Error::usage(problems.iter().map(Problem::render).collect::<Vec<_>>().join("\n"))
}

/// Returns the refusal of a file that does not name a service, or none at all.
pub(crate) fn unnamed(file: &Path, service: Option<&ServiceName>) -> Error {
    let what = match service {
        Some(name) => format!("{} does not name the service `{name}`", file.display()),
        None => format!("{} names no service", file.display()),
    };
    Error::usage(what).hint("add [services.NAME] with its image, domains or paths")
}

/// Returns the file's service as the options of a switch.
pub(crate) fn options(service: Service) -> Run {
    // Taken apart field by field, so that a key that is read and then forgotten does not compile.
    let Deployment {
        port,
        domains,
        paths,
        strip_path,
        tls,
        health_path,
        health_port,
        health_host,
        health_headers,
        health_status,
        health_timeout,
        health_interval,
        healthy,
        deadline,
        image_health,
        drain,
        drain_tunnels,
        detach,
        pause,
        bake,
        bake_errors,
        bake_slow,
        keep,
        stop_grace,
        keep_images,
        pull,
        before,
        before_timeout,
        replicas,
        stop_first,
        no_port,
        note,
        lock_wait,
        env,
        env_files,
        volumes,
        mounts,
        tmpfs,
        networks,
        user,
        init,
        add_hosts,
        labels,
        memory,
        cpus,
        shm_size,
        ulimits,
        entrypoint,
        command,
    } = service.deployment;
    Run {
        rollout: Rollout {
            domain: domains,
            path: paths,
            strip_path,
            tls,
            health_path,
            health_port,
            health_host,
            health_header: health_headers,
            health_status,
            health_timeout,
            health_interval,
            healthy,
            deadline,
            drain,
            drain_tunnels,
            detach: detach == Some(true),
            bake,
            bake_errors,
            bake_slow,
            lock_wait,
        },
        port,
        pause: pause == Some(true),
        no_flip: false,
        go_on: false,
        image_health: image_health.and_then(|word| ValueEnum::from_str(&word, false).ok()),
        keep: keep.and_then(|word| ValueEnum::from_str(&word, false).ok()),
        stop_grace,
        pull,
        reset: false,
        dry_run: false,
        alone: false,
        env,
        env_file: env_files,
        volume: volumes,
        mount: mounts,
        tmpfs,
        network: networks,
        user,
        init,
        add_host: add_hosts,
        label: labels,
        memory,
        cpus,
        shm_size,
        ulimit: ulimits,
        entrypoint,
        before,
        before_timeout,
        replicas,
        stop_first: stop_first == Some(true),
        no_port: no_port == Some(true),
        note,
        keep_images,
        command,
        below: None,
        secrets: service.secrets,
        revealed: Vec::new(),
        begin_here: service.begin_here,
        hooks: service.hooks,
        served: service.options,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ::config::error::Source;
    use ::config::project::schema::{self, Takes};
    use clap::{Args as _, Command};

    use super::*;
    use crate::deploy::settings::Settings;

    fn read(text: &str) -> Run {
        let mut project = project::parse(&Source::new("/srv/shop/bluegreen.toml", text), reading(&Global::default()))
            .unwrap_or_else(|problems| panic!("{}", refusal(&problems)));
        options(project.services.remove(0))
    }

    /// What one run is asked, not how a service is run.
    const OF_ONE_RUN: [&str; 5] = ["reset", "dry_run", "no_flip", "continue", "alone"];

    #[test]
    fn every_option_of_a_switch_has_a_key_and_every_key_an_option() {
        let line = Run::augment_args(Command::new("switch"));
        let key = |argument: &clap::Arg| {
            let name = argument.get_long().unwrap_or("command").replace('-', "_");
            let is_key = |name: &str| schema::SERVICE.iter().any(|key| key.name == name);
            // An option that is given again for more is a list.
            [format!("{name}s"), name.clone()].into_iter().find(|name| is_key(name)).unwrap_or(name)
        };
        let mut wanted: BTreeSet<String> = line.get_arguments().map(key).collect();
        OF_ONE_RUN.iter().for_each(|name| assert!(wanted.remove(*name), "{name}"));
        // `--image` is not of `Run`, and `--env K` is written apart from `--env K=V`.
        // With whom a service goes is said once, in the file.
        wanted.extend(["image", "env_inherit", "with"].map(str::to_owned));
        // Of `bgctl route`.
        wanted.extend(["to", "no_health"].map(str::to_owned));
        let keys: BTreeSet<String> = schema::SERVICE.iter().map(|key| key.name.to_owned()).collect();
        assert_eq!(wanted, keys);
    }

    #[test]
    fn each_key_alone_changes_what_a_switch_is_asked() {
        let nothing = format!("{:?}", read("[services.shop]"));
        for key in schema::SERVICE.iter().filter(|key| !["image", "with", "to", "no_health"].contains(&key.name)) {
            let value = match (key.name, key.takes) {
                ("volumes", _) => "[\"./data:/data\"]",
                ("mounts", _) => "[\"type=bind,src=./data,dst=/data\"]",
                ("tmpfs" | "paths", _) => "[\"/t\"]",
                ("add_hosts", _) => "[\"db:10.0.0.1\"]",
                ("ulimits", _) => "[\"nofile=10\"]",
                ("health_path", _) => "\"/up\"",
                ("strip_path", _) => "true\npaths = [\"/api\"]",
                (_, Takes::Text) => "\"word\"",
                (_, Takes::Texts) => "[\"word\"]",
                (_, Takes::Any) => "1.5",
                (_, Takes::Size) => "\"64m\"",
                (_, Takes::Table) => "{ K = \"v\" }",
                (_, Takes::Flag) => "true",
                (_, Takes::Whole(..) | Takes::Share) => "7",
                (_, Takes::Status) => "\"204\"",
                (_, Takes::Time) => "\"7s\"",
                (_, Takes::Word(words)) => &format!("\"{}\"", words[1]),
                (name, Takes::Number(_) | Takes::Keys(_) | Takes::Tables(_) | Takes::FlagOrKeys(_)) => {
                    panic!("`{name}` is among the options, not a key of the service itself")
                }
            };
            let text = format!("[services.shop]\n{} = {value}\n", key.name);
            assert_ne!(format!("{:?}", read(&text)), nothing, "{text}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_what_the_live_slot_runs_with() {
        let mut settings = Settings { port: Some(1), ..Settings::default() };
        settings.run.env = ["A=live", "B=live", "C=live"].map(str::to_owned).to_vec().into();
        settings.run.init = true;
        settings.run.volumes = vec!["data:/data".to_owned()];
        let file = read(
            "[services.shop]\nport = 2\ninit = false\nbake = \"1s\"\nvolumes = []\nnote = \"file\"\npause = true\n\
             [services.shop.env]\nB = \"file\"\nC = 3\n[services.shop.options]\nsticky = true\n",
        );
        let flags = Run { env: vec!["C=flag".to_owned()], ..Run::default() };
        let run = Run { rollout: Rollout { bake: Some(std::time::Duration::ZERO), ..Rollout::default() }, ..flags };
        let run = run.over(file);
        run.apply(&mut settings).unwrap();
        assert_eq!(*settings.run.env, ["A=live", "B=file", "C=flag"]);
        assert_eq!((settings.port, settings.run.init, settings.bake.is_zero()), (Some(2), false, true));
        assert!(settings.run.volumes.is_empty() && settings.routes.options.unwrap().sticky);
        assert_eq!((run.note.as_deref(), run.pause), (Some("file"), true));
    }

    #[test]
    fn a_volume_of_the_file_begins_here_unless_a_flag_replaces_it() {
        let file = "[services.shop]\nvolumes = [\"/abs:/a\", \"./data:/data\"]\n";
        assert_eq!(Run::default().over(read(file)).begins_here(), Some("/srv/shop/data:/data"));
        let flag = Run { volume: Some(vec!["/abs:/a".to_owned()]), ..Run::default() };
        assert_eq!(flag.over(read(file)).begins_here(), None);
        assert_eq!(Run::default().begins_here(), None);
    }

    #[test]
    fn paths_in_the_file_begin_in_its_folder() {
        let run = read(
            "[services.shop]\nenv_files = [\".env\"]\nvolumes = [\"./data:/data:ro\", \"named:/n\", \"/abs:/a\"]\n\
             mounts = [\"type=bind,source=../up,target=/u\"]\n",
        );
        assert_eq!(run.env_file, ["/srv/shop/.env"]);
        assert_eq!(run.volume.unwrap(), ["/srv/shop/data:/data:ro", "named:/n", "/abs:/a"]);
        assert_eq!(run.mount.unwrap(), ["type=bind,source=/srv/shop/../up,target=/u"]);
    }
}
