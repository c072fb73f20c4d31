//! Why a measurement could not be made.

use std::io;
use std::path::PathBuf;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A program that must be there is not.
    #[error("there is no {path}\nhint: {hint}", path = path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What makes it.
        hint: &'static str,
    },
    /// A program ended, or did not begin to serve in time.
    #[error("{program} does not serve; it said:\n{said}")]
    NotServing {
        /// Which.
        program: &'static str,
        /// The end of its log.
        said: String,
    },
    /// A proxy refused a call.
    #[error("{program} refused `{call}`: {answer}")]
    Refused {
        /// Which.
        program: &'static str,
        /// What it was told.
        call: String,
        /// What it answered.
        answer: String,
    },
    /// The load did not begin, or ended by itself.
    #[error("the load ended: {0}")]
    Load(String),
}

impl Error {
    /// Puts words to an error of the kernel; for `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
