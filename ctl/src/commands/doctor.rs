//! `bgctl doctor`.

use clap::Args;

use crate::context::Context;
use crate::error::{Error, ExitCode};

/// What is wrong with this host, and the line that mends it
#[derive(Debug, Args)]
pub struct Doctor {}

impl Doctor {
    pub(crate) async fn run(self, _: &Context<'_>) -> Result<ExitCode, Error> {
        Err(Error::not_there_yet("bgctl doctor"))
    }
}
