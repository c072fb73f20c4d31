//! `bgctl down`: removes what we made.

use clap::Args;

use crate::commands::confirm::ask;
use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Remove what we made
#[derive(Debug, Args)]
pub struct Down {
    /// Remove the proxy's saved state too
    #[arg(long)]
    volumes: bool,
}

impl Down {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        context.say_target("down").await?;
        let engine = context.engine().await?;
        let ours = engine.instances(None).await?.into_iter().filter(|instance| !instance.is_adopted());
        let mut going: Vec<String> = ours.map(|instance| instance.name).collect();
        going.push("the proxy and what it needs".to_owned());
        if self.volumes {
            going.push("the proxy's saved state".to_owned());
        }
        ask(context, &going).await?;
        let removed = engine.down(self.volumes).await?;
        if context.ui.tone().json {
            context.ui.document(&serde_json::json!({ "removed": removed }));
        } else {
            removed.iter().for_each(|line| context.ui.say(line));
        }
        Ok(ExitCode::DONE)
    }
}
