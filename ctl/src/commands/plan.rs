//! `bgctl plan`: what `bluegreen.toml` says against what runs; nothing is changed.

use std::collections::BTreeMap;

use ::config::admin::response::CertificateStatus;
use ::config::name::{ServiceName, Slot};
use ::config::project::{self, Project};
use ::config::settings::ProxySettings;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::brought::Own;
use super::changes::{Changes, words};
use super::order::image_of;
use super::{addresses, proxy_table, together};
use crate::commands::described::{self, Described, unnamed};
use crate::context::Context;
use crate::deploy::plan::Situation;
use crate::deploy::settings::Settings;
use crate::error::{Error, ExitCode, Kind};
use crate::mask::{self, MASK};

/// Show what a deployment of bluegreen.toml would change
#[derive(Debug, Args)]
pub struct Plan {
    /// One service only, and those that go with it
    service: Option<ServiceName>,
}

/// What would become of one service.
#[derive(Serialize)]
struct Change {
    service: ServiceName,
    /// The slot that is live now; none where the service would be made.
    live: Option<Slot>,
    /// Services that are switched with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    with: Vec<ServiceName>,
    /// What is and what would be, by the file's keys; what may be a secret is masked.
    changed: Changes,
}

impl Plan {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let Described { file, project } = Described::needed(context)?;
        let wanted = wanted(&project, self.service.as_ref());
        let table = project.proxy.filter(|_| self.service.is_none());
        let files = if self.service.is_none() { project.certificates } else { Vec::new() };
        if wanted.is_empty() && table.is_none() && files.is_empty() {
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
        let certificates = match (Own::read(context, &files)?, &mut client) {
            (own, Some(client)) if !files.is_empty() => own.missing_from(&client.status().await?.certificates),
            (own, _) => own.missing_from(&[]),
        };
        let mut changes = Vec::new();
        for wanted in wanted {
            let (name, to, with) = (wanted.name.clone(), wanted.to.clone(), wanted.with.clone());
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
            let mut changed = changes_of(wanted, situation.settings(), image)?;
            if let Some(to) = to {
                let live = addresses(service.as_ref());
                if live.iter().ne(&to) {
                    changed.insert("to".to_owned(), [serde_json::json!(live), serde_json::json!(to)]);
                }
            }
            changes.push(Change { service: name, live, with, changed });
        }
        if context.ui.tone().json {
            let proxy = proxy.map(|changed| serde_json::json!({ "changed": changed }));
            context.ui.document(&serde_json::json!({
                "proxy": proxy, "certificates": certificates, "services": changes,
            }));
        } else {
            if let Some(changed) = proxy {
                let nothing = if changed.is_empty() { "nothing to change" } else { "its own settings" };
                context.ui.data(&format!("the proxy: {nothing}"));
                show(context, &changed);
            }
            for CertificateStatus { names, not_after, .. } in &certificates {
                context.ui.data(&format!("the proxy: + certificate for {}, until {not_after}", names.join(", ")));
            }
            changes.iter().for_each(|change| change.show(context));
        }
        Ok(ExitCode::DONE)
    }
}

impl Change {
    fn show(&self, context: &Context<'_>) {
        let Self { service, live, with, changed } = self;
        let names: Vec<&str> = with.iter().map(ServiceName::as_str).collect();
        let with = if names.is_empty() { String::new() } else { format!("; goes with {}", names.join(", ")) };
        context.ui.data(&match live {
            None => format!("{service}: a new service{with}"),
            Some(slot) if changed.is_empty() => format!("{service}: nothing to change, live on {slot}{with}"),
            Some(slot) => format!("{service}: live on {slot}{with}"),
        });
        show(context, changed);
    }
}

/// Returns the services that are asked for: all of the file, or one and those that go with it, with the images that they would be
/// deployed with.
fn wanted(project: &Project, one: Option<&ServiceName>) -> Vec<project::Service> {
    let Some(name) = one else { return project.services.clone() };
    let Some(first) = project.services.iter().find(|service| service.name == *name) else { return Vec::new() };
    let with = project.together_with(name).into_iter().map(|service| project::Service {
        image: together::image(None, first.image.as_deref(), service.image.as_deref()).map(str::to_owned),
        ..service.clone()
    });
    std::iter::once(first.clone()).chain(with).collect()
}

fn show(context: &Context<'_>, changed: &Changes) {
    for (key, [before, after]) in changed {
        // They differ, or there would be no line.
        let masked = if before == after { " (another value)" } else { "" };
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
    // Of what the proxy keeps the value is not known, so that it is not told whether it changes.
    let kept = present.kept_headers.clone();
    let is_kept = |key: &str| {
        key.strip_prefix("health_headers.").is_some_and(|name| kept.iter().any(|kept| kept.eq_ignore_ascii_case(name)))
    };
    let (mut before, mut after) = (keys(present), keys(next));
    before.insert("image".to_owned(), image.into());
    after.insert("image".to_owned(), next_image.into());
    let mut changed = Changes::new();
    for (key, after) in after {
        let before = before.remove(&key).unwrap_or_default();
        if before != after && !is_kept(&key) {
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
pub(super) fn keys(mut settings: Settings) -> BTreeMap<String, Value> {
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
    for name in std::mem::take(&mut settings.kept_headers) {
        keys.insert(format!("health_headers.{name}"), MASK.into());
    }
    let run = serde_json::to_value(&settings.run).unwrap_or_default();
    let rest = serde_json::to_value(&settings).unwrap_or_default();
    flatten("", run, &mut keys);
    flatten("", rest, &mut keys);
    ["env", "secrets", "kept_headers", "health_headers", "health_enabled"]
        .into_iter()
        .for_each(|key| drop(keys.remove(key)));
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
        Some(("env", name)) => mask::is_named_so(name) || secrets.iter().any(|secret| secret == name),
        _ => false,
    };
    match value {
        Value::String(text) if is_secret || mask::has_password(&text) => MASK.into(),
        value => mask::value(value),
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
            command = [\"serve\", \"--api-key\", \"secret\", \"--dsn=secret\"]\nbefore = \"TOKEN=secret ./migrate\"\n\
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
            "before: none -> TOKEN=*** ./migrate",
            "command: none -> serve, --api-key, ***, --dsn=***",
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
    fn of_a_probes_fields_that_the_proxy_keeps_only_those_that_come_or_go_are_told() {
        let text = "[services.shop.health_headers]\nX-Same = \"1\"\nX-New = \"2\"\n";
        let source = Source::new("bluegreen.toml", text);
        let mut project = project::parse(&source, described::reading(&Global::default())).unwrap();
        let kept_headers = ["X-Same", "X-Gone"].map(str::to_owned).to_vec();
        let present = Settings { kept_headers, ..Settings::default() };
        let changed = changes_of(project.services.remove(0), present, None).unwrap();
        let shown: Vec<String> =
            changed.iter().map(|(key, [a, b])| format!("{key}: {} -> {}", words(a), words(b))).collect();
        assert_eq!(shown, ["health_headers.X-Gone: *** -> none", "health_headers.X-New: none -> ***"]);
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
