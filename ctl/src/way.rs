//! The way to the place of a run: the options that lead there again, put into every command that is suggested.
//!
//! Who suggests one may not know the way (the proxy, an engine, an error on its path), so it is added where words are printed.

use std::borrow::Cow;

use crate::global::{EngineKind, Global};

/// The options that name a place, in the order in which they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way(Vec<(&'static str, String)>);

const HOST: &str = "--host";
const ADMIN: &str = "--admin";
/// What works without any place.
const PLACELESS: [&str; 6] = ["check", "completions", "demo", "init", "man", "schema"];

impl Way {
    /// Returns the way to the place that options name.
    pub fn of(global: &Global) -> Self {
        let Global { host, admin, engine, gateway, target, .. } = global;
        let process = (*engine == Some(EngineKind::Process)).then(|| "process".to_owned());
        let options = [
            (HOST, host.clone()),
            (ADMIN, admin.as_ref().map(|path| path.display().to_string())),
            ("--target", target.clone()),
            ("--engine", process),
            ("--gateway", gateway.clone()),
        ];
        Self(options.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
    }

    /// Returns the same to one of several hosts.
    #[must_use]
    pub fn to(&self, host: &str) -> Self {
        let others = self.0.iter().filter(|(name, _)| *name != HOST).cloned();
        Self(std::iter::once((HOST, host.to_owned())).chain(others).collect())
    }

    /// Returns a command that leads there: what it says of the place itself stays.
    pub fn line(&self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let name = words.iter().skip_while(|word| **word != "bgctl").nth(1).copied().unwrap_or_default();
        if name.starts_with('-') || PLACELESS.contains(&name) {
            return command.to_owned();
        }
        let is_there = |option: &str| match option {
            HOST if words.contains(&"HOST") => true,
            // Whoever has the proxy's socket alone starts no proxy by it.
            ADMIN if ["up", "down"].contains(&name) => true,
            option => words.contains(&option),
        };
        let missing = self.0.iter().filter(|(option, _)| !is_there(option));
        let missing: String = missing.map(|(option, value)| format!(" {option} {value}")).collect();
        // What follows `--` is another program's.
        match command.split_once(" -- ") {
            Some((ours, theirs)) => format!("{ours}{missing} -- {theirs}"),
            None => format!("{command}{missing}"),
        }
    }

    /// Returns a text in which every command that stands in backquotes, as `bgctl up`, leads there.
    pub fn complete<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.0.is_empty() || !text.contains("`bgctl ") {
            return text.into();
        }
        let pieces = text.split('`').enumerate().map(|(number, piece)| {
            let is_command = number % 2 == 1 && piece.starts_with("bgctl ");
            if is_command { Cow::from(self.line(piece)) } else { piece.into() }
        });
        pieces.collect::<Vec<_>>().join("`").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way() -> Way {
        let global = Global {
            host: Some("shop.example".to_owned()),
            gateway: Some("staging".to_owned()),
            engine: Some(EngineKind::Docker),
            ..Global::default()
        };
        Way::of(&global)
    }

    #[test]
    fn a_suggested_command_leads_to_where_the_run_was() {
        let cases = [
            ("`bgctl up` starts one", "`bgctl up --host shop.example --gateway staging` starts one"),
            ("`bgctl up --gateway x --upgrade`, or", "`bgctl up --gateway x --upgrade --host shop.example`, or"),
            ("`bgctl exec shop -- ls`", "`bgctl exec shop --host shop.example --gateway staging -- ls`"),
            ("build it, and `bgctl deploy HOST IMAGE`", "build it, and `bgctl deploy HOST IMAGE --gateway staging`"),
            (
                "`bgctl --help` lists them; `bgctl init` writes one",
                "`bgctl --help` lists them; `bgctl init` writes one",
            ),
            ("`docker rm x`, then bgctl up", "`docker rm x`, then bgctl up"),
            ("a ` alone, `bgctl up", "a ` alone, `bgctl up"),
        ];
        for (text, complete) in cases {
            assert_eq!(way().complete(text), complete);
        }
        let socket = Way::of(&Global { admin: Some("/run/x.sock".into()), ..Global::default() });
        assert_eq!(socket.line("bgctl status"), "bgctl status --admin /run/x.sock");
        assert_eq!(socket.line("bgctl up"), "bgctl up");
        assert_eq!(Way::default().complete("`bgctl up`"), "`bgctl up`");
        assert_eq!(
            way().to("web2").line("docker rm x && bgctl up"),
            "docker rm x && bgctl up --host web2 --gateway staging"
        );
    }
}
