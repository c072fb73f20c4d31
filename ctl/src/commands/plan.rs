//! `bgctl plan`: what `bluegreen.toml` says against what runs; nothing is changed.

use std::collections::BTreeMap;

use ::config::name::{ServiceName, Slot};
use ::config::project;
use ::config::settings::ProxySettings;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::changes::{Changes, words};
use super::order::image_of;
use super::proxy_table;
use super::secret::{self, MASK};
use crate::commands::described::{self, Described, unnamed};
use crate::context::Context;
use crate::deploy::plan::Situation;
use crate::deploy::settings::Settings;
use crate::error::{Error, ExitCode, Kind};

/// Show what a deployment of bluegreen.toml would change
#[derive(Debug, Args)]
pub struct Plan {
    /// One service only
    service: Option<ServiceName>,
}

/// What would become of one service.
#[derive(Serialize)]
struct Change {
    service: ServiceName,
    /// The slot that is live now; none where the service would be made.
    live: Option<Slot>,
    /// What is and what would be, by the file's keys; what may be a secret is masked.
    changed: Changes,
}

impl Plan {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let Described { file, project } = Described::needed(context)?;
        let mut wanted = project.services;
        wanted.retain(|service| self.service.as_ref().is_none_or(|one| *one == service.name));
        let table = project.proxy.filter(|_| self.service.is_none());
        if wanted.is_empty() && table.is_none() {
            return Err(unnamed(&file, self.service.as_ref()));
        }
        context.ui.say(&format!("{} against what runs at {}", file.display(), context.target().await?));
        let mut client = match context.admin().await {
            Ok(client) => Some(client),
            Err(error) if error.kind == Kind::NoProxy && context.global.admin.is_none() => None,
            Err(error) => return Err(error),
        };
        let proxy = match (table, &mut client) {
            (None, _) => None,
            (Some(table), Some(client)) => {
                let present = proxy_table::admit(client, &table).await?;
                Some(proxy_table::changes(&present.settings, &table))
            }
            (Some(table), None) => Some(proxy_table::changes(&ProxySettings::default(), &table)),
        };
        let mut changes = Vec::new();
        for wanted in wanted {
            let name = wanted.name.clone();
            let service = match &mut client {
                Some(client) => client.service(&name).await?,
                None => None,
            };
            let instances = match context.slots_engine().await? {
                Some(engine) => engine.instances(Some(&name)).await?,
                None => Vec::new(),
            };
            let situation = Situation { service: service.as_ref(), instances: &instances };
            let live = situation.live();
            let image = image_of(live.and_then(|slot| situation.occupant(slot)));
            let changed = changes_of(wanted, situation.settings(), image)?;
            changes.push(Change { service: name, live, changed });
        }
        if context.ui.tone().json {
            let proxy = proxy.map(|changed| serde_json::json!({ "changed": changed }));
            context.ui.document(&serde_json::json!({ "proxy": proxy, "services": changes }));
        } else {
            if let Some(changed) = proxy {
                let nothing = if changed.is_empty() { "nothing to change" } else { "its own settings" };
                context.ui.data(&format!("the proxy: {nothing}"));
                show(context, &changed);
            }
            changes.iter().for_each(|change| change.show(context));
        }
        Ok(ExitCode::DONE)
    }
}

impl Change {
    fn show(&self, context: &Context<'_>) {
        let Self { service, live, changed } = self;
        context.ui.data(&match live {
            None => format!("{service}: a new service"),
            Some(slot) if changed.is_empty() => format!("{service}: nothing to change, live on {slot}"),
            Some(slot) => format!("{service}: live on {slot}"),
        });
        show(context, changed);
    }
}

fn show(context: &Context<'_>, changed: &Changes) {
    for (key, [before, after]) in changed {
        let masked = if *before == MASK && *after == MASK { " (another value)" } else { "" };
        context.ui.data(&match (is_nothing(before), is_nothing(after)) {
            (true, _) => format!("  + {key}: {}", words(after)),
            (_, true) => format!("  - {key}: {}", words(before)),
            _ => format!("  ~ {key}: {} -> {}{masked}", words(before), words(after)),
        });
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null()
        || value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(|map| map.is_empty())
}

/// Returns what a deployment of a service would change, by the file's keys.
fn changes_of(wanted: project::Service, present: Settings, image: Option<String>) -> Result<Changes, Error> {
    let mut next = present.clone();
    let next_image = wanted.image.clone().or_else(|| image.clone());
    described::options(wanted).apply(&mut next)?;
    // What was one stays one in what is shown. None is read here: whether one has changed is seen when it is deployed.
    let secrets: Vec<String> = [&present.secrets[..], &next.secrets].concat();
    let names: Vec<String> =
        present.run.env.iter().filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).collect();
    let is_set = |name: &str| names.iter().any(|known| known == name);
    let (mut before, mut after) = (keys(present), keys(next));
    before.insert("image".to_owned(), image.into());
    after.insert("image".to_owned(), next_image.into());
    let mut changed = Changes::new();
    for (key, after) in after {
        let before = before.remove(&key).unwrap_or_default();
        if before != after {
            let shown = [masked(&key, before, &secrets), masked(&key, after, &secrets)];
            changed.insert(key, shown);
        }
    }
    for name in secrets.iter().filter(|name| !is_set(name)) {
        changed.insert(format!("env.{name}"), [Value::Null, MASK.into()]);
    }
    // Only headers of the probe can go: the file replaces them as a whole.
    changed.extend(before.into_iter().map(|(key, gone)| {
        let shown = [masked(&key, gone, &secrets), Value::Null];
        (key, shown)
    }));
    Ok(changed)
}

