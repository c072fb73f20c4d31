//! What a deployment did: counted by the proxy, told in words and as JSON.

use config::admin::response::Counts;
use config::name::{ServiceName, Slot};
use serde::Serialize;

use crate::error::{Error, ExitCode, Kind};

/// A version in its slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// The slot.
    pub slot: Slot,
    /// The image, where it is known.
    pub image: Option<String>,
}

/// The end of a deployment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename = "report")]
pub struct Report {
    /// The service.
    pub service: ServiceName,
    /// The deployment's id.
    pub deployment: String,
    /// What was live before.
    pub old: Option<Version>,
    /// What is live now.
    pub new: Version,
    /// From staging until the new slot was healthy; null for a pure flip.
    pub healthy_seconds: Option<f64>,
    /// The flip; null where its answer was lost.
    pub flip_micros: Option<u64>,
    /// What became of requests; null where nobody waited for it.
    pub requests: Option<Counts>,
    /// From the flip until nothing was in flight on the old slot; null where nobody waited for it.
    pub drain_seconds: Option<f64>,
    /// How many instances the new version has; null where it is addresses that we don't manage.
    pub replicas: Option<usize>,
    /// What became of the old instance: `warm`, `stopped` or `none`.
    pub kept: &'static str,
    /// Whether it takes requests: of a worker none are told.
    #[serde(skip)]
    pub has_port: bool,
    /// Why the hook that goes after it has failed; absent where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_failed: Option<String>,
    /// The code that the program ends with.
    pub exit_code: u8,
}

impl Report {
    /// Returns the exit code: requests that were cut or failed are never plain success.
    pub fn exit(&self) -> ExitCode {
        let lost = self.requests.is_some_and(|requests| requests.cut + requests.failed > 0);
        if lost { Kind::Lossy.exit_code() } else { ExitCode::DONE }
    }

    /// Returns the report in words.
    pub fn words(&self) -> Vec<String> {
        let Self { service, new, requests, .. } = self;
        let mut lines = vec![match &new.image {
            Some(image) => {
                let replicas = self.replicas.filter(|count| *count > 1).map(|count| format!(", {count} replicas"));
                format!("{service}: {image} is live on {}{}", new.slot, replicas.unwrap_or_default())
            }
            None => format!("{service}: its addresses are live on {}", new.slot),
        }];
        if let Some(seconds) = self.healthy_seconds {
            lines.push(format!("  healthy after {seconds:.1} s"));
        }
        if let (Some(old), Some(_), false) = (&self.old, requests, self.has_port) {
            lines.push(format!("  the one before it, on {}, kept: {}", old.slot, self.kept));
        } else if let (Some(old), Some(seconds), Some(requests)) = (&self.old, self.drain_seconds, requests) {
            lines.push(format!("  {} drained in {seconds:.1} s, kept: {}", old.slot, self.kept));
            let Counts { old, new, held, retried, closed, cut, failed, old_assets } = requests;
            lines.push(format!(
                "  requests: {old} old, {new} new, {held} held, {retried} retried, {closed} closed, {cut} cut, {failed} failed"
            ));
            if *old_assets > 0 {
                lines.push(format!("  old assets: {old_assets} answered by the slot that still has them"));
            }
        }
        lines.extend(self.after_failed.iter().map(|why| format!("  {why}")));
        lines
    }
}

/// The end of a deployment that failed, for `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "report")]
pub struct Failure<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// What happened.
    pub error: &'a str,
    /// More of it.
    pub details: &'a [String],
    /// What still holds, and what to do.
    pub hints: &'a [String],
    /// The code that the program ends with.
    pub exit_code: u8,
}

impl<'a> Failure<'a> {
    /// Returns the report of an error.
    pub fn of(service: &'a ServiceName, error: &'a Error) -> Self {
        let Error { kind, message, details, hints } = error;
        Self { service, error: message, details, hints, exit_code: kind.exit_code().0 }
    }

    /// Returns it as the journal keeps it.
    pub fn value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("our own types are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_were_cut_or_failed_are_never_plain_success() {
        let version = Version { slot: Slot::Blue, image: Some("shop:2".to_owned()) };
        let mut report = Report {
            service: "shop".parse().unwrap(),
            deployment: "d".to_owned(),
            old: None,
            new: version,
            healthy_seconds: Some(1.0),
            flip_micros: Some(41),
            requests: Some(Counts::default()),
            drain_seconds: Some(0.0),
            replicas: Some(1),
            kept: "stopped",
            has_port: true,
            after_failed: None,
            exit_code: 0,
        };
        assert_eq!(report.exit(), ExitCode(0));
        report.requests = Some(Counts { cut: 1, ..Counts::default() });
        assert_eq!(report.exit(), ExitCode(7));
        report.old = Some(Version { slot: Slot::Green, image: None });
        assert!(report.words().iter().any(|line| line.contains("requests: 0 old")), "{:?}", report.words());
        report.has_port = false;
        let words = report.words();
        assert!(words.last().unwrap().ends_with("on GREEN, kept: stopped"), "{words:?}");
        assert!(!words.iter().any(|line| line.contains("drained") || line.contains("requests")), "{words:?}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["event"], &json["new"]["slot"]), (&"report".into(), &"blue".into()));
    }
}
