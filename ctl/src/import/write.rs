//! `bluegreen.toml` with what was imported, in the commented style of `bgctl init`.

use config::project::schema;

use super::draft::Draft;
use super::notes::Notes;
use super::{Imported, toml};
use crate::nginx::Directive;

/// What keeps visitors out: a service without it would let them in.
const GUARDS: [&str; 3] = ["access", "basic_auth", "rate_limits"];

/// Returns the options of a service that this version does not know.
fn unknown(draft: &Draft) -> Vec<&'static str> {
    let is_known = |key: &str| schema::OPTIONS.iter().any(|known| known.name == key);
    draft.all_options().into_keys().filter(|key| !is_known(key)).collect()
}

/// Tells whether a service is to be written as a comment.
fn is_kept_back(draft: &Draft) -> bool {
    unknown(draft).iter().any(|key| GUARDS.contains(key))
}

/// Notes what this version does not know.
pub(super) fn note_what_is_not_taken(drafts: &[Draft], notes: &mut Notes) {
    for draft in drafts {
        for key in unknown(draft) {
            let of = Directive {
                name: draft.origin.first().cloned().unwrap_or_default(),
                arguments: vec![format!("({key})")],
                block: None,
                place: draft.place.clone(),
            };
            let what = format!("this version has no `{key}`: it stands as a comment in the file");
            let what = if is_kept_back(draft) { format!("{what}, and so does its whole service") } else { what };
            notes.left_out(&of, what, "a later version may have it: see docs/bluegreen-toml.md");
        }
    }
}

/// Returns the file; `sources` are the files that it comes from, in words.
pub(crate) fn write(imported: &Imported, sources: &str) -> String {
    let mut lines = vec![
        format!("# From {sources}."),
        "# `bgctl check` validates it, `bgctl plan` shows what would change, `bgctl apply` puts the addresses behind the proxy.".to_owned(),
        "# An application that bgctl is to deploy has an `image` in the place of `to`: docs/bluegreen-toml.md.".to_owned(),
        String::new(),
        "# Where the proxy runs: an ssh name, user@host, or a URL. Without it: this machine.".to_owned(),
        "# host = \"production-server\"".to_owned(),
    ];
    for (heading, keys) in &imported.proxy {
        lines.push(String::new());
        lines.push(format!("[{heading}]"));
        lines.extend(keys.iter().map(|(key, value)| format!("{key} = {value}")));
    }
    for (cert, key) in &imported.certificates {
        lines.push(String::new());
        lines.push("[[certificates]]".to_owned());
        lines.push(format!("cert = {}", toml::literal(cert)));
        lines.push(format!("key = {}", toml::literal(key)));
    }
    for draft in &imported.services {
        lines.push(String::new());
        lines.extend(draft.origin.iter().map(|origin| format!("# {}", origin.replace('\n', " "))));
        let written = service(draft);
        let sign = if is_kept_back(draft) { "# " } else { "" };
        lines.extend(
            written.iter().flat_map(|line| line.split('\n')).map(|line| format!("{sign}{line}").trim_end().to_owned()),
        );
    }
    lines.join("\n") + "\n"
}

fn service(draft: &Draft) -> Vec<String> {
    let mut lines = vec![format!("[services.{}]", draft.name)];
    lines.push(format!("to = {}", toml::texts(&draft.to)));
    if !draft.to.is_empty() {
        lines.push("no_health = true                 # as nginx, which probes nothing".to_owned());
        lines.push("# health_path = \"/up\"            # better: what a probe asks for".to_owned());
    }
    if !draft.domains.is_empty() {
        lines.push(format!("domains = {}", toml::texts(&draft.domains)));
    } else if !draft.also_named.is_empty() {
        lines.push(format!(
            "# domains = {}   # nginx gives it every host that no other server names",
            toml::texts(&draft.also_named)
        ));
    }
    if draft.paths != ["/"] {
        lines.push(format!("paths = {}", toml::texts(&draft.paths)));
    }
    if draft.strip_path {
        lines.push("strip_path = true".to_owned());
    }
    let unknown = unknown(draft);
    let options = draft.all_options();
    lines.push(String::new());
    lines.push(format!("[services.{}.options]", draft.name));
    for (key, value) in options {
        let sign = if unknown.contains(&key) { "# " } else { "" };
        lines.push(format!("{sign}{key} = {value}").replace('\n', &format!("\n{sign}")));
    }
    lines
}
