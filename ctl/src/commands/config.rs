//! `bgctl config`: prints what is in force.

use ::config::admin::request::ServiceSettings;
use ::config::name::ServiceName;
use clap::Args;
use serde::Serialize;

use super::known;
use crate::context::Context;
use crate::deploy::settings::Settings;
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
            let of_live = instances.iter().find(|instance| {
                instance.service == service.name && Some(instance.slot) == service.live && !instance.kept
            });
            InForce {
                settings: of_live.map(|instance| Settings::of(instance).masked()),
                routes: service.settings,
                service: service.name,
            }
        });
        context.ui.document(&in_force.collect::<Vec<_>>());
        Ok(ExitCode::DONE)
    }
}
