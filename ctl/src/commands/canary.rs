//! `bgctl canary`: a share of visitors on the idle slot.

use ::config::admin::request;
use ::config::name::ServiceName;
use clap::Args;

use super::{has_visitors, known};
use crate::context::{Context, who};
use crate::error::{Error, ExitCode, Kind};

/// Send a share of visitors to the idle slot; each stays where a cookie put it, and the proxy ends it where that slot does far worse
#[derive(Debug, Args)]
pub struct Canary {
    /// The service
    service: ServiceName,
    /// Of a hundred visitors; 0 ends it
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    percent: u8,
}

impl Canary {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let Self { service: name, percent } = self;
        context.say_target(&format!("canary of {name} {percent}")).await?;
        let mut client = context.admin().await?;
        let service = known(&mut client, &name).await?;
        if percent > 0 {
            has_visitors(&service)?;
        }
        client.acquire(&name, who(), format!("canary {percent}")).await?;
        let wanted = request::Canary { percent, ..request::Canary::default() };
        let outcome = client.canary(&name, &wanted).await;
        // A lease that can't be given back ends by itself.
        let _gone = client.release().await;
        let service = outcome.map_err(|error| {
            // Whatever the reason is, what was refused here sends visitors to a slot.
            let mut error = Error::from(error);
            if error.kind == Kind::Unhealthy {
                error.kind = Kind::NoFlip;
            }
            error
        })?;
        match &service.canary {
            Some(canary) => {
                context.ui.announce(&format!("CANARY: {percent} of 100 visitors of {name} on {}", canary.slot));
                context.ui.say(&format!("all of them: {}", context.line("flip", &name)));
                context.ui.say(&format!("none any more: {}", context.line_with("canary", &name, "0")));
            }
            None => context.ui.announce(&format!("all visitors of {name} are on the live slot")),
        }
        if context.ui.tone().json {
            context.ui.document(&service);
        }
        Ok(ExitCode::DONE)
    }
}
