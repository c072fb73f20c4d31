//! `bgctl config`: prints what is in force.

use ::config::admin::request::ServiceSettings;
use ::config::name::ServiceName;
use clap::Args;
use serde::Serialize;

use super::known;
use crate::context::Context;
use crate::deploy::settings::Settings;
use crate::engine::Instance;
use crate::error::{Error, ExitCode};

/// Print what is in force
#[derive(Debug, Args)]
pub struct Config {
    /// One service only
    service: Option<ServiceName>,
}

#[derive(Serialize)]
struct InForce {
    service: ServiceName,
    routes: ServiceSettings,
    /// What its live slot was deployed with; null where it has no instance of ours.
    settings: Option<Settings>,
}

impl Config {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let mut client = context.admin().await?;
        let services = match &self.service {
            Some(name) => vec![known(&mut client, name).await?],
            None => client.status().await?.services,
        };
        let instances = match context.slots_engine().await? {
            Some(engine) => engine.instances(self.service.as_ref()).await?,
            None => Vec::new(),
        };
        let in_force = services.into_iter().map(|service| {
            let is_live = |instance: &&Instance| {
                instance.service == service.name && Some(instance.slot) == service.live && !instance.kept
            };
            let live: Vec<&Instance> = instances.iter().filter(is_live).collect();
            let replicas = u32::try_from(live.len()).unwrap_or(u32::MAX);
            InForce {
                settings: live.first().map(|instance| Settings { replicas, ..Settings::of(instance).masked() }),
                routes: service.settings,
                service: service.name,
            }
        });
        context.ui.document(&in_force.collect::<Vec<_>>());
        Ok(ExitCode::DONE)
    }
}
