//! `bgctl preview`: a link to the version that waits for its flip.

use std::time::Duration;

use ::config::name::ServiceName;
use clap::Args;

use super::{has_visitors, known};
use crate::context::{Context, who};
use crate::deploy::preview::{Wanted, link};
use crate::error::{Error, ExitCode};

/// Print a link by which a version that waits for its flip (`switch --no-flip`) is looked at through the service's own domain
#[derive(Debug, Args)]
pub struct Preview {
    /// The service
    service: ServiceName,
    /// How long the link holds
    #[arg(long = "for", value_name = "TIME", value_parser = ::config::duration::parse, default_value = "1h")]
    lasts: Duration,
    /// Where it leads
    #[arg(long, value_name = "PATH", value_parser = super::verify::path, default_value = "/")]
    path: String,
}

impl Preview {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let Self { service: name, lasts, path } = self;
        context.say_target(&format!("preview of {name}")).await?;
        let engine = context.slots_engine().await?.map(|engine| &**engine);
        let mut client = context.admin().await?;
        has_visitors(&known(&mut client, &name).await?)?;
        client.acquire(&name, who(), "preview".to_owned()).await?;
        let made = link(&mut client, engine, &name, Wanted { lasts, path: &path }).await;
        // A lease that can't be given back ends by itself.
        let _gone = client.release().await;
        let made = made?;
        if context.ui.tone().json {
            context.ui.document(&made);
        } else {
            context.ui.data(&made.url);
        }
        context.ui.say(&format!("whoever has it sees {name} on {} until {}", made.slot, made.expires));
        context.ui.say(&format!("all visitors: {}", context.line_with("switch", &name, "--continue")));
        Ok(ExitCode::DONE)
    }
}
