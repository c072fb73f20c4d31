//! Paths as rules name them: with `*` for anything, or as a regular expression.

use std::fmt;
use std::str::FromStr;

use regex_lite::Regex;

use super::shorten;

/// A path in which each `*` stands for anything, slashes too: `/old/*`, `/assets/*.css`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGlob(String);

impl PathGlob {
    /// As many can be named in a text that is made of them.
    const STARS: usize = 9;

    /// Tells whether it takes a path.
    pub fn takes(&self, path: &str) -> bool {
        self.captures(path).is_some()
    }

    /// Returns what each `*` stands for: the least that is possible, and of the last one the rest; `None` where it does
    /// not take the path.
    pub fn captures<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        let mut pieces = self.0.split('*');
        let mut rest = path.strip_prefix(pieces.next().unwrap_or_default())?;
        let mut pieces: Vec<&str> = pieces.collect();
        let Some(last) = pieces.pop() else { return rest.is_empty().then(Vec::new) };
        let mut captures = Vec::with_capacity(pieces.len() + 1);
        for piece in pieces {
            let (before, behind) = rest.split_once(piece)?;
            captures.push(before);
            rest = behind;
        }
        captures.push(rest.strip_suffix(last)?);
        Some(captures)
    }

    /// Returns how many `*` it has.
    pub fn stars(&self) -> usize {
        self.0.matches('*').count()
    }
}

impl FromStr for PathGlob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = shorten(text);
        if !text.starts_with('/') {
            return Err(format!("`{shown}` does not begin with `/`"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte)) {
            return Err(format!("`{shown}` has a character that is in no path"));
        }
        if text.contains("**") || text.matches('*').count() > Self::STARS {
            return Err(format!("`{shown}` has two `*` side by side, or more than nine"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A regular expression of paths, matched in a time that grows with the path alone; `^` and `$` tie it to its ends.
#[derive(Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Longer ones are programs.
    const LONGEST: usize = 512;

    /// Returns the expression.
    pub fn regex(&self) -> &Regex {
        &self.0
    }

    /// Returns how many groups it has.
    pub fn groups(&self) -> usize {
        self.0.captures_len() - 1
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > Self::LONGEST {
            return Err(format!("a pattern is longer than {} bytes", Self::LONGEST));
        }
        Regex::new(text).map(Self).map_err(|error| format!("`{}` is no regular expression: {error}", shorten(text)))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

super::serde_as_text!(PathGlob, Pattern);
