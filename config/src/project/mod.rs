//! `bluegreen.toml`, which is bgctl's: where a project runs, how its services are deployed and reached.
//!
//! The same four steps as the proxy's own file: text, [`mod@file`], [`validate`](mod@crate::validate), [`model`].

pub mod file;
pub mod model;
pub mod schema;
mod target;
mod variables;

use std::path::Path;

use serde::Deserialize as _;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

pub use self::model::{CertificateFiles, Deployment, Hooks, Project, Secret, SecretSource, Service};
use self::schema::{Key, Takes};
use self::variables::Filler;
pub use self::variables::Variable;
use crate::error::{self, Problem, Source};
use crate::validate::{self, Judge, Look};

/// The name that is looked for in the working folder.
pub const FILE: &str = "bluegreen.toml";

const HINT: &str = "docs/bluegreen-toml.md lists every key";
const RESTART_HINT: &str = "it stands in the proxy's own bgproxy.toml; in a container `bgctl up --publish PORT:PORT` says where the proxy is reached";

/// How a file is read.
#[derive(Clone, Copy)]
pub struct Reading<'r> {
    /// Knows what is written in docker's own words.
    pub judge: Judge<'r>,
    /// Where the values of `${NAME}` come from.
    pub variable: Variable<'r>,
    /// The target whose differences are laid over the rest of the file.
    pub target: Option<&'r str>,
}

/// The host that a file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// As it was written.
    pub name: String,
    /// The chosen target says so, and not the file for all of them.
    pub is_of_target: bool,
}

/// Returns the project in a file.
///
/// # Errors
/// Every problem of the file; one that says so where it can't be read.
pub fn load(path: &Path, reading: Reading<'_>) -> Result<Project, Vec<Problem>> {
    parse(&read(path)?, reading)
}

