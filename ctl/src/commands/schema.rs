//! `bgctl schema`: what an editor needs to complete and check `bluegreen.toml`.

use ::config::project::schema::schema;
use clap::Args;

use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Print the JSON schema of bluegreen.toml
#[derive(Debug, Args)]
pub struct Schema {}

impl Schema {
    #[expect(clippy::unused_async, reason = "every command is run in the same way")]
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        context.ui.document(&schema());
        Ok(ExitCode::DONE)
    }
}
