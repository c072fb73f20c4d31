//! What a command could not do, and the one place where that becomes an exit code.

use std::fmt;

use config::admin::{AdminError, ErrorCode};

use crate::admin;
use crate::engine::EngineError;
use crate::way::Way;

/// The code that the program ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode(pub u8);

impl ExitCode {
    /// Done.
    pub const DONE: Self = Self(0);
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.0)
    }
}

/// A signal that asks the program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// What `kill` and a stopping system send.
    Terminate,
    /// The terminal or the ssh connection is gone.
    HangUp,
}

/// The kinds of failure that a script can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Wrong usage or configuration, an unknown service, a route that is taken, what is not there yet.
    Usage,
    /// The proxy is not there and could not be made to run.
    NoProxy,
    /// The image is missing, or the engine refused to create or start the instance.
    Refused,
    /// The flip was refused, or there is nothing to go back to.
    NoFlip,
    /// The new slot exited or never became healthy.
    Unhealthy,
    /// Someone else holds the lock.
    Locked,
    /// Done, but requests were cut or failed.
    Lossy,
    /// The engine or its host can't be reached, or its disk is full.
    Unreachable,
    /// A hook failed; the old version serves.
    Hook,
    /// A signal ended the command.
    Interrupted(Signal),
}

impl Kind {
    /// Returns the exit code; scripts rely on it, so it never changes.
    pub fn exit_code(self) -> ExitCode {
        ExitCode(match self {
            Self::Usage => 1,
            Self::NoProxy => 2,
            Self::Refused => 3,
            Self::NoFlip => 4,
            Self::Unhealthy => 5,
            Self::Locked => 6,
            Self::Lossy => 7,
            Self::Unreachable => 8,
            Self::Hook => 9,
            Self::Interrupted(Signal::Interrupt) => 130,
            Self::Interrupted(Signal::Terminate) => 143,
            Self::Interrupted(Signal::HangUp) => 129,
        })
    }
}

impl Kind {
    /// Returns the kind of failure that a command ended with, by its exit code.
    pub fn of(code: ExitCode) -> Self {
        let kinds = [
            Self::NoProxy,
            Self::Refused,
            Self::NoFlip,
            Self::Unhealthy,
            Self::Locked,
            Self::Lossy,
            Self::Unreachable,
            Self::Hook,
            Self::Interrupted(Signal::Interrupt),
            Self::Interrupted(Signal::Terminate),
            Self::Interrupted(Signal::HangUp),
        ];
        kinds.into_iter().find(|kind| kind.exit_code() == code).unwrap_or(Self::Usage)
    }
}

/// A failure in words: what happened, what still holds, what to do.
#[derive(Debug, Clone)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    /// What happened.
    pub message: String,
    /// More of it, a line each: the last probe, the last lines of a log.
    pub details: Vec<String>,
    /// What still holds, and what to do.
    pub hints: Vec<String>,
}

impl Error {
    /// Returns a failure without details.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: Vec::new(), hints: Vec::new() }
    }

    /// Returns wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Returns the end by a signal.
    pub fn interrupted(signal: Signal) -> Self {
        let message = match signal {
            Signal::Interrupt => "interrupted",
            Signal::Terminate => "terminated",
            Signal::HangUp => "hung up",
        };
        Self::new(Kind::Interrupted(signal), message)
    }

    /// Adds a line of detail.
    #[must_use]
    pub fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    /// Adds what still holds, or what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Returns the same with commands that lead to where the run works, for what is not printed as words.
    #[must_use]
    pub fn led(mut self, way: &Way) -> Self {
        let complete = |line: &mut String| *line = way.complete(line).into_owned();
        complete(&mut self.message);
        self.details.iter_mut().chain(&mut self.hints).for_each(complete);
        self
    }

    /// Splits a text whose later lines begin with `hint: `, as engines write theirs.
    fn from_text(kind: Kind, text: &str) -> Self {
        let mut lines = text.lines();
        let mut error = Self::new(kind, lines.next().unwrap_or_default());
        for line in lines {
            match line.strip_prefix("hint: ") {
                Some(hint) => error.hints.push(hint.to_owned()),
                None => error.details.push(line.to_owned()),
            }
        }
        error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        let kind = match &error {
            EngineError::Unreachable(_) => Kind::Unreachable,
            EngineError::Refused(_) => Kind::Refused,
            EngineError::NoProxy(_) => Kind::NoProxy,
            EngineError::Usage(_) => Kind::Usage,
        };
        Self::from_text(kind, &error.to_string())
    }
}

