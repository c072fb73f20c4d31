//! What keeps a configuration from being read, with its place.

use std::fmt;

use super::directive::Place;

/// A text that nginx would refuse too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error {
    /// Where.
    pub(crate) place: Place,
    /// What is wrong.
    pub(crate) what: String,
}

impl Error {
    pub(super) fn new(place: Place, what: impl Into<String>) -> Self {
        Self { place, what: what.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl std::error::Error for Error {}
