//! `bgctl logs`: what a slot or the proxy wrote.

use ::config::name::{ServiceName, Slot};
use clap::Args;
use futures_util::future::try_join_all;

use super::known;
use crate::context::Context;
use crate::deploy::plan::Situation;
use crate::engine::LogRange;
use crate::error::{Error, ExitCode};

/// Logs of a service's slot, or of the proxy
#[derive(Debug, Args)]
pub struct Logs {
    /// The service
    #[arg(required_unless_present = "proxy")]
    service: Option<ServiceName>,
    /// The slot (default: the live one)
    #[arg(long, value_name = "blue|green")]
    slot: Option<Slot>,
    /// One replica only, by its number
    #[arg(long, value_name = "N", conflicts_with_all = ["proxy", "failed"])]
    replica: Option<u32>,
    /// The log of the last failed deployment
    #[arg(long, conflicts_with = "slot")]
    failed: bool,
    /// The access log
    #[arg(long, conflicts_with = "slot")]
    access: bool,
    /// The proxy's own log
    #[arg(long, conflicts_with = "service")]
    proxy: bool,
    /// Go on until interrupted
    #[arg(short, long)]
    follow: bool,
    /// The last lines only
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
}

impl Logs {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        if self.access {
            return Err(Error::not_there_yet("bgctl logs --access"));
        }
        let range = LogRange { tail: self.lines, follow: self.follow };
        let mut print = |line: &str| {
            if context.ui.tone().json {
                context.ui.event(&serde_json::json!({ "line": line }));
            } else {
                context.ui.data(line);
            }
        };
        let Some(name) = self.service else {
            context.engine().await?.proxy_logs(range, &mut print).await?;
            return Ok(ExitCode::DONE);
        };
        if self.failed {
            let log = context.admin().await?.failed_log(&name).await?;
            let log = log.ok_or_else(|| Error::usage(format!("no log of a failed version of {name} is kept")))?;
            let lines: Vec<&str> = log.lines().collect();
            let first = self.lines.map_or(0, |most| lines.len().saturating_sub(most));
            lines[first..].iter().for_each(|line| print(line));
            return Ok(ExitCode::DONE);
        }
        let slot = match self.slot {
            Some(slot) => slot,
            None => {
                let service = known(&mut context.admin().await?, &name).await?;
                service.live.ok_or_else(|| Error::usage(format!("{name} has no live slot")).hint("name one: --slot"))?
            }
        };
        let engine = context.engine().await?;
        let instances = engine.instances(Some(&name)).await?;
        let mut found = Situation { service: None, instances: &instances }.occupants(slot);
        found.retain(|instance| self.replica.is_none_or(|replica| replica == instance.replica));
        match found.as_slice() {
            [] => return Err(Error::usage(format!("{name} has no such instance of ours in {slot}"))),
            [instance] => engine.logs(instance, range, &mut print).await?,
            several => {
                let widest = several.iter().map(|instance| instance.name.len()).max().unwrap_or_default();
                let read = several.iter().map(|instance| async move {
                    let mut print = |line: &str| {
                        if context.ui.tone().json {
                            context.ui.event(&serde_json::json!({ "instance": instance.name, "line": line }));
                        } else {
                            context.ui.data(&format!("{:widest$} | {line}", instance.name));
                        }
                    };
                    engine.logs(instance, range, &mut print).await
                });
                try_join_all(read).await?;
            }
        }
        Ok(ExitCode::DONE)
    }
}
