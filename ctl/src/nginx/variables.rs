//! Variables within a text, and those that `set` gives a value of their own.

use std::collections::BTreeMap;

use super::directive::{Directive, blocks};

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// As it is.
    Text(String),
    /// The value of a variable, by its name without the `$`.
    Variable(String),
}

/// Takes a text apart: `/new$1`, `${scheme}://$host`. A `$` with no name behind it stands for itself.
pub(crate) fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        let (name, after) = match behind.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => {
                let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(behind.len());
                // A capture is one digit: `$10` is the first one and a zero.
                let end = if behind.starts_with(|c: char| c.is_ascii_digit()) { 1 } else { end };
                behind.split_at(end)
            }
        };
        if name.is_empty() {
            plain.push('$');
            rest = behind;
            continue;
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Variable(name.to_owned()));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    pieces
}

/// The values that `set` gives, as far as they are the same for every request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sets(BTreeMap<String, String>);

impl Sets {
    /// Returns these and those of a block, whose own win.
    pub(crate) fn within(&self, directives: &[Directive]) -> Self {
        let mut sets = self.clone();
        for set in blocks(directives, "set") {
            if let [variable, value] = set.arguments.as_slice() {
                let value = sets.put_in(value);
                sets.0.insert(variable.trim_start_matches('$').to_owned(), value);
            }
        }
        sets
    }

    /// Returns a text with their values in it; other variables stay.
    pub(crate) fn put_in(&self, text: &str) -> String {
        if !text.contains('$') || self.0.is_empty() {
            return text.to_owned();
        }
        let known = |piece: Piece| match piece {
            Piece::Text(text) => text,
            Piece::Variable(name) => self.0.get(&name).cloned().unwrap_or_else(|| format!("${{{name}}}")),
        };
        pieces(text).into_iter().map(known).collect()
    }
}
