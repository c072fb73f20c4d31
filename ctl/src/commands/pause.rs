//! `bgctl pause` and `bgctl resume`: requests are held, and let go.

use std::time::Duration;

use ::config::admin::request;
use ::config::defaults;
use ::config::duration;
use ::config::name::ServiceName;
use clap::Args;

use super::{has_visitors, known};
use crate::context::{Context, who};
use crate::error::{Error, ExitCode};

/// Hold requests: visitors wait, bounded in number and time, until `resume`
#[derive(Debug, Args)]
pub struct Pause {
    /// The service
    service: ServiceName,
    /// How long a request waits; then it is answered 503 (default 30s)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    wait: Option<Duration>,
    /// How many requests wait at once; more are answered 503 (default 1024)
    #[arg(long, value_name = "N")]
    requests: Option<u32>,
    /// The pause is over by itself after this (default 5m)
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    lasts: Option<Duration>,
    /// Also wait so long until nothing is in flight
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "0s")]
    drain: Duration,
}

/// Let held requests go
#[derive(Debug, Args)]
pub struct Resume {
    /// The service
    service: ServiceName,
}

impl Pause {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let name = self.service;
        context.say_target(&format!("pause {name}")).await?;
        let mut client = context.admin().await?;
        has_visitors(&known(&mut client, &name).await?)?;
        client.acquire(&name, who(), "pause".to_owned()).await?;
        let pause = request::Pause {
            wait: self.wait.unwrap_or(defaults::PAUSE_WAIT),
            requests: self.requests.unwrap_or(defaults::PAUSED_REQUESTS),
            lasts: self.lasts.unwrap_or(defaults::PAUSE_LASTS),
            drain: self.drain,
        };
        let paused = client.pause(&name, &pause).await;
        // A lease that can't be given back ends by itself; the pause goes on without it.
        let _gone = client.release().await;
        let paused = paused?;
        let (wait, lasts) = (duration::format(pause.wait), duration::format(pause.lasts));
        context.ui.announce(&format!(
            "PAUSED: {name} holds up to {} requests for {wait} each; {} in flight",
            pause.requests, paused.in_flight
        ));
        context.ui.say(&format!("it ends by itself after {lasts}, or with: {}", context.line("resume", &name)));
        if context.ui.tone().json {
            context.ui.document(&paused);
        }
        Ok(ExitCode::DONE)
    }
}

impl Resume {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let name = self.service;
        context.say_target(&format!("resume {name}")).await?;
        let mut client = context.admin().await?;
        let paused = known(&mut client, &name).await?.paused;
        let service = client.resume(&name).await?;
        match paused {
            Some(paused) => context.ui.announce(&format!("{name} goes on: {} requests let go", paused.waiting)),
            None => context.ui.say(&format!("{name} was not paused")),
        }
        if context.ui.tone().json {
            context.ui.document(&service);
        }
        Ok(ExitCode::DONE)
    }
}
