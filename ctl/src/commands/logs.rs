//! `bgctl logs`: what a slot or the proxy wrote.

use ::config::name::{ServiceName, Slot};
use ::config::settings::AccessFormat;
use clap::Args;
use futures_util::future::try_join_all;
use serde::Deserialize;

use super::known;
use crate::context::Context;
use crate::deploy::plan::Situation;
use crate::engine::LogRange;
use crate::error::{Error, ExitCode};

/// Logs of a service's slot, or of the proxy
#[derive(Debug, Args)]
pub struct Logs {
    /// The service
    #[arg(required_unless_present_any = ["proxy", "access"])]
    service: Option<ServiceName>,
    /// The slot (default: the live one)
    #[arg(long, value_name = "blue|green")]
    slot: Option<Slot>,
    /// One replica only, by its number
    #[arg(long, value_name = "N", conflicts_with_all = ["proxy", "failed", "access"])]
    replica: Option<u32>,
    /// The log of the last failed deployment
    #[arg(long, conflicts_with = "slot")]
    failed: bool,
    /// The access log, of a service or of all
    #[arg(long, conflicts_with_all = ["slot", "failed", "proxy"])]
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
        let range = LogRange { tail: self.lines, follow: self.follow };
        let mut print = |line: &str| {
            if context.ui.tone().json {
                context.ui.event(&serde_json::json!({ "line": line }));
            } else {
                context.ui.data(line);
            }
        };
        if self.access {
            judge_access(context, self.service.as_ref()).await?;
            let is_wanted = |line: &str| self.service.as_ref().is_none_or(|name| is_of(name, line));
            context.engine().await?.access_log(range, &is_wanted, &mut print).await?;
            return Ok(ExitCode::DONE);
        }
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

/// Refuses what an access log can't show, with what makes it show that.
async fn judge_access(context: &Context<'_>, service: Option<&ServiceName>) -> Result<(), Error> {
    let mut client = context.admin().await?;
    let hint = "in bluegreen.toml write `[proxy.log]` with `access = \"json\"`, then `bgctl apply`";
    let proxy = client.proxy().await?.ok_or_else(|| {
        Error::usage("the proxy that runs there is of an older build and doesn't tell of its access log")
            .hint("`bgctl up --upgrade` replaces it")
    })?;
    let log = proxy.in_force.log;
    if let Some(file) = log.access_file {
        let what = format!("the access log goes to {}, where the proxy runs", file.display());
        return Err(Error::usage(what).hint("read it there; without `access_file` this command shows it"));
    }
    let format = log.access.unwrap_or_default();
    if format == AccessFormat::Off {
        return Err(Error::usage("the access log is off").hint(hint));
    }
    let Some(name) = service else { return Ok(()) };
    let service = known(&mut client, name).await?;
    if format == AccessFormat::Combined {
        return Err(Error::usage("lines of the form `combined` don't say whose they are")
            .hint(hint)
            .hint("`bgctl logs --access` shows those of all services"));
    }
    match service.settings.options {
        Some(options) if !options.access_log => {
            Err(Error::usage(format!("the options of {name} keep its requests out of the access log"))
                .hint(format!("take `access_log = false` out of [services.{name}.options], then `bgctl apply`")))
        }
        _ => Ok(()),
    }
}

/// Tells whether an access line is a service's.
fn is_of(name: &ServiceName, line: &str) -> bool {
    #[derive(Deserialize)]
    struct Line<'l> {
        #[serde(borrow)]
        service: Option<&'l str>,
    }
    serde_json::from_str::<Line<'_>>(line).is_ok_and(|line| line.service == Some(name.as_str()))
}
