//! The options of a new version, which `switch` and `deploy` share, and what they make of the settings of the one before.

use std::time::Duration;

use ::config::duration;
use ::config::name::ServiceName;
use ::config::options::ServiceOptions;
use ::config::project::{Hooks, Secret};
use clap::Args;

use crate::commands::env_file;
use crate::commands::rollout::Rollout;
use crate::commands::secret::{self, Revealed};
use crate::deploy::settings::{ImageHealth, Keep, Settings};
use crate::engine::{Pull, RunSettings};
use crate::error::Error;

/// More instances of one service on one host are a mistyped number.
pub(crate) const MOST_REPLICAS: i64 = 100;

/// How a new version is run.
#[derive(Debug, Clone, Default, Args)]
#[expect(missing_docs, reason = "each is described for the user of the command line")]
pub struct Run {
    #[command(flatten)]
    pub rollout: Rollout,
    /// The port that the application listens on (default: the image's only exposed one, else 8080)
    #[arg(long)]
    pub port: Option<u16>,
    /// It takes no requests, a worker: healthy by the image's own HEALTHCHECK, else once it has run for 5 s
    #[arg(long, conflicts_with_all = ["port", "domain", "path", "strip_path"])]
    pub no_port: bool,
    /// Hold visitors around the flip, for versions that can't serve side by side
    #[arg(long)]
    pub pause: bool,
    /// End before the flip: the new version is there for a canary, and `--continue` goes on
    #[arg(long, conflicts_with_all = ["detach", "pause"])]
    pub no_flip: bool,
    /// Flip to what `--no-flip` has staged
    #[arg(long = "continue", conflicts_with_all = ["no_flip", "dry_run"])]
    pub go_on: bool,
    /// What becomes of the image's own HEALTHCHECK
    #[arg(long, value_enum)]
    pub image_health: Option<ImageHealth>,
    /// What becomes of the old container after the bake (default stopped)
    #[arg(long, value_enum)]
    pub keep: Option<Keep>,
    /// How long the old container may take to stop (default 10s)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub stop_grace: Option<Duration>,
    /// Whether to pull the image (default missing)
    #[arg(long, value_parser = ["missing", "always", "never"])]
    pub pull: Option<String>,
    /// Start from the defaults instead of what the live slot runs with
    #[arg(long)]
    pub reset: bool,
    /// Show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Without the services that the file switches together with it (`with`)
    #[arg(long)]
    pub alone: bool,
    /// An environment variable: K=V, or K from mine
    #[arg(long, short, value_name = "K=V")]
    pub env: Vec<String>,
    /// A file of them; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
    /// As docker's
    #[arg(long)]
    pub volume: Option<Vec<String>>,
    /// As docker's
    #[arg(long)]
    pub mount: Option<Vec<String>>,
    /// As docker's
    #[arg(long)]
    pub tmpfs: Option<Vec<String>>,
    /// A network besides the gateway's
    #[arg(long)]
    pub network: Option<Vec<String>>,
    /// As docker's
    #[arg(long)]
    pub user: Option<String>,
    /// As docker's
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub init: Option<bool>,
    /// As docker's
    #[arg(long)]
    pub add_host: Option<Vec<String>>,
    /// As docker's
    #[arg(long)]
    pub label: Option<Vec<String>>,
    /// As docker's
    #[arg(long)]
    pub memory: Option<String>,
    /// As docker's
    #[arg(long)]
    pub cpus: Option<String>,
    /// As docker's
    #[arg(long)]
    pub shm_size: Option<String>,
    /// As docker's
    #[arg(long)]
    pub ulimit: Option<Vec<String>>,
    /// As docker's
    #[arg(long)]
    pub entrypoint: Option<String>,
    /// Run this in a one-off container of the new image before it starts: migrations; empty is nothing any more
    #[arg(long, value_name = "CMD")]
    pub before: Option<String>,
    /// How long that may take (default 10m)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub before_timeout: Option<Duration>,
    /// So many instances, among which requests are shared out (default: as many as there are, else 1)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_REPLICAS))]
    pub replicas: Option<u32>,
    /// Stop the old version before the new one starts, for those that can't run side by side; visitors wait meanwhile
    #[arg(long, conflicts_with_all = ["no_flip", "go_on"])]
    pub stop_first: bool,
    /// What `history` is to remember of it
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Images of past deployments that `prune` leaves (default 3)
    #[arg(long, value_name = "N")]
    pub keep_images: Option<u32>,
    /// The command instead of the image's own
    #[arg(last = true)]
    pub command: Option<Vec<String>>,
    /// What the file says, over which these lie
    #[arg(skip)]
    pub below: Option<Box<Self>>,
    /// Variables whose values nobody may see, which the file alone can name
    #[arg(skip)]
    pub secrets: Vec<Secret>,
    /// Their values, once they are read
    #[arg(skip)]
    pub revealed: Vec<Revealed>,
    /// Volumes and mounts of the file that begin on this machine
    #[arg(skip)]
    pub begin_here: Vec<String>,
    /// What is run around it, which the file alone can say
    #[arg(skip)]
    pub hooks: Hooks,
    /// How requests are served, which the file alone can say
    #[arg(skip)]
    pub served: Option<ServiceOptions>,
}