/// Returns every problem of a file, and of the certificates that it names, with the chosen target, or without one and with each that
/// there is.
pub fn check(path: &Path, reading: Reading<'_>) -> Vec<Problem> {
    let source = match read(path) {
        Ok(source) => source,
        Err(problems) => return problems,
    };
    let parse = |reading: Reading<'_>| parse_with(&source, reading, Look::AtTheFilesToo).err().unwrap_or_default();
    let mut problems = parse(reading);
    let table = DeTable::parse(source.text()).ok().filter(|_| reading.target.is_none());
    for target in table.map(|table| target::names(table.get_ref())).unwrap_or_default() {
        for problem in parse(Reading { target: Some(&target), ..reading }) {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    problems.sort_by_key(|problem| problem.place.position.map(|at| (at.line, at.column)));
    problems
}

/// Returns the host that a file names, whatever else it says.
///
/// # Errors
/// Where the file can't be read or is not TOML, there is no such target, or a variable of the host is missing.
pub fn host(path: &Path, target: Option<&str>, variable: Variable<'_>) -> Result<Option<Host>, Vec<Problem>> {
    let source = read(path)?;
    let mut table = DeTable::parse(source.text()).map_err(|error| vec![syntax(&source, &error)])?;
    let for_all = table.get_mut().get("host").map(Spanned::span);
    target::choose(table.get_mut(), target, &source)?;
    let Some(mut host) = table.get_mut().remove("host") else { return Ok(None) };
    let mut filler = Filler::new(&source, variable);
    filler.value(&mut host);
    if !filler.problems.is_empty() {
        return Err(filler.problems);
    }
    let is_of_target = for_all.is_none_or(|span| span != host.span());
    match host.get_ref() {
        DeValue::String(name) => Ok(Some(Host { name: name.to_string(), is_of_target })),
        _ => Err(vec![source.problem(host.span(), "the host is no text").hint("host = \"production-server\"")]),
    }
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
pub fn parse(source: &Source, reading: Reading<'_>) -> Result<Project, Vec<Problem>> {
    parse_with(source, reading, Look::AtTheText)
}

fn parse_with(source: &Source, reading: Reading<'_>, look: Look) -> Result<Project, Vec<Problem>> {
    let mut table = DeTable::parse(source.text()).map_err(|error| vec![syntax(source, &error)])?;
    let mut problems = Vec::new();
    let mut keys = Keys { source, problems: &mut problems };
    let top = table.get_mut();
    keys.table(top, schema::TOP, &["proxy", "services", schema::CERTIFICATES, target::KEY], &[]);
    keys.certificates(top);
    keys.proxy(top);
    keys.services(top);
    keys.targets(top);
    target::choose(top, reading.target, source)?;
    let mut filler = Filler::new(source, reading.variable);
    filler.table(top);
    problems.append(&mut filler.problems);
    let read = file::File::deserialize(toml::Deserializer::from(table)).map_err(|error| vec![syntax(source, &error)]);
    match read.and_then(|file| validate::project(file, source, reading.judge, look)) {
        Ok(project) if problems.is_empty() => return Ok(project),
        Ok(_) => {}
        Err(found) => {
            let unfilled: Vec<_> = filler.unfilled.into_iter().map(|span| source.problem(span, "").place).collect();
            problems.extend(found.into_iter().filter(|problem| !unfilled.contains(&problem.place)));
        }
    }
    problems.sort_by_key(|problem| problem.place.position.map(|at| (at.line, at.column)));
    Err(problems)
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
    fn proxy(&mut self, table: &mut DeTable<'_>) {
        let Some(proxy) = inner(table, "proxy") else { return };
        self.table(proxy, schema::PROXY, &["limits", "log", "webhook", "acme"], schema::RESTART);
        for (name, known, restart) in [
            ("limits", schema::LIMITS, schema::RESTART_LIMITS),
            ("log", schema::LOG, schema::RESTART_LOG),
            ("webhook", schema::WEBHOOK, &[]),
            ("acme", schema::ACME, &[]),
        ] {
            inner(proxy, name).into_iter().for_each(|table| self.table(table, known, &[], restart));
        }
    }

    fn certificates(&mut self, table: &mut DeTable<'_>) {
        let Some(DeValue::Array(list)) = table.get_mut(schema::CERTIFICATES).map(Spanned::get_mut) else { return };
        for certificate in list.iter_mut() {
            if let DeValue::Table(certificate) = certificate.get_mut() {
                self.table(certificate, schema::CERTIFICATE, &[], &[]);
            }
        }
    }

    fn services(&mut self, table: &mut DeTable<'_>) {
        let Some(services) = inner(table, "services") else { return };
        for (_, service) in services.iter_mut() {
            let DeValue::Table(service) = service.get_mut() else { continue };
            self.table(service, schema::SERVICE, &["secrets", "hooks", "options"], &[]);
            for (name, known) in [("hooks", schema::HOOKS), ("options", schema::OPTIONS)] {
                inner(service, name).into_iter().for_each(|table| self.table(table, known, &[], &[]));
            }
            let Some(secrets) = inner(service, "secrets") else { continue };
            for (_, secret) in secrets.iter_mut() {
                if let DeValue::Table(secret) = secret.get_mut() {
                    self.table(secret, schema::SECRET, &[], &[]);
                }
            }
        }
    }

    fn targets(&mut self, table: &mut DeTable<'_>) {
        let Some((_, targets)) = table.remove_entry(target::KEY) else { return };
        let span = targets.span();
        let DeValue::Table(mut targets) = targets.into_inner() else {
            self.problems.push(self.source.problem(span, "`target` is no table").hint("write [target.NAME]"));
            return;
        };
        for (_, target) in targets.iter_mut() {
            let DeValue::Table(target) = target.get_mut() else { continue };
            self.table(target, schema::TOP, &["proxy", "services", schema::CERTIFICATES], &[]);
            self.certificates(target);
            self.proxy(target);
            self.services(target);
            self.strangers(table, target);
        }
        table.insert(Spanned::new(span.clone(), target::KEY.into()), Spanned::new(span, DeValue::Table(targets)));
    }

    /// A target has no service of its own: its name would be a slip of the pen.
    fn strangers(&mut self, table: &DeTable<'_>, target: &DeTable<'_>) {
        let services = |table: &DeTable<'_>| match table.get("services").map(Spanned::get_ref) {
            Some(DeValue::Table(services)) => {
                services.keys().map(|name| (name.get_ref().to_string(), name.span())).collect()
            }
            _ => Vec::new(),
        };
        let known: Vec<(String, _)> = services(table);
        for (name, span) in services(target) {
            if known.iter().all(|(known, _)| *known != name) {
                let what = format!("there is no service `{}`", name.chars().take(80).collect::<String>());
                let hint = "a target changes what stands under [services.NAME]";
                self.problems.push(self.source.problem(span, what).hint(hint));
            }
        }
    }

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
        for key in keys {
            let (Takes::Keys(known) | Takes::Tables(known) | Takes::FlagOrKeys(known)) = key.takes else { continue };
            match table.get_mut(key.name).map(Spanned::get_mut) {
                Some(DeValue::Table(inner)) => self.table(inner, known, &[], &[]),
                Some(DeValue::Array(list)) => {
                    for one in list.iter_mut() {
                        if let DeValue::Table(inner) = one.get_mut() {
                            self.table(inner, known, &[], &[]);
                        }
                    }
                }
                _ => {}
            }
        }
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
