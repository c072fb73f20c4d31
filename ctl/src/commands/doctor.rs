//! `bgctl doctor`: what is wrong with the host, and the line that mends it.

use ::config::admin::response::Status;
use clap::Args;
use serde::Serialize;

use super::status::tls_note;
use super::{missing, unseen};
use crate::context::Context;
use crate::engine::Engine;
use crate::engine::docker::{Finding, Verdict};
use crate::error::{Error, ExitCode, Kind};

/// What is wrong with this host, and the line that mends it
#[derive(Debug, Args)]
pub struct Doctor {}

/// The document of `--json`.
#[derive(Serialize)]
struct Report<'a> {
    /// The worst of all findings.
    verdict: Verdict,
    findings: &'a [Finding],
}

impl Doctor {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let (findings, code_if_bad) = match context.engine().await {
            Ok(engine) => (look(engine, context).await, Kind::Usage.exit_code()),
            // An engine out of reach is what the command is asked to find; wrong usage is not.
            Err(error) if error.kind == Kind::Unreachable => (vec![out_of_reach(&error)], error.kind.exit_code()),
            Err(error) => return Err(error),
        };
        let verdict = worst(&findings);
        if context.ui.tone().json {
            context.ui.document(&Report { verdict, findings: &findings });
        } else {
            findings.iter().for_each(|finding| context.ui.data(&finding.to_string()));
        }
        Ok(if verdict == Verdict::Bad { code_if_bad } else { ExitCode::DONE })
    }
}

async fn look(engine: &Engine, context: &Context<'_>) -> Vec<Finding> {
    let way = context.way();
    let mut findings = look_at_host(engine, context).await;
    // A proxy that does not answer is among the findings already.
    if let Ok(missing) = missing::ask(engine, context).await {
        findings.extend(missing.into_iter().map(|found| Finding::bad("live slot", found.words).mend(found.mend)));
    }
    if let Ok(unseen) = unseen::ask(engine, context).await {
        findings.extend(unseen.into_iter().map(|found| Finding::bad("files", found.words).mend(found.mend)));
    }
    if let Ok(mut client) = context.admin().await
        && let Ok(status) = client.status().await
    {
        findings.extend(certificates(&status));
    }
    for mend in findings.iter_mut().filter_map(|finding| finding.mend.as_mut()) {
        let is_command = mend.starts_with("bgctl ") || mend.contains("&& bgctl ");
        *mend = if is_command { way.line(mend) } else { way.complete(mend).into_owned() };
    }
    findings
}

/// Returns what is to be said of certificates: those that did not come by themselves, and those that end.
fn certificates(status: &Status) -> Vec<Finding> {
    let missing = status.services.iter().flat_map(|service| {
        let notes = service.tls.iter().filter_map(|domain| tls_note(&service.name, domain));
        notes.map(|note| Finding::warn("certificate", note).mend(format!("bgctl status {}", service.name)))
    });
    let mut findings: Vec<Finding> = missing.collect();
    let ending = status.warnings.iter().filter(|warning| warning.starts_with("the certificate for "));
    findings.extend(ending.map(|warning| Finding::warn("certificate", warning)));
    if let Some(first) = status.certificates.iter().map(|one| &one.not_after).min().filter(|_| findings.is_empty()) {
        findings.push(Finding::ok(
            "certificate",
            format!("{} shown, the first of them until {first}", status.certificates.len()),
        ));
    }
    findings
}

async fn look_at_host(engine: &Engine, context: &Context<'_>) -> Vec<Finding> {
    match engine {
        Engine::Docker(docker) => docker.survey().await,
        Engine::Process(_) => vec![match context.admin().await {
            Ok(_) => Finding::ok("proxy", format!("a proxy answers at {}", engine.target())),
            Err(error) => {
                let finding = Finding::warn("proxy", error.message);
                match error.hints.first() {
                    Some(hint) => finding.mend(hint),
                    None => finding,
                }
            }
        }],
    }
}

fn out_of_reach(error: &Error) -> Finding {
    let finding = Finding::bad("engine", &error.message);
    match error.hints.first() {
        Some(hint) => finding.mend(hint),
        None => finding,
    }
}

fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides() {
        let mut findings = vec![Finding::ok("engine", "it answers"), Finding::warn("live-restore", "off")];
        assert_eq!(worst(&findings), Verdict::Warn);
        findings.push(Finding::bad("state", "another owner"));
        assert_eq!(worst(&findings), Verdict::Bad);
        assert_eq!(worst(&[]), Verdict::Ok);
    }

    #[test]
    fn an_engine_out_of_reach_is_mended_by_its_hint() {
        let error = Error::new(Kind::Unreachable, "no Docker engine").hint("start it");
        let finding = out_of_reach(&error);
        assert_eq!((finding.verdict, finding.mend.as_deref()), (Verdict::Bad, Some("start it")));
    }
}
