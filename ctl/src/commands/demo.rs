//! `bgctl demo`.

use clap::Args;

use crate::context::Context;
use crate::error::{Error, ExitCode};

/// A zero-downtime switch on this machine with real traffic, and its proof
#[derive(Debug, Args)]
pub struct Demo {}

impl Demo {
    pub(crate) async fn run(self, _: &Context<'_>) -> Result<ExitCode, Error> {
        Err(Error::not_there_yet("bgctl demo"))
    }
}