impl Run {
    /// Returns what to do about a missing image.
    pub(crate) fn pull(&self) -> Pull {
        match self.pull.as_deref() {
            Some("always") => Pull::Always,
            Some("never") => Pull::Never,
            _ => Pull::Missing,
        }
    }

    /// Returns these options with what they leave open taken from the file's.
    #[must_use]
    pub(crate) fn over(mut self, file: Self) -> Self {
        self.rollout.detach |= file.rollout.detach && !self.no_flip && !self.pause;
        self.pause |= file.pause && !self.no_flip && !self.rollout.detach;
        self.rollout.lock_wait = self.rollout.lock_wait.or(file.rollout.lock_wait);
        self.pull = self.pull.or_else(|| file.pull.clone());
        self.note = self.note.or_else(|| file.note.clone());
        self.hooks.clone_from(&file.hooks);
        // What becomes a setting is laid over the live slot's: the file first, then these.
        self.below = Some(Box::new(file));
        self
    }

    /// Reads the secrets of the file.
    ///
    /// # Errors
    /// Wrong usage with the name of each that could not be read.
    pub(crate) async fn reveal(&mut self, service: &ServiceName) -> Result<(), Error> {
        if let Some(file) = &mut self.below {
            file.revealed = secret::reveal(service, &file.secrets).await?;
        }
        Ok(())
    }

    /// Returns a volume or mount that would be another folder on another host than was meant: one that was written as a relative path.
    pub(crate) fn begins_here(&self) -> Option<&str> {
        let file = self.below.as_ref()?;
        let volumes = self.volume.as_ref().or(file.volume.as_ref());
        let mounts = self.mount.as_ref().or(file.mount.as_ref());
        let mut used = volumes.into_iter().chain(mounts).flatten();
        used.find(|place| file.begin_here.contains(place)).map(String::as_str)
    }

    /// Lays what a proxy does of it over the settings of before.
    ///
    /// # Errors
    /// Wrong usage.
    pub(crate) fn route(&self, settings: &mut Settings) -> Result<(), Error> {
        if self.served.is_some() {
            settings.routes.options.clone_from(&self.served);
        }
        self.rollout.apply(settings)
    }

