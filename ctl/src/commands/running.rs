//! `bgctl init --from-running`: what runs, as the file that would deploy it again.

use std::collections::BTreeMap;

use ::config::admin::response::{Origin, ServiceStatus};
use ::config::name::ServiceName;
use serde_json::Value;

use super::compose::quoted;
use super::order::image_of;
use super::plan::keys;
use crate::context::Context;
use crate::deploy::plan::Situation;
use crate::deploy::settings::Settings;
use crate::error::Error;
use crate::mask;

/// A service that runs.
pub(super) struct Running {
    pub(super) name: ServiceName,
    /// Its tables, all in one text.
    pub(super) text: String,
}

/// Returns the services that bgctl may deploy, as the file describes them.
///
/// # Errors
/// As of every call, and where there is none.
pub(super) async fn find(context: &Context<'_>) -> Result<Vec<Running>, Error> {
    let mut client = context.interrupt.beside(context.admin()).await??;
    let services = client.status().await?.services;
    let engine = context.slots_engine().await?;
    let mut found = Vec::new();
    for service in services.into_iter().filter(|service| service.origin == Origin::Admin) {
        let instances = match engine {
            Some(engine) => engine.instances(Some(&service.name)).await?,
            None => Vec::new(),
        };
        let situation = Situation { service: Some(&service), instances: &instances };
        let image = image_of(situation.live().and_then(|slot| situation.occupant(slot)));
        found
            .push(Running { text: text(&service, image.as_deref(), situation.settings()), name: service.name.clone() });
    }
    if found.is_empty() {
        let what = format!("no service of bgctl's runs at {}", context.target().await?);
        return Err(Error::usage(what).hint("`bgctl init` writes a file from what the folder says"));
    }
    Ok(found)
}

/// Returns what differs from the defaults. The value of what looks like a secret, or is known as one, is not written: its name is.
fn text(service: &ServiceStatus, image: Option<&str>, settings: Settings) -> String {
    let name = &service.name;
    let secrets = settings.secrets.clone();
    let is_secret = |name: &str, value: &str| {
        mask::is_named_so(name) || mask::has_password(value) || secrets.iter().any(|secret| secret == name)
    };
    let defaults = keys(Settings::default());
    let mut tables: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut lines: Vec<String> = vec![format!("[services.{name}]")];
    lines.extend(image.map(|image| format!("image = {}", quoted(image))));
    let (mut inherited, mut untold) = (Vec::new(), Vec::new());
    for (key, value) in keys(settings) {
        // Said by `no_port`, and by what else is there.
        if key == "no_route" || defaults.get(&key) == Some(&value) {
            continue;
        }
        match (key.split_once('.'), &value) {
            (Some(("health_headers", name)), _) => untold.push(name.to_owned()),
            (Some(("env", name)), Value::String(text)) if is_secret(name, text) => inherited.push(quoted(name)),
            (Some((table @ ("env" | "options"), key)), value) => match literal(value) {
                Some(text) => tables
                    .entry(if table == "env" { "env" } else { "options" })
                    .or_default()
                    .push(format!("{} = {text}", if table == "env" { quoted(key) } else { key.to_owned() })),
                None if value.is_null() => {}
                None => untold.push(format!("options.{key}")),
            },
            (_, Value::String(text)) if mask::line(text) != *text => untold.push(key),
            (_, Value::Array(words)) if mask::value(value.clone()) != Value::Array(words.clone()) => untold.push(key),
            (_, value) => lines.extend(literal(value).map(|text| format!("{key} = {text}"))),
        }
    }
    if !inherited.is_empty() {
        lines.push(format!(
            "# Their values were left out, as they look like secrets; see [services.{name}.secrets], too."
        ));
        lines.push(format!("env_inherit = [{}]", inherited.join(", ")));
    }
    if !untold.is_empty() {
        lines.push(format!("# Set, and not written here, as it may be a secret or is long: {}.", untold.join(", ")));
    }
    for (table, entries) in tables {
        lines.extend([String::new(), format!("[services.{name}.{table}]")]);
        lines.extend(entries);
    }
    lines.join("\n")
}

/// Returns a value as TOML has it; `None` of what is nothing, or a table.
fn literal(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(quoted(text)),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(list) => {
            let list: Option<Vec<String>> = list.iter().map(literal).collect();
            Some(format!("[{}]", list?.join(", ")))
        }
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use ::config::error::Source;
    use ::config::project::{self, Reading};
    use serde_json::json;

    use super::*;
    use crate::commands::described::{self, reading};
    use crate::global::Global;

    #[test]
    fn what_runs_is_described_as_it_would_be_deployed_again_and_no_secret_is_written() {
        let empty = json!({"state":"empty","endpoints":[],"in_flight":0,"image":null,"deployment":null,"since":null});
        let status = json!({
            "name": "shop", "generation": 1, "origin": "admin", "live": null,
            "slots": {"blue": empty, "green": empty}, "settings": {},
        });
        let status: ServiceStatus = serde_json::from_value(status).unwrap();
        let described = "[services.shop]\nport = 9000\ndomains = [\"shop.test\"]\npaths = [\"/api\"]\nstrip_path = true\n\
            healthy = 3\nbake_errors = 7\nkeep = \"warm\"\nvolumes = [\"data:/data\"]\nmemory = \"64m\"\nreplicas = 2\n\
            drain = \"5s\"\ninit = true\ncommand = [\"serve\", \"--fast\"]\n[services.shop.env]\nLEVEL = \"debug\"\n\
            [services.shop.options]\nrequests_per_second = 5\nburst = 9\nsticky = true\n";
        let global = Global::default();
        let parse = |text: &str| {
            let reading = Reading { variable: &|_| Some("1".to_owned()), ..reading(&global) };
            let mut project = project::parse(&Source::new(project::FILE, text), reading)
                .unwrap_or_else(|problems| panic!("{}\n{text}", problems[0].render()));
            project.services.remove(0)
        };
        let mut settings = Settings::default();
        described::options(parse(described)).apply(&mut settings).unwrap();
        let mut with_secrets = settings.clone();
        with_secrets.run.env.push("API_TOKEN=hunter2".to_owned());
        with_secrets.run.env.push("HIDDEN=hunter2".to_owned());
        with_secrets.secrets.push("HIDDEN".to_owned());
        with_secrets.kept_headers.push("X-Probe".to_owned());
        with_secrets.before = Some("TOKEN=hunter2 ./migrate".to_owned());
        let text = text(&status, Some("shop:1"), with_secrets);
        assert!(!text.contains("hunter2") && text.contains("env_inherit = [\"API_TOKEN\", \"HIDDEN\"]"), "{text}");
        assert!(text.contains("may be a secret or is long: before, X-Probe."), "{text}");
        let again = parse(&text.replace("env_inherit", "# env_inherit"));
        assert_eq!(again.image.as_deref(), Some("shop:1"));
        let mut second = Settings::default();
        described::options(again).apply(&mut second).unwrap();
        assert_eq!(second, settings);
    }
}
