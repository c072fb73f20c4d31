//! `bgctl events`: follows what happens in the proxy.

use clap::Args;

use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Follow what happens in the proxy, one JSON object a line
#[derive(Debug, Args)]
pub struct Events {}

impl Events {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let mut client = context.admin().await?;
        let mut events = client.events().await?;
        while let Some(event) = events.next().await? {
            context.ui.data(&serde_json::to_string(&event).expect("an event is JSON"));
        }
        Ok(ExitCode::DONE)
    }
}
