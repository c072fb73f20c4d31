//! `bgctl rm`: drains and removes a service.

use ::config::admin::request::Delete;
use ::config::defaults;
use ::config::name::ServiceName;
use clap::Args;

use super::known;
use crate::admin::Match;
use crate::commands::confirm::ask;
use crate::context::{Context, who};
use crate::deploy::settings::Settings;
use crate::engine::Restart;
use crate::error::{Error, ExitCode};

/// Drain and remove a service
#[derive(Debug, Args)]
pub struct Rm {
    /// The service
    service: ServiceName,
}

impl Rm {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let name = self.service;
        context.say_target(&format!("remove {name}")).await?;
        let mut client = context.admin().await?;
        let instances = match context.slots_engine().await? {
            Some(engine) => engine.instances(Some(&name)).await?,
            None => Vec::new(),
        };
        let service = match known(&mut client, &name).await {
            Ok(service) => Some(service),
            // What a removed service left on the engine can still be removed.
            Err(_) if !instances.is_empty() => None,
            Err(error) => return Err(error),
        };
        let mut going = vec![format!("the routes of {name}")];
        going.extend(instances.iter().map(|instance| instance.name.clone()));
        ask(context, &going).await?;
        client.acquire(&name, who(), "remove".to_owned()).await?;
        if service.is_some() {
            let drain =
                instances.iter().find(|instance| !instance.kept).map_or(defaults::DRAIN, |i| Settings::of(i).drain);
            context.ui.say("no new requests; waiting for the last ones");
            client.delete(&name, Match::Any, &Delete { drain }).await?;
        }
        if let Some(engine) = context.slots_engine().await? {
            for instance in &instances {
                engine.set_restart(instance, Restart::No).await?;
                engine.stop(instance, Settings::of(instance).stop_grace).await?;
                engine.remove(instance).await?;
                context.ui.say(&format!("removed {}", instance.name));
            }
        }
        // The lease went with the service; where it did not, it ends by itself.
        let _gone = client.release().await;
        if context.ui.tone().json {
            context.ui.document(&serde_json::json!({ "removed": name }));
        }
        Ok(ExitCode::DONE)
    }
}
