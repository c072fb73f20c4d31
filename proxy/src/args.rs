//! The command line of `bgproxy`. A flag beats the file, the file beats the default.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use config::error::Problem;
use config::load::{self, Presence};
use config::model::Model;
use config::paths;

use crate::app::Options;

/// A reverse proxy whose upstream is switched by one pointer swap.
#[derive(Debug, Parser)]
#[command(name = "bgproxy", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join stdin and stdout to the admin socket
    Relay {
        /// The admin socket
        #[arg(long, value_name = "PATH")]
        admin: Option<PathBuf>,
    },
    /// Do nothing until SIGTERM: holds a network namespace open
    Hold,
    /// Start this program in the place of the running proxy, which hands it everything: no request fails by it
    Upgrade {
        /// The successor's command line; where nothing but `--admin` is given, that of the running proxy
        #[command(flatten)]
        serve: Serve,
    },
}

/// How to serve.
#[derive(Debug, Default, clap::Args)]
pub struct Serve {
    /// The configuration [default: /etc/bluegreen/bgproxy.toml, where it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// An address to listen on; may be given several times [default: 0.0.0.0:80 and the same of IPv6]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<SocketAddr>,
    /// An address to listen on for TLS; may be given several times [default: port 443, once there is a certificate]
    #[arg(long, value_name = "ADDR")]
    pub listen_tls: Vec<SocketAddr>,
    /// The admin socket [default: /run/bluegreen/admin.sock]
    #[arg(long, value_name = "PATH")]
    pub admin: Option<PathBuf>,
    /// The folder of saved state [default: /var/lib/bluegreen]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroUsize>,
    /// Take over from the proxy that uses the state folder, where one runs; else just start
    #[arg(long)]
    pub take_over: bool,
    /// Check the configuration and exit: 0 where it is good, else 1
    #[arg(long)]
    pub check: bool,
}

impl Serve {
    /// Reads the configuration that the flags name.
    ///
    /// # Errors
    /// Every problem of the file.
    pub fn model(&self) -> Result<Model, Vec<Problem>> {
        match &self.config {
            Some(path) => load::load(path, Presence::Required),
            None => load::load(Path::new(paths::PROXY_CONFIG), Presence::Optional),
        }
    }

    /// Returns what to run, given the file's configuration.
    pub fn options(&self, model: &Model) -> Options {
        Options {
            config: Some(self.config.clone().unwrap_or_else(|| paths::PROXY_CONFIG.into())),
            listen: self.listen.clone(),
            listen_tls: self.listen_tls.clone(),
            admin: self.admin.clone().unwrap_or_else(|| model.admin.clone()),
            state: self.state.clone().unwrap_or_else(|| model.state.clone()),
            workers: self.workers.map_or_else(|| model.workers.count(), NonZeroUsize::get),
            takes_over: self.take_over,
            program: None,
        }
    }

    /// Returns the flags as they would be typed, but for those that are no part of how to serve; empty where none is given.
    pub fn arguments(&self) -> Vec<String> {
        let Self { config, listen, listen_tls, admin, state, workers, take_over: _, check: _ } = self;
        let path = |flag: &str, path: &Option<PathBuf>| {
            path.iter().flat_map(|path| [flag.to_owned(), path.display().to_string()]).collect::<Vec<_>>()
        };
        let addresses = |flag: &str, all: &[SocketAddr]| {
            all.iter().flat_map(|address| [flag.to_owned(), address.to_string()]).collect::<Vec<_>>()
        };
        let workers = workers.iter().flat_map(|workers| ["--workers".to_owned(), workers.to_string()]);
        let serve = [path("--config", config), path("--state", state)];
        let listen = [addresses("--listen", listen), addresses("--listen-tls", listen_tls)];
        let rest: Vec<String> = serve.into_iter().chain(listen).flatten().chain(workers).collect();
        if rest.is_empty() { rest } else { [path("--admin", admin), rest].concat() }
    }
}

/// Returns the socket that a relay joins: the flag's, else that of the default file, else the default.
pub fn relay_socket(flag: Option<PathBuf>) -> PathBuf {
    flag.unwrap_or_else(|| Serve::default().model().unwrap_or_default().admin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Args {
        Args::try_parse_from([&["bgproxy"], words].concat()).unwrap()
    }

    #[test]
    fn a_flag_beats_the_file() {
        let model = Model { admin: "/file.sock".into(), state: "/file".into(), ..Model::default() };
        let options =
            parse(&["--listen", "127.0.0.1:1", "--listen", "[::1]:2", "--admin", "/flag.sock"]).serve.options(&model);
        assert_eq!(options.admin, Path::new("/flag.sock"));
        assert_eq!(options.state, Path::new("/file"));
        assert_eq!(options.listen.len(), 2);
        assert!(options.workers > 0);
    }

    #[test]
    fn flags_can_be_typed_again() {
        let words = ["--admin", "/a", "--config", "/c", "--state", "/s", "--listen", "127.0.0.1:1", "--workers", "2"];
        let serve = parse(&words).serve;
        assert_eq!(serve.arguments(), words);
        assert!(parse(&["--admin", "/a"]).serve.arguments().is_empty());
    }

    #[test]
    fn subcommands_are_known() {
        assert!(matches!(parse(&["upgrade", "--admin", "/a"]).command, Some(Command::Upgrade { .. })));
        assert!(matches!(parse(&["relay", "--admin", "/a"]).command, Some(Command::Relay { admin: Some(_) })));
        assert!(matches!(parse(&["hold"]).command, Some(Command::Hold)));
        assert!(Args::try_parse_from(["bgproxy", "--check", "hold"]).is_err());
    }
}
