//! A service to be, as keys and values of `bluegreen.toml`.

use std::collections::BTreeMap;

use super::toml;
use crate::nginx::Place;

/// A service to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draft {
    /// The block that it comes from.
    pub(crate) place: Place,
    /// What it comes from, in words.
    pub(crate) origin: Vec<String>,
    /// Its name, once it has one; before that what is known of one.
    pub(crate) name: String,
    /// Hosts; empty: all that no other service has.
    pub(crate) domains: Vec<String>,
    /// Names of the server that takes every host.
    pub(crate) also_named: Vec<String>,
    /// Path prefixes, without a slash at the end but for the root.
    pub(crate) paths: Vec<String>,
    /// Whether the prefix is taken off.
    pub(crate) strip_path: bool,
    /// Addresses; empty where the proxy answers by itself.
    pub(crate) to: Vec<String>,
    /// `[services.NAME.options]`, as TOML writes the values.
    pub(crate) options: BTreeMap<&'static str, String>,
    /// Entries of lists among the options.
    pub(crate) lists: BTreeMap<&'static str, Vec<String>>,
}

impl Draft {
    /// Adds an entry to a list of the options.
    pub(super) fn push(&mut self, key: &'static str, entry: String) {
        let list = self.lists.entry(key).or_default();
        if !list.contains(&entry) {
            list.push(entry);
        }
    }

    /// Returns all options, the lists among them.
    pub(super) fn all_options(&self) -> BTreeMap<&'static str, String> {
        let mut options = self.options.clone();
        options.extend(self.lists.iter().map(|(key, entries)| (*key, toml::array(entries))));
        options
    }

    /// Tells whether it takes a path.
    pub(super) fn takes(&self, path: &str) -> bool {
        self.paths.iter().any(|own| {
            let rest = path.strip_prefix(own.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// Tells whether another one serves its requests in the same way.
    fn is_served_as(&self, other: &Self) -> bool {
        let served = |draft: &Self| (draft.to.clone(), draft.all_options(), draft.strip_path);
        served(self) == served(other)
    }
}

/// Puts redirects and folders into the service that takes their paths, where that is guarded as they are.
pub(super) fn gather(drafts: Vec<Draft>) -> Vec<Draft> {
    let (mut whole, parts): (Vec<Draft>, Vec<Draft>) =
        drafts.into_iter().partition(|draft| !draft.to.is_empty() || draft.lists.is_empty());
    let guards = |draft: &Draft| {
        let kept = ["access", "basic_auth", "response_headers", "requests_per_second"];
        kept.map(|key| draft.options.get(key).cloned())
    };
    for part in parts {
        let takes = |draft: &&mut Draft| {
            !draft.to.is_empty() && !draft.strip_path && part.paths.iter().all(|path| draft.takes(path))
        };
        let longest = |draft: &&mut Draft| draft.paths.iter().map(String::len).max();
        let home = whole.iter_mut().filter(takes).max_by_key(longest);
        match home.filter(|draft| guards(draft) == guards(&part)) {
            Some(home) => {
                for (key, entries) in part.lists {
                    entries.into_iter().for_each(|entry| home.push(key, entry));
                }
                home.origin.extend(part.origin);
            }
            None => whole.push(part),
        }
    }
    whole
}

/// Puts those of one server together that serve in the same way.
pub(super) fn merge(drafts: Vec<Draft>) -> Vec<Draft> {
    let mut merged: Vec<Draft> = Vec::new();
    for draft in drafts {
        match merged.iter_mut().find(|known| known.is_served_as(&draft)) {
            Some(known) => {
                known
                    .paths
                    .extend(draft.paths.into_iter().filter(|path| !known.paths.contains(path)).collect::<Vec<_>>());
                known.origin.extend(draft.origin);
            }
            None => merged.push(draft),
        }
    }
    for at in 0..merged.len() {
        let own = &merged[at];
        // What the root takes anyway need not be said, unless something else stands between.
        let is_between = |path: &str| {
            let others = merged.iter().enumerate().filter(|(other, _)| *other != at);
            others.flat_map(|(_, other)| &other.paths).any(|other| {
                other != "/" && path.strip_prefix(other.as_str()).is_some_and(|rest| rest.starts_with('/'))
            })
        };
        if own.paths.len() > 1
            && own.paths.iter().any(|path| path == "/")
            && !own.paths.iter().any(|path| is_between(path))
        {
            merged[at].paths = vec!["/".to_owned()];
        }
    }
    merged
}

/// Gives each a name of its own.
pub(super) fn name(drafts: &mut [Draft]) {
    let mut taken: Vec<String> = Vec::new();
    for draft in drafts {
        let host = draft.domains.iter().chain(&draft.also_named).next().map_or("site", String::as_str);
        let host = host.trim_start_matches("*.").trim_start_matches("www.");
        let host = if host.parse::<std::net::IpAddr>().is_ok() { host } else { host.split('.').next().unwrap_or(host) };
        let path = draft.paths.first().filter(|path| *path != "/").map_or("", String::as_str);
        let name: String = format!("{host}{path}")
            .to_ascii_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(44)
            .collect();
        let name = match name.trim_matches('-') {
            "" => "site".to_owned(),
            name => name.to_owned(),
        };
        let more = (2..).map(|number| format!("{name}-{number}"));
        let free = std::iter::once(name.clone()).chain(more).find(|name| !taken.contains(name));
        draft.name = free.unwrap_or(name);
        taken.push(draft.name.clone());
    }
}
