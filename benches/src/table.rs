//! What was measured, as a table for people and as one JSON document.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::contender::{Installed, Kind};
use crate::load::Plan;
use crate::measure::{Measure, Spread};

/// Everything that a run found.
#[derive(Debug)]
pub struct Findings {
    /// The load.
    pub plan: Plan,
    /// Rounds of each proxy.
    pub rounds: usize,
    /// The proxies that were measured.
    pub measured: Vec<(Installed, Measure)>,
    /// The proxies that are not installed.
    pub skipped: Vec<Kind>,
}

impl Findings {
    /// Returns the table.
    pub fn text(&self) -> String {
        let Plan { rate, keep_alive, fresh } = self.plan;
        let mut text = format!(
            "{rate} requests/s of {keep_alive} keep-alive and {fresh} new-connection clients; {} rounds, interleaved; \
             times in ms\n\n",
            self.rounds
        );
        let mut line = |words: &[&str]| {
            let [name, cells @ ..] = words else { return };
            let cells: String = cells.iter().map(|cell| format!("{cell:>8}")).collect();
            // Writing to a string never fails.
            _ = writeln!(text, "{name:<24}{cells}");
        };
        line(&["", "", "swap", "latency", "", "the call", "", "", "late", "failed", "of", "closed", "not at"]);
        line(&["proxy", "switches", "p50", "p99", "max", "p50", "p99", "max", "", "", "", "", "rest"]);
        for (installed, measure) in &self.measured {
            let (swap, call) = (Spread::of(&measure.swaps), Spread::of(&measure.calls));
            let times = [swap.p50, swap.p99, swap.max, call.p50, call.p99, call.max].map(millis);
            let counts = [measure.late, measure.failed, measure.requests, measure.closed, measure.restless];
            let mut cells = vec![label(installed.kind), measure.swaps.len().to_string()];
            cells.extend(times);
            cells.extend(counts.map(|count| count.to_string()));
            line(&cells.iter().map(String::as_str).collect::<Vec<_>>());
        }
        text.push('\n');
        for (installed, measure) in &self.measured {
            let (answers, delays) = (Spread::of(&measure.answers), Spread::of(&measure.delays));
            _ = writeln!(
                text,
                "{}: {:.0} requests/s were sent, p99 {} ms behind; answered after p50 {} ms, p99 {} ms, \
                 max {} ms; {} switches had late requests; {}",
                label(installed.kind),
                measure.rate(),
                millis(delays.p99),
                millis(answers.p50),
                millis(answers.p99),
                millis(answers.max),
                measure.late_switches,
                installed.version,
            );
            for (at, why) in measure.failures.iter().take(3) {
                _ = writeln!(text, "    failed, {:.3} s into its round: {why}", at.as_secs_f64());
            }
        }
        for kind in &self.skipped {
            _ = writeln!(text, "{}: skipped, it is not installed", label(*kind));
        }
        text
    }

    /// Returns the document.
    pub fn json(&self) -> Value {
        let measured = self.measured.iter().map(|(installed, measure)| {
            let mut all = measure.json();
            all["proxy"] = installed.kind.program().into();
            all["version"] = installed.version.as_str().into();
            all["call"] = installed.kind.call().into();
            all
        });
        json!({
            "load": {
                "rate": self.plan.rate,
                "keep_alive": self.plan.keep_alive,
                "fresh": self.plan.fresh,
            },
            "rounds": self.rounds,
            "measured": measured.collect::<Vec<_>>(),
            "skipped": self.skipped.iter().map(|kind| label(*kind)).collect::<Vec<_>>(),
        })
    }
}

fn label(kind: Kind) -> String {
    if kind == Kind::Nginx { kind.call().to_owned() } else { format!("{} {}", kind.program(), kind.call()) }
}

fn millis(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}
