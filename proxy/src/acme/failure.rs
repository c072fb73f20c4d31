//! Why there is no certificate, in words, and whom it is of.

use std::time::Duration;

use instant_acme::{Error, Problem};

use super::wire::Wire;

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// In words.
    pub(super) what: String,
    /// Every domain has it: the authority is out of reach, or refuses us.
    pub(super) is_of_all: bool,
    /// What the authority asks us to wait.
    pub(super) wait: Option<Duration>,
}

impl Failure {
    /// The authority does not answer as it should, or refuses us altogether.
    pub(super) fn of_authority(error: &Error, wire: &Wire) -> Self {
        Self { what: words(error), is_of_all: true, wait: wire.asked_to_wait() }
    }

    /// Something here is missing.
    pub(super) fn ours(what: impl Into<String>) -> Self {
        Self { what: what.into(), is_of_all: true, wait: None }
    }

    /// This domain has it alone.
    pub(super) fn of_domain(what: impl Into<String>) -> Self {
        Self { what: what.into(), is_of_all: false, wait: None }
    }

    /// What the authority says of an order is about its domain; what else goes wrong is the authority's.
    pub(super) fn of(error: &Error, wire: &Wire) -> Self {
        Self { is_of_all: !matches!(error, Error::Api(_) | Error::Timeout(_)), ..Self::of_authority(error, wire) }
    }
}

/// Tells whether an authority refuses for that reason (RFC 8555 section 6.7).
pub(super) fn is(error: &Error, kind: &str) -> bool {
    matches!(error, Error::Api(problem) if problem.r#type.as_deref().is_some_and(|found| found.rsplit(':').next() == Some(kind)))
}

fn words(error: &Error) -> String {
    match error {
        Error::Api(problem) => said(problem),
        other => other.to_string(),
    }
}

/// Returns what an authority says, on one line and not longer than a line should be.
pub(super) fn said(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next()).unwrap_or("unknown");
    let details = problem.subproblems.iter().filter_map(|one| one.detail.as_deref()).chain(problem.detail.as_deref());
    let details: String = details
        .collect::<Vec<_>>()
        .join("; ")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(400)
        .collect();
    if details.is_empty() { kind.to_owned() } else { format!("{details} ({kind})") }
}
