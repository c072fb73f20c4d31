//! `proxy_set_header` and its kin as headers that are set, added and removed.

use super::chain::Chain;
use super::draft::Draft;
use super::notes::Notes;
use super::toml;
use crate::nginx::{Piece, pieces};

/// What the proxy says to applications anyway.
const SAID: [&str; 12] = [
    "connection",
    "forwarded",
    "host",
    "te",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "x-request-id",
];

/// The variables that are ours too, by nginx's name and by ours; besides them each `$http_NAME`.
const VARIABLES: [(&str, &str); 13] = [
    ("args", "args"),
    ("host", "host"),
    ("http_host", "host"),
    ("is_args", "is_args"),
    ("query_string", "args"),
    ("remote_addr", "remote_addr"),
    ("remote_user", "remote_user"),
    ("request_id", "request_id"),
    ("request_method", "request_method"),
    ("request_uri", "request_uri"),
    ("scheme", "scheme"),
    ("server_name", "host"),
    ("uri", "uri"),
];

/// Lays the headers that are in force over a draft.
pub(super) fn lay(chain: &Chain<'_>, draft: &mut Draft, notes: &mut Notes) {
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for line in chain.all("proxy_set_header") {
        let (name, value) = (line.argument(0).to_owned(), chain.put_in(line.argument(1)));
        let is_said = SAID.contains(&name.to_ascii_lowercase().as_str());
        if is_said && (value.contains('$') || value.is_empty() || name.eq_ignore_ascii_case("connection")) {
            continue;
        }
        if is_said {
            let what = format!("`{name}` is what the visitor's request says, and not set to another value");
            notes.differs(line, what, "let the application take its own host from its settings, where it needs one");
            continue;
        }
        match (value.as_str(), translated(&value)) {
            ("", _) => removed.push(toml::text(&name)),
            (_, Some(value)) => set.push((name, value)),
            (_, None) => {
                let instead =
                    "let the application find it in the headers that it gets: X-Forwarded-*, X-Real-IP, X-Request-Id";
                notes.left_out(line, "the value comes from a variable without an equal, so it is not set", instead);
            }
        }
    }
    put(draft, "request_headers", "set", &set, &removed);
    let (mut added, mut hidden) = (Vec::new(), Vec::new());
    for line in chain.all("add_header") {
        let value = chain.put_in(line.argument(1));
        match translated(&value) {
            Some(_) if added.iter().any(|(name, _): &(String, _)| name.eq_ignore_ascii_case(line.argument(0))) => {
                notes.left_out(
                    line,
                    "a field is added once, and this one is already",
                    "let the application add the second",
                );
            }
            Some(value) => added.push((line.argument(0).to_owned(), value)),
            None => notes.left_out(
                line,
                "the value comes from a variable without an equal, so it is not set",
                "let the application set it",
            ),
        }
    }
    hidden.extend(chain.all("proxy_hide_header").iter().map(|line| toml::text(line.argument(0))));
    put(draft, "response_headers", "add", &added, &hidden);
}

fn put(draft: &mut Draft, key: &'static str, how: &str, values: &[(String, String)], removed: &[String]) {
    if values.is_empty() && removed.is_empty() {
        return;
    }
    let fields: Vec<String> =
        values.iter().map(|(name, value)| format!("{} = {}", toml::text(name), toml::literal(value))).collect();
    let values = (!fields.is_empty()).then(|| format!("{{ {} }}", fields.join(", ")));
    let removed = (!removed.is_empty()).then(|| toml::array(removed));
    draft.options.insert(key, toml::table(&[(how, values), ("remove", removed)]));
}

/// Returns a value with our variables in the place of nginx's; none where one has no equal.
pub(super) fn translated(value: &str) -> Option<String> {
    let pieces = pieces(value);
    let mut text = String::new();
    for (at, piece) in pieces.iter().enumerate() {
        let name = match piece {
            Piece::Text(plain) => {
                text.push_str(&plain.replace('$', "$$"));
                continue;
            }
            Piece::Variable(name) => name,
        };
        let known = VARIABLES.iter().find(|(theirs, _)| theirs == name).map(|(_, ours)| *ours);
        let is_capture = name.len() == 1 && name.bytes().all(|byte| (b'1'..=b'9').contains(&byte));
        let name = known.or_else(|| Some(name.as_str()).filter(|name| is_capture || name.starts_with("http_")))?;
        let goes_on = |next: &Piece| matches!(next, Piece::Text(next) if next.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
        if !is_capture && pieces.get(at + 1).is_some_and(goes_on) {
            text.extend(["${", name, "}"]);
        } else {
            text.extend(["$", name]);
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_are_ours_too_are_taken_over_and_no_other_is() {
        for (theirs, ours) in [
            ("https://${host}$request_uri", Some("https://$host$request_uri")),
            ("${scheme}_x$1", Some("${scheme}_x$1")),
            ("$http_x_key", Some("$http_x_key")),
            ("$http_host", Some("$host")),
            ("cost $", Some("cost $$")),
            ("$upstream_cache_status", None),
            ("$arg_id", None),
        ] {
            assert_eq!(translated(theirs).as_deref(), ours, "{theirs}");
        }
    }
}
