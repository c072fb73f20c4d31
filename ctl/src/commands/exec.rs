//! `bgctl exec` and `bgctl run`: a command in the live slot, or in a one-off container with the service's settings.

use std::io::Write as _;

use ::config::name::ServiceName;
use clap::Args;

use super::known;
use crate::context::{Context, who};
use crate::deploy::plan::Situation;
use crate::engine::{Engine, Exit, Instance, Output};
use crate::error::{Error, ExitCode};

/// Run a command in the live slot; its exit code is ours
#[derive(Debug, Args)]
pub struct Exec {
    /// The service
    service: ServiceName,
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Run a command in a one-off container with the live slot's image and settings; its exit code is ours
#[derive(Debug, Args)]
pub struct Run {
    /// The service
    service: ServiceName,
    /// The command, as behind `docker run IMAGE`
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let (engine, instance) = live(context, &self.service).await?;
        // What a program writes is passed on as it is.
        let mut pass = |stream, bytes: &[u8]| {
            // A reader that went away is no failure of ours.
            _ = match stream {
                Output::Data => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
                Output::Error => std::io::stderr().write_all(bytes),
            };
        };
        let code = engine.exec(&instance, &self.command, &mut pass).await?;
        Ok(exit_code(code))
    }
}

impl Run {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let (engine, instance) = live(context, &self.service).await?;
        let mut spec = engine.spec_of(&instance, who()).await?;
        spec.run.command = self.command;
        let Exit { code, oom } = engine.run_once(&spec, &mut |line| context.ui.data(line)).await?;
        if oom {
            context.ui.warn("it was killed for want of memory (OOM)");
        }
        Ok(exit_code(code))
    }
}

/// Returns the live instance of a service, which must be one of ours.
async fn live<'c>(context: &'c Context<'_>, name: &ServiceName) -> Result<(&'c Engine, Instance), Error> {
    let service = known(&mut context.admin().await?, name).await?;
    let engine = context.engine().await?;
    let instances = engine.instances(Some(name)).await?;
    let situation = Situation { service: Some(&service), instances: &instances };
    let live = situation.live().and_then(|slot| situation.occupant(slot)).cloned();
    let live = live.ok_or_else(|| Error::usage(format!("{name} has no live instance of ours")))?;
    Ok((engine, live))
}

fn exit_code(code: i64) -> ExitCode {
    ExitCode(u8::try_from(code).unwrap_or(u8::MAX))
}