    /// Lays the options over the settings of before.
    ///
    /// # Errors
    /// Wrong usage, what is not there yet, and an environment file that can't be read.
    pub(crate) fn apply(&self, settings: &mut Settings) -> Result<(), Error> {
        if let Some(file) = &self.below {
            file.apply(settings)?;
        }
        self.route(settings)?;
        settings.port = self.port.or(settings.port);
        settings.no_port = self.no_port || (settings.no_port && self.port.is_none());
        if settings.no_port && (self.rollout.domain.is_some() || self.rollout.path.is_some()) {
            return Err(Error::usage(
                "it is deployed with --no-port, so it takes no requests, of whichever host and path",
            )
            .hint("--port gives it one"));
        }
        if settings.no_port || settings.routes.no_route.is_some() {
            settings.routes.no_route = Some(settings.no_port);
        }
        settings.image_health = self.image_health.unwrap_or(settings.image_health);
        settings.keep = self.keep.unwrap_or(settings.keep);
        settings.keep_images = self.keep_images.unwrap_or(settings.keep_images);
        if let Some(before) = &self.before {
            settings.before = Some(before.trim().to_owned()).filter(|line| !line.is_empty());
        }
        settings.stop_first |= self.stop_first;
        settings.replicas = self.replicas.unwrap_or(settings.replicas);
        settings.before_timeout = self.before_timeout.unwrap_or(settings.before_timeout);
        settings.stop_grace = self.stop_grace.unwrap_or(settings.stop_grace);
        let RunSettings {
            env,
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
        } = &mut settings.run;
        for file in &self.env_file {
            env_file::read(file)?.into_iter().for_each(|pair| env_file::set(env, pair));
        }
        for pair in &self.env {
            match pair.contains('=') {
                true => env_file::set(env, pair.clone()),
                // As docker does it: a name that I don't have either is left out.
                false => {
                    if let Some(value) = ::config::paths::variable(pair) {
                        env_file::set(env, format!("{pair}={value}"));
                    }
                }
            }
        }
        self.revealed.iter().for_each(|secret| env_file::set(env, secret.pair()));
        for Secret { name, .. } in &self.secrets {
            if !settings.secrets.contains(name) {
                settings.secrets.push(name.clone());
            }
        }
        for (present, given) in [
            (volumes, &self.volume),
            (mounts, &self.mount),
            (tmpfs, &self.tmpfs),
            (networks, &self.network),
            (add_hosts, &self.add_host),
            (labels, &self.label),
            (ulimits, &self.ulimit),
            (command, &self.command),
        ] {
            if let Some(given) = given {
                present.clone_from(given);
            }
        }
        for (present, given) in [
            (user, &self.user),
            (memory, &self.memory),
            (cpus, &self.cpus),
            (shm_size, &self.shm_size),
            (entrypoint, &self.entrypoint),
        ] {
            if given.is_some() {
                present.clone_from(given);
            }
        }
        *init = self.init.unwrap_or(*init);
        if settings.stop_first && settings.keep == Keep::Warm {
            return Err(Error::usage("with --stop-first the old version is stopped, so it can't be kept warm")
                .hint("--keep stopped keeps it to go back to"));
        }
        if settings.stop_first && self.no_flip {
            return Err(Error::usage("without a flip both versions run, and this one is deployed with --stop-first")
                .hint("--reset forgets that, with all other settings"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_what_the_live_slot_runs_with_and_the_rest_is_kept() {
        let mut settings = Settings { port: Some(9000), bake: Duration::from_secs(1), ..Settings::default() };
        settings.run.env = vec!["A=1".to_owned(), "B=2".to_owned()].into();
        settings.run.volumes = vec!["data:/data".to_owned()];
        let options = Run {
            env: vec!["A=3".to_owned()],
            keep: Some(Keep::Warm),
            rollout: Rollout { drain: Some(Duration::from_secs(5)), ..Rollout::default() },
            ..Run::default()
        };
        options.apply(&mut settings).unwrap();
        assert_eq!(*settings.run.env, ["B=2", "A=3"]);
        assert_eq!(settings.run.volumes, ["data:/data"]);
        assert_eq!((settings.port, settings.keep), (Some(9000), Keep::Warm));
        assert_eq!((settings.bake, settings.drain), (Duration::from_secs(1), Duration::from_secs(5)));
    }

    #[test]
    fn what_is_stopped_first_is_remembered_and_is_neither_kept_warm_nor_left_beside_another() {
        let mut settings = Settings::default();
        Run { stop_first: true, ..Run::default() }.apply(&mut settings).unwrap();
        Run::default().apply(&mut settings).unwrap();
        assert!(settings.stop_first);
        for wrong in [Run { keep: Some(Keep::Warm), ..Run::default() }, Run { no_flip: true, ..Run::default() }] {
            assert!(!wrong.apply(&mut settings.clone()).unwrap_err().hints.is_empty());
        }
    }
}
