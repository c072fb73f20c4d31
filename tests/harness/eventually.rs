//! Waiting for what must become true, instead of guessing how long it takes.

use std::time::{Duration, Instant};

/// How long anything may take before the test fails: generous, as it costs nothing where all is well.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks again and again until there is an answer.
///
/// # Panics
/// After ten seconds without one, with what was waited for.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < give_up, "in {PATIENCE:?} it never came true that {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
