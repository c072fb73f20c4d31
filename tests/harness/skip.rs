//! How a test says that it can't run here or what it measured, and how long the tests may take.

use std::io::Write;

/// Says why a test does not run, in the form that `make test` sums up; the test returns after it.
pub fn skipped(test: &str, why: &str) {
    // Past the capture of the test runner: a skip that nobody sees is a lie.
    drop(writeln!(std::io::stderr(), "SKIPPED {test}: {why}"));
}

/// Says what a test measured, in the form that `make test` lists.
pub fn measured(test: &str, what: &str) {
    drop(writeln!(std::io::stderr(), "MEASURED {test}: {what}"));
}

/// Tells whether the long forms run (`BG_SOAK=1`).
pub fn is_soak() -> bool {
    std::env::var_os("BG_SOAK").is_some_and(|value| !value.is_empty() && value != "0")
}
