//! A directive: its name, what stands behind it, its block, and where it stands.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A file and a line of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The file.
    pub(crate) file: Arc<Path>,
    /// The line, from 1; 0 is the file as a whole.
    pub(crate) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

/// A directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directive {
    /// Its name.
    pub(crate) name: String,
    /// What stands behind it, without quotes and escapes.
    pub(crate) arguments: Vec<String>,
    /// What stands in its braces, where it has some.
    pub(crate) block: Option<Vec<Self>>,
    /// Where its name stands.
    pub(crate) place: Place,
}

impl Directive {
    /// Returns what stands at a place behind the name; empty where nothing does.
    pub(crate) fn argument(&self, at: usize) -> &str {
        self.arguments.get(at).map_or("", String::as_str)
    }

    /// Returns what stands in its braces.
    pub(crate) fn inner(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// Returns those of a name in its braces.
    pub(crate) fn all<'d>(&'d self, name: &'d str) -> impl Iterator<Item = &'d Self> {
        blocks(self.inner(), name)
    }

    /// Returns the first of a name in its braces.
    pub(crate) fn first<'d>(&'d self, name: &'d str) -> Option<&'d Self> {
        self.all(name).next()
    }

    /// Returns it in one line, as it is written, without what stands in its braces.
    pub(crate) fn text(&self) -> String {
        let arguments = self.arguments.iter().map(|argument| match argument.as_str() {
            "" => "\"\"".to_owned(),
            text if text.contains(char::is_whitespace) => format!("\"{text}\""),
            text => text.to_owned(),
        });
        std::iter::once(self.name.clone()).chain(arguments).collect::<Vec<_>>().join(" ")
    }
}

/// Returns the directives of a name.
pub(crate) fn blocks<'d>(directives: &'d [Directive], name: &'d str) -> impl Iterator<Item = &'d Directive> {
    directives.iter().filter(move |directive| directive.name == name)
}
