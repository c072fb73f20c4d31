//! The `[proxy]` table of `bluegreen.toml` against the proxy's own settings.

use ::config::admin::response;
use ::config::model::Model;
use ::config::settings::ProxySettings;
use ::config::webhook::WebhookUrl;
use serde_json::Value;

use super::changes::{self, Changes, words};
use crate::admin::{Client, Match};
use crate::context::Context;
use crate::error::Error;
use crate::mask::MASK;

/// Returns the proxy's settings, once it is known that the table may take their place.
///
/// # Errors
/// Where the proxy takes no table, or its own file says otherwise.
pub(crate) async fn admit(client: &mut Client, table: &ProxySettings) -> Result<response::Proxy, Error> {
    let present = client.proxy().await?.ok_or_else(|| {
        Error::usage("the proxy that runs there is of an older build and takes no [proxy] table")
            .hint("`bgctl up --upgrade` replaces it; nothing was changed yet")
    })?;
    let in_force = present.in_force.keys();
    let differs = |(key, value): &(String, Value)| present.file.contains(key) && in_force.get(key) != Some(value);
    let of_file: Vec<String> = table.keys().into_iter().filter(differs).map(|(key, _)| key).collect();
    if of_file.is_empty() {
        return Ok(present);
    }
    let keys = of_file.join(", ");
    let hint = "leave it out of [proxy]; `bgctl up --trusted-proxy CIDR` is what writes trusted_proxies there";
    Err(Error::usage(format!("the proxy's own bgproxy.toml says otherwise of {keys}; nothing was changed")).hint(hint))
}

/// Puts the table in force, and returns what that changes.
///
/// # Errors
/// As of [`admit`] and of every call; then nothing has changed.
pub(crate) async fn send(client: &mut Client, table: &ProxySettings) -> Result<Changes, Error> {
    let present = admit(client, table).await?;
    let changes = changes(&present.settings, table);
    if !changes.is_empty() {
        client.put_proxy(Match::Generation(present.generation), table).await?;
    }
    Ok(changes)
}

/// Puts the table in force behind a deployment, which stands whatever becomes of this.
pub(crate) async fn send_after(context: &Context<'_>, client: &mut Client, table: &ProxySettings) {
    match send(client, table).await {
        Ok(changes) => changes.iter().for_each(|change| context.ui.say(&line(change))),
        Err(error) => {
            let message = &error.message;
            context.ui.warn(&format!("the [proxy] table is not in force: {message}; `bgctl apply` sends it again"));
        }
    }
}

/// Returns what a table changes; what it leaves out has its default.
pub(crate) fn changes(present: &ProxySettings, table: &ProxySettings) -> Changes {
    let whole = |settings: &ProxySettings| settings.clone().or(&Model::default().in_force()).keys();
    let mut changes = changes::between(whole(present), whole(table));
    for (key, values) in &mut changes {
        values.iter_mut().for_each(|value| hide(key, value));
    }
    changes
}

/// Masks what nobody is to see: the secret of a webhook, and the path of its address, which of many receivers is one too.
fn hide(key: &str, value: &mut Value) {
    match (key, value.as_str()) {
        ("webhook.secret" | "acme.eab_hmac", Some(_)) => *value = MASK.into(),
        ("webhook.url", Some(url)) => {
            let shown = url.parse::<WebhookUrl>().map_or_else(|_| MASK.to_owned(), |url| url.to_string());
            *value = shown.into();
        }
        _ => {}
    }
}

/// Returns a change in words.
pub(crate) fn line((key, [before, after]): (&String, &[Value; 2])) -> String {
    let masked = if before == after { " (another value)" } else { "" };
    format!("proxy: {key}: {} -> {}{masked}", words(before), words(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_table_leaves_out_goes_back_to_its_default() {
        let read = |text: &str| serde_json::from_str::<ProxySettings>(text).unwrap();
        let present = read(r#"{"limits":{"connections_per_address":9,"idle_timeout":"5s"},"log":{"access":"off"}}"#);
        let table = read(r#"{"limits":{"idle_timeout":"5s"},"log":{"access":"json","access_redact":["token"]}}"#);
        let shown: Vec<String> = changes(&present, &table).iter().map(line).collect();
        let wanted = [
            "proxy: limits.connections_per_address: 9 -> none",
            "proxy: log.access: off -> json",
            "proxy: log.access_redact: none -> token",
        ];
        assert_eq!(shown, wanted);
        assert!(changes(&read(r#"{"log":{"access":"off"}}"#), &ProxySettings::default()).is_empty());
    }

    #[test]
    fn of_a_webhook_neither_the_secret_nor_the_path_is_shown() {
        let read = |text: &str| serde_json::from_str::<ProxySettings>(text).unwrap();
        let before = read(r#"{"webhook":{"secret":"one"}}"#);
        let after = read(r#"{"webhook":{"url":"https://hooks.test/T0/B0","secret":"two"}}"#);
        let shown: Vec<String> = changes(&before, &after).iter().map(line).collect();
        let wanted =
            ["proxy: webhook.secret: *** -> *** (another value)", "proxy: webhook.url: none -> https://hooks.test/***"];
        assert_eq!(shown, wanted);
    }
}
