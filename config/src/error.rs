//! What is wrong with a file, where, and what to do about it.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, ErrorKind, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// A configuration is no longer than this, in bytes: what is longer is not one.
pub const FILE_BYTES: u64 = 1024 * 1024;

/// A file that was read: what places are counted in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    file: Arc<Path>,
    text: Arc<str>,
}

impl Source {
    /// Returns a source of that name and text.
    pub fn new(file: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { file: file.into().into(), text: text.into().into() }
    }

    /// Returns the whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the path that one in this file means: a relative one begins in its folder.
    pub(crate) fn beside(&self, path: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// Returns the problem that stands at a span of bytes.
    pub fn problem(&self, span: Range<usize>, what: impl Into<String>) -> Problem {
        Problem {
            place: self.place(&span),
            what: what.into(),
            hint: String::new(),
            excerpt: Some(Excerpt { text: self.text.clone(), span: self.clamp(span), other: None }),
        }
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let before = &self.text[..self.clamp(span.clone()).start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            file: self.file.clone(),
            position: Some(Position {
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
            }),
        }
    }

    /// A span never leaves the text nor cuts a character, whoever computed it.
    fn clamp(&self, span: Range<usize>) -> Range<usize> {
        let floor = |at: usize| {
            let mut at = at.min(self.text.len());
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(span.start);
        start..floor(span.end).max(start)
    }
}

/// Reads a file of bounded length.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = std::fs::File::open(path)?.take(FILE_BYTES + 1).read_to_string(&mut text)?;
    if length as u64 > FILE_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "it is longer than 1 MiB"));
    }
    Ok(text)
}

/// Returns what tells one content of a file from another.
pub(crate) fn fingerprint(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Where a problem stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The place in it; none where the file as a whole is meant.
    pub position: Option<Position>,
}

/// A place in a text, counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, in words.
    pub what: String,
    /// What to do about it; empty where there is nothing to say.
    pub hint: String,
    excerpt: Option<Excerpt>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    text: Arc<str>,
    span: Range<usize>,
    other: Option<(Range<usize>, String)>,
}

impl Problem {
    /// Returns a problem of the file as a whole.
    pub fn of_file(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        let file = file.into().into();
        Self { place: Place { file, position: None }, what: what.into(), hint: String::new(), excerpt: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Adds a second place of the same source, with a label.
    #[must_use]
    pub fn also(mut self, source: &Source, span: Range<usize>, label: impl Into<String>) -> Self {
        let span = source.clamp(span);
        if let Some(excerpt) = &mut self.excerpt {
            excerpt.other = Some((span, label.into()));
        }
        self
    }

    /// Returns the problem with the lines it stands in, as rustc shows one; without colour.
    pub fn render(&self) -> String {
        let title = Level::ERROR.primary_title(self.what.as_str());
        let file = self.place.file.to_string_lossy();
        let group = match &self.excerpt {
            Some(excerpt) => {
                let mut snippet = Snippet::source(&*excerpt.text)
                    .path(file.as_ref())
                    .annotation(AnnotationKind::Primary.span(excerpt.span.clone()));
                if let Some((span, label)) = &excerpt.other {
                    snippet = snippet.annotation(AnnotationKind::Context.span(span.clone()).label(label.as_str()));
                }
                title.element(snippet)
            }
            None => title.element(annotate_snippets::Origin::path(file.as_ref())),
        };
        let hint = (!self.hint.is_empty()).then(|| Level::HELP.message(self.hint.as_str()));
        Renderer::plain().render(&[group.elements(hint)])
    }
}

/// One line: `bgproxy.toml:3:10: what is wrong (what to do)`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.position {
            Some(Position { line, column }) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}
