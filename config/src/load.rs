//! From a path to the model: read, parse, validate. Nothing is changed or started by reading.

use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::error::{Problem, Source};
use crate::file::File;
use crate::model::Model;
use crate::validate::validate;

/// A configuration is no longer than this, in bytes: what is longer is not one.
pub const FILE_BYTES: u64 = 1024 * 1024;

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

/// Reads a file of bounded length.
pub(crate) fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let length = std::fs::File::open(path)?.take(FILE_BYTES + 1).read_to_string(&mut text)?;
    if length as u64 > FILE_BYTES {
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, "it is longer than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