/// Returns settings by the keys that the file has for them.
fn keys(mut settings: Settings) -> BTreeMap<String, Value> {
    // Options that nobody ever gave are the defaults.
    settings.routes.options = Some(settings.routes.options.take().unwrap_or_default());
    let mut keys = BTreeMap::new();
    for pair in std::mem::take(&mut settings.run.env).iter() {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        keys.insert(format!("env.{name}"), value.into());
    }
    for (name, value) in std::mem::take(&mut settings.health.headers) {
        keys.insert(format!("health_headers.{name}"), value.into());
    }
    let run = serde_json::to_value(&settings.run).unwrap_or_default();
    let rest = serde_json::to_value(&settings).unwrap_or_default();
    flatten("", run, &mut keys);
    flatten("", rest, &mut keys);
    ["env", "secrets", "health_headers", "health_enabled"].into_iter().for_each(|key| drop(keys.remove(key)));
    keys
}

fn flatten(prefix: &str, value: Value, keys: &mut BTreeMap<String, Value>) {
    match (prefix, value) {
        ("" | "routes." | "health_" | "margins." | "options.", Value::Object(fields)) => {
            for (name, value) in fields {
                match (prefix, name.as_str()) {
                    ("", "routes") => flatten("routes.", value, keys),
                    ("", "health") => flatten("health_", value, keys),
                    ("", "margins") => flatten("margins.", value, keys),
                    ("routes.", "options") => flatten("options.", value, keys),
                    ("health_", "passes") => drop(keys.insert("healthy".to_owned(), value)),
                    ("margins.", "errors_percent") => drop(keys.insert("bake_errors".to_owned(), value)),
                    ("margins.", "slow_factor") => drop(keys.insert("bake_slow".to_owned(), value)),
                    // The rest of the margins can't be given.
                    ("margins.", _) => {}
                    ("routes.", name) => drop(keys.insert(name.to_owned(), value)),
                    (prefix, name) => drop(keys.insert(format!("{prefix}{name}"), value)),
                }
            }
        }
        (prefix, value) => drop(keys.insert(prefix.to_owned(), value)),
    }
}

fn masked(key: &str, value: Value, secrets: &[String]) -> Value {
    let is_secret = match key.split_once('.') {
        Some(("health_headers", _)) => true,
        Some(("env", name)) => secret::is_named_so(name) || secrets.iter().any(|secret| secret == name),
        _ => false,
    };
    match value {
        Value::String(text) if is_secret || secret::has_password(&text) => MASK.into(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use ::config::error::Source;

    use super::*;
    use crate::global::Global;

    #[test]
    fn changes_are_told_by_the_files_keys_and_secrets_are_masked() {
        let text = "[services.shop.secrets]\nSAME = { command = \"false\" }\nNEW = { env = \"NEW\" }\n\
            [services.shop]\nimage = \"shop:2\"\ndomains = [\"shop.test\"]\nhealthy = 3\nbake_errors = 7\n\
            [services.shop.env]\nLEVEL = \"debug\"\nAPI_TOKEN = \"secret\"\nDB = \"postgres://u:secret@db/x\"\n\
            [services.shop.health_headers]\nX-Probe = \"secret\"\n[services.shop.options]\nsticky = true\n";
        let mut project =
            project::parse(&Source::new("bluegreen.toml", text), described::reading(&Global::default())).unwrap();
        let mut present = Settings::default();
        present.run.env = ["LEVEL=info", "API_TOKEN=old", "SAME=1", "KEPT=1"].map(str::to_owned).to_vec().into();
        let changed = changes_of(project.services.remove(0), present, Some("shop:1".to_owned())).unwrap();
        let shown: Vec<String> =
            changed.iter().map(|(key, [a, b])| format!("{key}: {} -> {}", words(a), words(b))).collect();
        let wanted = [
            "bake_errors: 5 -> 7",
            "domains: none -> shop.test",
            "env.API_TOKEN: *** -> ***",
            "env.DB: none -> ***",
            "env.LEVEL: info -> debug",
            "env.NEW: none -> ***",
            "health_headers.X-Probe: none -> ***",
            "healthy: 2 -> 3",
            "image: shop:1 -> shop:2",
            "options.sticky: false -> true",
        ];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn settings_are_shown_by_keys_that_the_file_has() {
        let settings = Settings { drain_tunnels: Some(std::time::Duration::ZERO), ..Settings::default() };
        for key in keys(settings).keys() {
            let known = |keys: &[project::schema::Key], name: &str| keys.iter().any(|key| key.name == name);
            let is_known = match key.strip_prefix("options.") {
                Some(name) => known(project::schema::OPTIONS, name),
                None => known(project::schema::SERVICE, key),
            };
            assert!(is_known, "{key}");
        }
    }
}
