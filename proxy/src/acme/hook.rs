//! The program that writes records of DNS: `PROGRAM ARGUMENTS... add|remove NAME VALUE`, done when it ends.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long it may take: whoever serves the zone may be slow to show it.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// What is to be done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Remove,
}

/// Runs it.
///
/// # Errors
/// Why the record is not there, in words.
///
/// # Cancel safety
/// Dropping it kills the program.
pub(super) async fn run(hook: &[String], verb: Verb, domain: &str, value: &str) -> Result<(), String> {
    let Some((program, arguments)) = hook.split_first() else { return Err("there is no `dns_hook`".to_owned()) };
    let verb = if verb == Verb::Add { "add" } else { "remove" };
    let mut command = Command::new(program);
    command.args(arguments).arg(verb).arg(record(domain)).arg(value);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().map_err(|error| format!("the hook {program} can't be run: {error}"))?;
    let ended = tokio::time::timeout(TIMEOUT, child.wait_with_output()).await;
    let late = |_| format!("the hook {program} did not end within {} s", TIMEOUT.as_secs());
    let output = ended.map_err(late)?.map_err(|error| format!("the hook {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let last: String = last.chars().take(200).collect();
    Err(format!("the hook {program} ended with {}: {last}", output.status))
}

/// Returns the name of the record (RFC 8555 section 8.4); of a wildcard it is that of its parent.
fn record(domain: &str) -> String {
    format!("_acme-challenge.{}", domain.trim_start_matches("*."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hook_is_told_the_record_and_its_last_words_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("told");
        let script =
            format!("echo \"$0 $*\" > '{}'; [ \"$2\" = remove ] && {{ echo no >&2; exit 3; }}; exit 0", told.display());
        let hook = ["/bin/sh", "-c", &script, "me", "zone"].map(str::to_owned);
        run(&hook, Verb::Add, "*.a.test", "value").await.unwrap();
        assert_eq!(std::fs::read_to_string(&told).unwrap(), "me zone add _acme-challenge.a.test value\n");
        let failed = run(&hook, Verb::Remove, "a.test", "value").await.unwrap_err();
        assert!(failed.contains("exit status: 3") && failed.ends_with(": no"), "{failed}");
        let missing = ["/no/such/program".to_owned()];
        assert!(run(&missing, Verb::Add, "a.test", "v").await.unwrap_err().contains("can't be run"));
    }
}