impl From<AdminError> for Error {
    fn from(error: AdminError) -> Self {
        let kind = match error.code {
            ErrorCode::BadRequest
            | ErrorCode::NoSuchCall
            | ErrorCode::UnknownService
            | ErrorCode::RouteTaken
            | ErrorCode::OtherOrigin
            | ErrorCode::TooLarge
            | ErrorCode::NoIfMatch
            | ErrorCode::NotThereYet => Kind::Usage,
            ErrorCode::Internal => Kind::NoProxy,
            ErrorCode::Stale
            | ErrorCode::EmptySlot
            | ErrorCode::SlotIsLive
            | ErrorCode::NothingToRollBack
            | ErrorCode::NotNow
            | ErrorCode::Superseded => Kind::NoFlip,
            ErrorCode::NotHealthy => Kind::Unhealthy,
            ErrorCode::Locked | ErrorCode::HandingOver => Kind::Locked,
            ErrorCode::NotSaved => Kind::Unreachable,
        };
        let failure = Self::new(kind, error.message);
        if error.hint.is_empty() { failure } else { failure.hint(error.hint) }
    }
}

impl From<admin::Error> for Error {
    fn from(error: admin::Error) -> Self {
        match error {
            admin::Error::Refused(refusal) => refusal.into(),
            admin::Error::Engine(error) => error.into(),
            admin::Error::Connect { .. } | admin::Error::Broken(_) | admin::Error::NoProxy => {
                Self::new(Kind::NoProxy, error.to_string()).hint("`bgctl up` makes sure that the proxy runs")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_exit_code_that_scripts_rely_on() {
        let codes = [
            (Kind::Usage, 1),
            (Kind::NoProxy, 2),
            (Kind::Refused, 3),
            (Kind::NoFlip, 4),
            (Kind::Unhealthy, 5),
            (Kind::Locked, 6),
            (Kind::Lossy, 7),
            (Kind::Unreachable, 8),
            (Kind::Hook, 9),
            (Kind::Interrupted(Signal::Interrupt), 130),
            (Kind::Interrupted(Signal::Terminate), 143),
            (Kind::Interrupted(Signal::HangUp), 129),
        ];
        for (kind, code) in codes {
            assert_eq!(kind.exit_code(), ExitCode(code), "{kind:?}");
            assert_eq!(Kind::of(ExitCode(code)), kind);
        }
    }

    #[test]
    fn a_refusal_of_the_proxy_keeps_its_words_and_gets_its_exit_code() {
        let codes = [
            (ErrorCode::Locked, 6),
            (ErrorCode::RouteTaken, 1),
            (ErrorCode::UnknownService, 1),
            (ErrorCode::NotHealthy, 5),
            (ErrorCode::Stale, 4),
            (ErrorCode::NothingToRollBack, 4),
            (ErrorCode::NotSaved, 8),
        ];
        for (code, exit) in codes {
            let error = Error::from(AdminError::new(code, "no").hint("so"));
            assert_eq!((error.kind.exit_code().0, error.message.as_str()), (exit, "no"), "{code:?}");
            assert_eq!(error.hints, ["so"]);
        }
    }

    #[test]
    fn an_engines_hint_is_told_apart_from_its_message() {
        let error = Error::from(EngineError::NoProxy("no proxy\nlooked in PATH\nhint: make static".to_owned()));
        assert_eq!(error.kind.exit_code(), ExitCode(2));
        assert_eq!((error.message.as_str(), error.details.len()), ("no proxy", 1));
        assert_eq!(error.hints, ["make static"]);
    }
}
