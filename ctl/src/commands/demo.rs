//! `bgctl demo`.

use std::path::PathBuf;

use clap::Args;

use crate::context::Context;
use crate::demo::{self, Play};
use crate::deploy::report::Failure;
use crate::error::{Error, ExitCode};

/// A zero-downtime switch on this machine with real traffic, and its proof
///
/// Runs version 1 of a small application behind a proxy of its own, on a free port: in Docker where an engine answers on
/// this machine and both programs are static, else as plain processes. It puts steady traffic on it, switches to version
/// 2 and back, and takes everything away again. Exit code 7 where a request failed.
#[derive(Debug, Args)]
pub struct Demo {
    /// Load in 2 and 1 s instead of 10 and 5 s
    #[arg(long)]
    fast: bool,
    /// The proxy's program, where it is neither beside bgctl nor in PATH
    #[arg(long, value_name = "FILE")]
    proxy_binary: Option<PathBuf>,
}

impl Demo {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let play = Play { fast: self.fast, proxy_binary: self.proxy_binary, engine: context.global.engine };
        let played = play.run(context.ui, &context.interrupt).await;
        if let Err(error) = &played {
            context.ui.event(&Failure::of(&demo::service(), error));
        }
        played
    }
}
