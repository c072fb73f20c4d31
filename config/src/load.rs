//! From a path to the model: read, parse, validate. Nothing is changed or started by reading.

use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Problem, Source, read};
use crate::file::File;
use crate::model::Model;
use crate::validate::validate;

/// Whether a file must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Someone named it: a missing one is a problem.
    Required,
    /// The default path: a missing one means the default configuration.
    Optional,
}

/// Returns the configuration in a file.
///
/// # Errors
/// Every problem of the file; one that says so where it can't be read.
pub fn load(path: &Path, presence: Presence) -> Result<Model, Vec<Problem>> {
    match read(path) {
        Ok(text) => parse(&Source::new(path, text)),
        Err(error) if error.kind() == ErrorKind::NotFound && presence == Presence::Optional => Ok(Model::default()),
        Err(error) => Err(vec![Problem::of_file(path, format!("the file can't be read: {error}"))]),
    }
}

/// Returns the configuration that a text means.
///
/// # Errors
/// Every problem of the text. A text that is not TOML, or has an unknown key, has that one alone.
pub fn parse(source: &Source) -> Result<Model, Vec<Problem>> {
    let file: File = toml::from_str(source.text()).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        vec![source.problem(span, error.message()).hint("docs/config-reference.md lists every key")]
    })?;
    validate(file, source)
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
