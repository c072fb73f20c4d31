//! The verdict of the demo, in words and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::tally::{Latencies, Span, Tally, twice};
use crate::error::{ExitCode, Kind};
use crate::traffic::Failure;
use crate::traffic::latency::Latency;
use crate::ui::Ui;

/// So many failures are printed one by one.
const SHOWN: usize = 20;

/// All that the demo proves, or fails to.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    event: &'static str,
    requests: usize,
    failed: usize,
    failures: Vec<Failure>,
    /// Answers by each version.
    versions: BTreeMap<u32, u64>,
    timeline: Vec<Span>,
    /// What the proxy said of each flip.
    flip_micros: Vec<Option<u64>>,
    latency: Latencies,
    posts: usize,
    posts_received: usize,
    posts_twice: Vec<String>,
    connections: u64,
    connections_closed: u64,
    /// What else is not as it should be, a sentence each.
    wrong: Vec<String>,
    exit_code: u8,
}

impl Verdict {
    /// Judges what the clients saw, which POSTs the application received, and the reports of the two switches.
    pub(super) fn new(tally: &Tally, received: Vec<String>, reports: &[Value]) -> Self {
        let timeline = tally.timeline();
        let flips: Vec<_> = timeline.iter().skip(1).map(|span| span.from).collect();
        let mut wrong = Vec::new();
        let order: Vec<u32> = timeline.iter().map(|span| span.version).collect();
        if order != [1, 2, 1] {
            wrong.push(format!("the versions answered in the order {order:?}, not [1, 2, 1]"));
        }
        if tally.closed > 0 {
            wrong.push(format!("{} keep-alive connections were closed under their clients", tally.closed));
        }
        let (posts, posts_received) = (tally.posts.len(), received.len());
        let posts_twice = twice(received);
        if !posts_twice.is_empty() {
            wrong.push(format!(
                "{} POSTs reached the application twice: {}",
                posts_twice.len(),
                posts_twice.join(", ")
            ));
        }
        if posts_received < posts {
            wrong.push(format!("{} of {posts} POSTs are not in the application's log", posts - posts_received));
        }
        let is_good = wrong.is_empty() && tally.failures.is_empty();
        let code = if is_good { ExitCode::DONE } else { Kind::Lossy.exit_code() };
        Self {
            event: "report",
            requests: tally.samples.len() + tally.failures.len(),
            failed: tally.failures.len(),
            failures: tally.failures.clone(),
            versions: tally.versions(),
            latency: tally.latencies(&flips),
            timeline,
            flip_micros: reports.iter().map(|report| report["flip_micros"].as_u64()).collect(),
            posts,
            posts_received,
            posts_twice,
            connections: tally.connections,
            connections_closed: tally.closed,
            wrong,
            exit_code: code.0,
        }
    }

    /// Returns 0, or 7 where anything failed.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode(self.exit_code)
    }

    /// Prints it: one event, or lines for people.
    pub(super) fn print(&self, ui: &Ui) {
        if ui.tone().json {
            ui.event(self);
        } else {
            self.lines().iter().for_each(|line| ui.data(line));
        }
        for failure in self.failures.iter().take(SHOWN) {
            ui.warn(&failure.line());
        }
        self.wrong.iter().for_each(|line| ui.warn(line));
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec!["who answered".to_owned()];
        lines.extend(self.timeline.iter().map(|span| {
            let (from, to) = (span.from.as_secs_f64(), span.to.as_secs_f64());
            format!("  {from:7.3} s to {to:7.3} s   v{}.0   {:>6} answers", span.version, span.answers)
        }));
        let flips: Vec<String> =
            self.flip_micros.iter().map(|flip| flip.map_or("?".to_owned(), |micros| micros.to_string())).collect();
        lines.push(format!("flips           {} us", flips.join(" us, ")));
        let row = |name: &str, latency: Latency| {
            let Latency { answers, p50_millis, p99_millis, .. } = latency;
            format!("{name:<15} p50 {p50_millis:.2} ms, p99 {p99_millis:.2} ms   ({answers} answers)")
        };
        lines.push(row("before", self.latency.before));
        lines.push(row("during flips", self.latency.during));
        lines.push(row("after", self.latency.after));
        lines.push(format!(
            "POSTs           {} sent, {} received, {} twice",
            self.posts,
            self.posts_received,
            self.posts_twice.len()
        ));
        lines.push(format!(
            "connections     {} opened, {} closed under a client",
            self.connections, self.connections_closed
        ));
        let verdict = if self.exit_code == 0 { "a switch that nobody noticed" } else { "NOT what it should be" };
        lines.push(format!("requests        {}, {} failed: {verdict}", self.requests, self.failed));
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::tally::Sample;
    use super::*;

    fn good() -> Tally {
        let sample = |second: u64, version| Sample {
            began: Duration::from_secs(second),
            took: Duration::from_millis(1),
            version,
            is_slow: false,
        };
        Tally {
            samples: vec![sample(0, 1), sample(5, 2), sample(9, 1)],
            posts: vec!["a".to_owned(), "b".to_owned()],
            connections: 15,
            ..Tally::default()
        }
    }

    fn judge(tally: &Tally, received: &[&str]) -> Verdict {
        let received = received.iter().map(|id| (*id).to_owned()).collect();
        Verdict::new(tally, received, &[json!({ "flip_micros": 41 }), json!({})])
    }

    #[test]
    fn a_good_run_is_good_and_says_the_flips() {
        let verdict = judge(&good(), &["a", "b"]);
        assert_eq!((verdict.exit_code().0, verdict.requests, verdict.failed), (0, 3, 0), "{:?}", verdict.wrong);
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!((&json["event"], &json["flip_micros"]), (&json!("report"), &json!([41, null])));
        assert!(verdict.lines().last().unwrap().contains("0 failed"));
    }

    #[test]
    fn each_single_fault_makes_it_seven() {
        let failure = Failure { at: Duration::ZERO, client: "fresh-1".to_owned(), why: "answered 502".to_owned() };
        let one_failed = Tally { failures: vec![failure], ..good() };
        assert_eq!(judge(&one_failed, &["a", "b"]).exit_code().0, 7);
        assert_eq!(judge(&good(), &["a", "b", "a"]).exit_code().0, 7, "a POST twice");
        assert_eq!(judge(&good(), &["a"]).exit_code().0, 7, "a POST lost");
        assert_eq!(judge(&Tally { closed: 1, ..good() }, &["a", "b"]).exit_code().0, 7, "a connection closed");
        let mut never_back = good();
        never_back.samples.pop();
        assert_eq!(judge(&never_back, &["a", "b"]).exit_code().0, 7, "no rollback");
        assert_eq!(judge(&Tally::default(), &[]).exit_code().0, 7, "no traffic is no proof");
    }
}
