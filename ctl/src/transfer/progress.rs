//! How far a transfer is: often on a terminal, now and then in a log.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::ui::Ui;

/// Between two lines on a terminal, where each is written over the one before.
const LIVE: Duration = Duration::from_millis(200);
/// Between two lines in a log.
const LOGGED: Duration = Duration::from_secs(10);

/// A transfer, as seen from outside.
pub(super) struct Progress {
    pub(super) what: String,
    /// Bytes on the wire.
    pub(super) sent: Arc<AtomicU64>,
    /// The bytes that they stand for, before they were compressed.
    pub(super) raw: Arc<AtomicU64>,
    /// About how many of those there will be.
    pub(super) expected: u64,
}

impl Progress {
    /// Tells how far it is until it is dropped.
    pub(super) async fn tell(&self, ui: &Ui) -> Infallible {
        let began = Instant::now();
        let mut tick = tokio::time::interval(if ui.is_live() { LIVE } else { LOGGED });
        tick.tick().await;
        loop {
            tick.tick().await;
            let (sent, raw) = (self.sent.load(Ordering::Relaxed), self.raw.load(Ordering::Relaxed));
            ui.progress(&format!("{}: {}", self.what, words(sent, raw, self.expected, began.elapsed())));
        }
    }
}

fn words(sent: u64, raw: u64, expected: u64, took: Duration) -> String {
    if sent == 0 {
        return "reading the image".to_owned();
    }
    let seconds = took.as_secs_f64().max(0.001);
    let rate = size((sent as f64 / seconds) as u64);
    let sent = size(sent);
    if raw == 0 || raw >= expected {
        return format!("{sent}, {rate}/s");
    }
    let left = seconds * (expected - raw) as f64 / raw as f64;
    format!("{sent}, {rate}/s, {} %, {left:.0} s left", raw * 100 / expected)
}

/// Returns a number of bytes as docker writes them: in powers of a thousand.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            let digits = usize::from(unit != "B" && value < 100.0);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_powers_of_a_thousand() {
        let cases = [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (233_000_000, "233 MB"), (1_500_000_000, "1.5 GB")];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn what_is_left_is_said_as_long_as_it_can_be_told() {
        let second = Duration::from_secs(1);
        assert_eq!(words(0, 0, 100, second), "reading the image");
        assert_eq!(words(2_000_000, 5_000_000, 20_000_000, second), "2.0 MB, 2.0 MB/s, 25 %, 3 s left");
        assert_eq!(words(2_000_000, 5_000_000, 4_000_000, second), "2.0 MB, 2.0 MB/s");
    }
}
