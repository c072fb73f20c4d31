//! `bluegreen.toml`, which is bgctl's: where a project runs, how its services are deployed and reached.
//!
//! The same four steps as the proxy's own file: text, [`mod@file`], [`validate`](mod@crate::validate), [`model`].

pub mod file;
pub mod model;
pub mod schema;

use std::path::Path;

use serde::Deserialize as _;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

pub use self::model::{Deployment, Hooks, Project, Service};
use self::schema::Key;
use crate::error::{self, Problem, Source};
use crate::validate::{self, Judge};

/// The name that is looked for in the working folder.
pub const FILE: &str = "bluegreen.toml";

const HINT: &str = "docs/bluegreen-toml.md lists every key";
const RESTART_HINT: &str =
    "it stands in the proxy's own bgproxy.toml; in a container `bgctl up --publish` says where the proxy is reached";

/// Returns the project in a file; `judge` knows what is written in docker's own words.
///
/// # Errors
/// Every problem of the file; one that says so where it can't be read.
pub fn load(path: &Path, judge: Judge<'_>) -> Result<Project, Vec<Problem>> {
    parse(&read(path)?, judge)
}

/// Returns the host that a file names, whatever else it says.
///
/// # Errors
/// Where the file can't be read or is not TOML.
pub fn host(path: &Path) -> Result<Option<String>, Vec<Problem>> {
    let source = read(path)?;
    let place: file::Place = toml::from_str(source.text()).map_err(|error| vec![syntax(&source, &error)])?;
    Ok(place.host.map(Spanned::into_inner))
}

fn read(path: &Path) -> Result<Source, Vec<Problem>> {
    match error::read(path) {
        Ok(text) => Ok(Source::new(path, text)),
        Err(error) => Err(vec![Problem::of_file(path, format!("the file can't be read: {error}"))]),
    }
}

/// Returns the project that a text means.
///
/// # Errors
/// Every problem of the text. A text that is not TOML has that one alone; of values of a wrong type only the first is told,
/// beside every unknown key.
pub fn parse(source: &Source, judge: Judge<'_>) -> Result<Project, Vec<Problem>> {
    let mut table = DeTable::parse(source.text()).map_err(|error| vec![syntax(source, &error)])?;
    let mut problems = Vec::new();
    let mut keys = Keys { source, problems: &mut problems };
    keys.table(table.get_mut(), schema::TOP, &["proxy", "services"], &[]);
    if let Some(proxy) = inner(table.get_mut(), "proxy") {
        keys.table(proxy, schema::PROXY, &["limits", "log"], schema::RESTART);
        for (name, known, restart) in
            [("limits", schema::LIMITS, schema::RESTART_LIMITS), ("log", schema::LOG, schema::RESTART_LOG)]
        {
            inner(proxy, name).into_iter().for_each(|table| keys.table(table, known, &[], restart));
        }
    }
    if let Some(services) = inner(table.get_mut(), "services") {
        for (_, service) in services.iter_mut() {
            let DeValue::Table(service) = service.get_mut() else { continue };
            keys.table(service, schema::SERVICE, &["hooks", "options"], &[]);
            for (name, known) in [("hooks", schema::HOOKS), ("options", schema::OPTIONS)] {
                inner(service, name).into_iter().for_each(|table| keys.table(table, known, &[], &[]));
            }
        }
    }
    match file::File::deserialize(toml::Deserializer::from(table)) {
        Ok(file) => validate::project(file, source, judge, problems),
        Err(error) => {
            problems.push(syntax(source, &error));
            Err(problems)
        }
    }
}

/// Returns a table within a table, where it is one.
fn inner<'t, 'i>(table: &'t mut DeTable<'i>, name: &str) -> Option<&'t mut DeTable<'i>> {
    match table.get_mut(name).map(Spanned::get_mut) {
        Some(DeValue::Table(inner)) => Some(inner),
        _ => None,
    }
}

fn syntax(source: &Source, error: &toml::de::Error) -> Problem {
    source.problem(error.span().unwrap_or(0..0), error.message()).hint(HINT)
}

/// Takes out the keys that there are not, so that one of them doesn't hide what else is wrong.
struct Keys<'a> {
    source: &'a Source,
    problems: &'a mut Vec<Problem>,
}

impl Keys<'_> {
    /// `restart` are keys that the proxy's own file has beside these.
    fn table(&mut self, table: &mut DeTable<'_>, keys: &[Key], tables: &[&str], restart: &[&str]) {
        let mut unknown = Vec::new();
        for name in table.keys() {
            let text: &str = name.get_ref();
            if keys.iter().any(|key| key.name == text) || tables.contains(&text) {
                continue;
            }
            let (what, hint) = if restart.contains(&text) {
                (format!("`{text}` needs a restart of the proxy, so it can't be sent to one"), RESTART_HINT.to_owned())
            } else {
                let hint = nearest(text, keys).map_or_else(|| HINT.to_owned(), |key| format!("write `{key}`"));
                (format!("there is no key `{}`", text.chars().take(80).collect::<String>()), hint)
            };
            self.problems.push(self.source.problem(name.span(), what).hint(hint));
            unknown.push(text.to_owned());
        }
        unknown.iter().for_each(|name| drop(table.remove(name.as_str())));
    }
}

/// Returns the key that was meant where a flag's name was written: `health-path`, `volume`.
fn nearest(text: &str, keys: &[Key]) -> Option<&'static str> {
    let text = text.replace('-', "_").to_ascii_lowercase();
    let is_meant =
        |name: &str| name == text || name.strip_suffix('s') == Some(&text) || text.strip_suffix('s') == Some(name);
    keys.iter().map(|key| key.name).find(|name| is_meant(name))
}

#[cfg(test)]
mod tests;
