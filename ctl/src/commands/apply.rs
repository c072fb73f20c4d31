//! `bgctl apply`: routes and options of bluegreen.toml to the running proxy, without touching a container.

use std::collections::BTreeMap;
use std::time::Duration;

use ::config::admin::request::ServiceSettings;
use ::config::name::ServiceName;
use ::config::project::Service;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::changes::{self, Changes, words};
use super::order::{Lock, lock};
use super::route::Route;
use super::{addresses, brought, known, proxy_table};
use crate::admin::{Client, Match};
use crate::commands::described::{self, Described, unnamed};
use crate::context::Context;
use crate::deploy::settings::Settings;
use crate::error::{Error, ExitCode};

/// Send routes and settings of bluegreen.toml to the running proxy
#[derive(Debug, Args)]
pub struct Apply {
    /// One service only
    service: Option<ServiceName>,
    /// Wait so long for someone else's lock
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = ::config::duration::parse)]
    lock_wait: Duration,
}

/// What became of one service, or of the proxy itself.
#[derive(Serialize)]
struct Applied {
    /// None: the proxy's own settings.
    service: Option<ServiceName>,
    /// What was and what is, by key; empty where nothing had to change.
    changed: Changes,
}

impl Apply {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let Described { file, project } = Described::needed(context)?;
        let wanted: Vec<_> = project
            .services
            .into_iter()
            .filter(|service| self.service.as_ref().is_none_or(|one| *one == service.name))
            .collect();
        let table = project.proxy.filter(|_| self.service.is_none());
        let certificates = if self.service.is_none() { project.certificates } else { Vec::new() };
        if wanted.is_empty() && table.is_none() && certificates.is_empty() {
            return Err(unnamed(&file, self.service.as_ref()));
        }
        context.say_target(&format!("apply {}", file.display())).await?;
        // What bgctl runs has made a proxy run before; addresses are the first that anybody says.
        let is_first = wanted.iter().any(|service| service.to.is_some());
        let mut client = if is_first { context.admin_or_up().await? } else { context.admin().await? };
        // All must be there before one is changed: half a file is worse than none.
        for Service { name, .. } in wanted.iter().filter(|service| service.to.is_none()) {
            known(&mut client, name)
                .await
                .map_err(|error| error.hint(format!("`{}` makes it", context.line("switch", name))))?;
        }
        brought::send(context, &mut client, &certificates).await?;
        let mut applied = Vec::new();
        if let Some(table) = table {
            let changed = proxy_table::send(&mut client, &table).await?;
            show(context, "proxy", &changed);
            applied.push(Applied { service: None, changed });
        }
        for wanted in wanted {
            let name = wanted.name.clone();
            let what = format!("apply {}", file.display());
            lock(context, &mut client, Lock { name: &name, what, wait: self.lock_wait }).await?;
            let changed = if wanted.to.is_some() {
                lead(context, &mut client, wanted).await
            } else {
                apply(&mut client, wanted).await
            };
            // A lease that can't be given back ends by itself.
            let _gone = client.release().await;
            let changed = changed?;
            show(context, name.as_str(), &changed);
            applied.push(Applied { service: Some(name), changed });
        }
        if context.ui.tone().json {
            context.ui.document(&applied);
        }
        Ok(ExitCode::DONE)
    }
}

/// As [`apply`], of a service whose addresses the file has: they are made live where others are.
async fn lead(context: &Context<'_>, client: &mut Client, wanted: Service) -> Result<Changes, Error> {
    let (name, to, no_health) = (wanted.name.clone(), wanted.to.clone().unwrap_or_default(), wanted.no_health);
    let service = client.service(&name).await?;
    let live = addresses(service.as_ref());
    if service.is_some() && live == to {
        return apply(client, wanted).await;
    }
    let mut changed = Changes::new();
    changed.insert("to".to_owned(), [serde_json::json!(live), serde_json::json!(to)]);
    if !to.is_empty() {
        Route::described(name, to, no_health, described::options(wanted)).stage_and_flip(context, client).await?;
    } else if service.is_some() {
        let what = format!("{name} has addresses that are live, and is to have none");
        return Err(Error::usage(what).hint(format!("`{}` first, then apply again", context.line("rm", &name))));
    } else {
        let mut settings = Settings::default();
        described::options(wanted).route(&mut settings)?;
        client.put(&name, Match::Generation(0), &settings.routes).await?;
    }
    Ok(changed)
}

async fn apply(client: &mut Client, wanted: Service) -> Result<Changes, Error> {
    let name = &wanted.name.clone();
    let service = known(client, name).await?;
    let mut settings = Settings { routes: service.settings.clone(), ..Settings::default() };
    described::options(wanted).route(&mut settings)?;
    let wanted = settings.routes;
    let changed = difference(&service.settings, &wanted);
    if !changed.is_empty() {
        client.put(name, Match::Generation(service.generation), &wanted).await?;
    }
    Ok(changed)
}

/// Returns the keys in which two settings differ, with both values.
fn difference(before: &ServiceSettings, after: &ServiceSettings) -> Changes {
    let keys = |settings: &ServiceSettings| {
        let mut settings = settings.clone();
        // Options that nobody ever gave are the defaults.
        settings.options = Some(settings.options.unwrap_or_default());
        let mut keys = BTreeMap::new();
        if let Ok(Value::Object(fields)) = serde_json::to_value(settings) {
            for (key, value) in fields {
                match value {
                    Value::Object(options) => {
                        keys.extend(options.into_iter().map(|(name, v)| (format!("{key}.{name}"), v)))
                    }
                    value => drop(keys.insert(key, value)),
                }
            }
        }
        keys
    };
    changes::between(keys(before), keys(after))
}

fn show(context: &Context<'_>, name: &str, changed: &Changes) {
    if context.ui.tone().json {
        return;
    }
    if changed.is_empty() {
        context.ui.data(&format!("{name}: nothing to change"));
    }
    for (key, [before, after]) in changed {
        context.ui.data(&format!("{name}: {key}: {} -> {}", words(before), words(after)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> ServiceSettings {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_difference_names_each_key_with_both_values() {
        let before = settings(r#"{"domains":["a.test"]}"#);
        let after = settings(r#"{"domains":["a.test","b.test"],"options":{"request_bytes":"1MiB"}}"#);
        let found = difference(&before, &after);
        let shown: Vec<String> =
            found.iter().map(|(key, [old, new])| format!("{key}: {} -> {}", words(old), words(new))).collect();
        assert_eq!(shown, ["domains: a.test -> a.test, b.test", "options.request_bytes: none -> 1MiB"]);
        assert!(difference(&before, &settings(r#"{"domains":["a.test"],"options":{}}"#)).is_empty());
    }
}
