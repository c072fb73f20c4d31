//! Variables of a file, as docker's `--env-file` has them.

use std::io::{BufRead, Read};

use crate::error::Error;

/// Sets a variable, in the place of an earlier one of that name.
pub(super) fn set(env: &mut Vec<String>, pair: String) {
    let name = pair.split('=').next().unwrap_or_default();
    env.retain(|present| present.split('=').next() != Some(name));
    env.push(pair);
}

/// Reads a file of variables; `-` is standard input.
///
/// # Errors
/// Wrong usage where it can't be read.
pub(super) fn read(file: &str) -> Result<Vec<String>, Error> {
    let unread = |error: std::io::Error| Error::usage(format!("read --env-file {file}: {error}"));
    let reader: Box<dyn Read> =
        if file == "-" { Box::new(std::io::stdin()) } else { Box::new(std::fs::File::open(file).map_err(unread)?) };
    let mut pairs = Vec::new();
    for line in std::io::BufReader::new(reader).lines() {
        let line = line.map_err(unread)?;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.contains('=') {
            pairs.push(line.to_owned());
        } else if let Some(value) = ::config::paths::variable(line) {
            pairs.push(format!("{line}={value}"));
        }
    }
    Ok(pairs)
}
