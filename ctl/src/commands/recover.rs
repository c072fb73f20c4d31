//! `bgctl recover`: what a killed run left is finished or undone.

use std::time::Duration;

use ::config::name::ServiceName;
use clap::Args;

use super::known;
use super::rollback::Rollback;
use crate::commands::order::{Lock, lock};
use crate::context::Context;
use crate::deploy::recover::{Aim, Finder, Stand};
use crate::error::{Error, ExitCode};

/// Finish or undo what a killed run left
#[derive(Debug, Args)]
pub struct Recover {
    /// The service
    service: ServiceName,
    /// Where the new version is live already: go back to the one before
    #[arg(long)]
    undo: bool,
    /// Wait so long while someone else holds the lock
    #[arg(long, value_name = "TIME", value_parser = ::config::duration::parse, default_value = "0s")]
    lock_wait: Duration,
}

impl Recover {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let Self { service: name, undo, lock_wait: wait } = self;
        context.say_target(&format!("recover {name}")).await?;
        let mut client = context.admin().await?;
        if client.history(&name).await?.is_none() {
            known(&mut client, &name).await?;
        }
        lock(context, &mut client, Lock { name: &name, what: "recover".to_owned(), wait }).await?;
        let aim = if undo { Aim::Back } else { Aim::End };
        let engine = context.slots_engine().await?.map(|engine| &**engine);
        let settled = Finder { context, client: &mut client, engine, service: &name }.settle(aim).await;
        // A lease that can't be given back ends by itself.
        let _gone = client.release().await;
        let stand = settled?;
        if undo && matches!(stand, Some(Stand::After | Stand::Draining)) {
            return Rollback::of(name, wait).run(context).await;
        }
        let words = match stand {
            None => "nothing was left open",
            Some(Stand::Before) => "undone: everything is as it was before",
            Some(Stand::Scaled) => "finished: it has the replicas that were wanted",
            Some(Stand::After) => "finished: the new version is live, the old one put away",
            Some(Stand::Draining) => "the new version is live; run this again when the old one has drained",
        };
        context.ui.announce(&format!("{name}: {words}"));
        if context.ui.tone().json {
            let state = match stand {
                None => "nothing",
                Some(Stand::Before) => "undone",
                Some(Stand::After | Stand::Scaled) => "finished",
                Some(Stand::Draining) => "draining",
            };
            context.ui.document(&serde_json::json!({ "service": name, "recovered": state }));
        }
        Ok(ExitCode::DONE)
    }
}
