//! Health: what probes find, and when that makes an endpoint healthy.

mod checker;
mod http1;
mod http2;
mod judge;
mod probe;

pub(crate) use checker::{Found, Watched, look, watch};

/// A live endpoint is unhealthy after so many failures in a row: one may be a hiccup.
const FAILURES: u32 = 2;

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It passed, with these words: the status.
    Passed(String),
    /// It failed, and why.
    Failed(String),
    /// It failed because nothing answers there: no address, no connection, or one that ends without an answer.
    Dead(String),
}

impl Outcome {
    pub(crate) fn passed(&self) -> bool {
        matches!(self, Self::Passed(_))
    }

    pub(crate) fn words(&self) -> &str {
        match self {
            Self::Passed(words) | Self::Failed(words) | Self::Dead(words) => words,
        }
    }
}

/// The last probes of an endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Streak {
    healthy: bool,
    was_healthy: bool,
    passes: u32,
    failures: u32,
    outcome: String,
}

impl Streak {
    pub(crate) fn new(healthy: bool) -> Self {
        Self { healthy, was_healthy: healthy, passes: 0, failures: 0, outcome: "not probed yet".to_owned() }
    }

    /// Takes an outcome and returns whether the endpoint is healthy now.
    pub(crate) fn take(&mut self, outcome: &Outcome, passes_wanted: u32) -> bool {
        if outcome.passed() {
            self.passes = self.passes.saturating_add(1);
            self.failures = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
            self.passes = 0;
        }
        self.healthy = if self.healthy { self.failures < FAILURES } else { self.passes >= passes_wanted.max(1) };
        self.was_healthy |= self.healthy;
        outcome.words().clone_into(&mut self.outcome);
        self.healthy
    }

    pub(crate) fn outcome(&self) -> &str {
        &self.outcome
    }

    pub(crate) fn was_healthy(&self) -> bool {
        self.was_healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_must_come_in_a_row_and_one_hiccup_is_forgiven() {
        let (pass, fail) = (Outcome::Passed("200".to_owned()), Outcome::Failed("503".to_owned()));
        let mut streak = Streak::new(false);
        let verdicts: Vec<bool> =
            [&pass, &fail, &pass, &pass, &fail, &pass, &fail, &fail].map(|outcome| streak.take(outcome, 2)).to_vec();
        assert_eq!(verdicts, [false, false, false, true, true, true, true, false]);
    }
}
