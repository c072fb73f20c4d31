//! `bgctl up`: makes sure that the proxy runs.

use std::path::PathBuf;

use clap::Args;

use super::brought;
use super::described::Described;
use super::replace::replace;
use crate::context::Context;
use crate::engine::GatewaySpec;
use crate::error::{Error, ExitCode};

/// Make sure that network, holder and proxy run
#[derive(Debug, Args)]
pub struct Up {
    /// Publish a port (default 80:80, and 443:443 where free)
    #[arg(long, value_name = "[IP:]PORT:PORT")]
    publish: Vec<String>,
    /// Believe the forwarding headers of this network
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<String>,
    /// Let the proxy read a folder or volume, whose files a service serves (`static`)
    #[arg(long, value_name = "SOURCE:PATH")]
    volume: Vec<String>,
    /// The static bgproxy to run
    #[arg(long, value_name = "FILE")]
    proxy_binary: Option<PathBuf>,
    /// Replace a running proxy of another build, or with other volumes
    #[arg(long)]
    upgrade: bool,
    /// Take the place of the nginx and the containers of the bash recipe that run here
    #[arg(long, conflicts_with = "upgrade")]
    replace: bool,
    /// Only list what --replace would take over
    #[arg(long, requires = "replace")]
    dry_run: bool,
}

impl Up {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        context.say_target("up").await?;
        let spec = GatewaySpec {
            publish: self.publish,
            trusted_proxies: self.trusted_proxy,
            volumes: self.volume,
            proxy_binary: self.proxy_binary,
            upgrade: self.upgrade,
        };
        let replaced = if self.replace { replace(context, &spec, self.dry_run).await? } else { None };
        if self.dry_run {
            return Ok(ExitCode::DONE);
        }
        let mut gateway = match replaced {
            Some(gateway) => gateway,
            None => {
                context
                    .interrupt
                    .beside(async { context.engine().await?.up(&spec).await.map_err(Error::from) })
                    .await??
            }
        };
        let way = context.way();
        gateway.warnings.iter_mut().for_each(|line| *line = way.complete(line).into_owned());
        let described = Described::find(context);
        gateway.done.iter().for_each(|line| context.ui.say(line));
        gateway.warnings.iter().for_each(|line| context.ui.warn(line));
        match described {
            Ok(Some(Described { project, .. })) if !project.certificates.is_empty() => {
                brought::send(context, &mut context.admin().await?, &project.certificates).await?;
            }
            Ok(_) => {}
            Err(error) => context.ui.warn(&format!("{}; its certificates were not sent", error.message)),
        }
        if context.ui.tone().json {
            context.ui.document(&gateway);
        } else if gateway.changed {
            context.ui.announce(&format!("the proxy answers at {}", gateway.addresses.join(", ")));
        } else {
            context.ui.say(&format!("all of it ran already; the proxy answers at {}", gateway.addresses.join(", ")));
        }
        Ok(ExitCode::DONE)
    }
}
