//! The options of every command: where it works, and how it talks.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// The engine that runs slots
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// Containers
    #[default]
    Docker,
    /// Plain processes on this machine
    Process,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// The Docker host: an ssh name, user@host, or a URL (ssh:// unix:// tcp://)
    #[arg(short = 'H', long, global = true, env = config::paths::ENV_HOST, value_name = "HOST")]
    pub host: Option<String>,
    /// Reach a proxy directly on its admin socket
    #[arg(long, global = true, value_name = "PATH")]
    pub admin: Option<PathBuf>,
    /// What runs the slots (default docker)
    #[arg(long, global = true, value_enum)]
    pub engine: Option<EngineKind>,
    /// Prefix every name on the host, for a second gateway
    #[arg(long, global = true, env = config::paths::ENV_GATEWAY, value_name = "NAME")]
    pub gateway: Option<String>,
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A target of bluegreen.toml: its host, and what is different there
    #[arg(long, short, global = true, value_name = "NAME")]
    pub target: Option<String>,
    /// Print JSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Say nothing but warnings and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Say more
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Don't ask
    #[arg(long, short, global = true)]
    pub yes: bool,
}

impl Global {
    /// Returns what runs the slots.
    pub fn engine(&self) -> EngineKind {
        self.engine.unwrap_or_default()
    }
}
