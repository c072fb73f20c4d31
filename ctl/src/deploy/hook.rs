//! Commands around a deployment: migrations before the new version starts, in a one-off instance with its settings.

use crate::engine::{Exit, InstanceSpec};
use crate::error::{Error, Kind};

use super::execute::Rollout;

/// Lines of a hook's output that a failure shows.
const SHOWN: usize = 20;

/// Characters that only a shell understands.
const SHELL: &str = "|&;<>()$`\\\"'*?[]#~=%!{}\n";

/// What is in the shell alone, and in no file of its own.
const BUILT_IN: [&str; 10] = ["exit", "cd", "exec", "eval", "export", "set", "unset", "trap", "umask", "ulimit"];

/// Returns a command line as an argument list: its words, or a call of the shell where it needs one.
pub fn words(line: &str) -> Vec<String> {
    let is_built_in = line.split_whitespace().next().is_some_and(|first| BUILT_IN.contains(&first));
    if is_built_in || line.contains(|c| SHELL.contains(c)) {
        return ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
    }
    line.split_whitespace().map(str::to_owned).collect()
}

impl Rollout<'_> {
    /// Runs the command that goes before the new version, where there is one.
    ///
    /// # Errors
    /// [`Kind::Hook`] with its exit code and last lines; nothing else was done yet.
    ///
    /// # Cancel safety
    /// Dropping it leaves the one-off instance, which [`crate::engine::Engine::end_once`] removes.
    pub(super) async fn run_before(&mut self, spec: &InstanceSpec, line: &str) -> Result<(), Error> {
        let (ui, limit) = (self.context.ui, self.settings.before_timeout);
        ui.say(&format!("before: {line}"));
        let mut last = std::collections::VecDeque::new();
        let mut take = |line: &str| {
            ui.say(&format!("| {line}"));
            if last.len() == SHOWN {
                last.pop_front();
            }
            last.push_back(format!("| {line}"));
        };
        let mut spec = spec.clone();
        spec.run.command = words(line);
        let engine = self.engine()?;
        let interrupt = self.context.interrupt.clone();
        let run = engine.run_once(&spec, &mut take);
        let run = super::lease::leased(self.client, tokio::time::timeout(limit, run));
        let ended = match interrupt.beside(run).await {
            Ok(ended) => ended,
            Err(interrupted) => {
                engine.end_once(&spec.service).await?;
                return Err(interrupted);
            }
        };
        let error = match ended {
            Ok(Ok(Exit { code: 0, .. })) => return Ok(()),
            Ok(Ok(Exit { code, oom })) => {
                let why = if oom { ", killed for want of memory (OOM)" } else { "" };
                format!("`{line}` ended with code {code}{why}")
            }
            Ok(Err(error)) => {
                let error = Error::from(error);
                if error.kind != Kind::Refused {
                    return Err(error);
                }
                format!("`{line}` could not be run: {}", error.message)
            }
            Err(_) => {
                engine.end_once(&spec.service).await?;
                format!("`{line}` did not end within {}", config::duration::format(limit))
            }
        };
        let mut error = Error::new(Kind::Hook, error);
        error.details.push(if last.is_empty() { "it wrote nothing".to_owned() } else { "its last lines:".to_owned() });
        error.details.extend(last);
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_command_is_run_as_it_is_and_any_other_by_a_shell() {
        assert_eq!(words("rake  db:migrate"), ["rake", "db:migrate"]);
        assert_eq!(words("A=1 migrate && echo 'done'"), ["/bin/sh", "-c", "A=1 migrate && echo 'done'"]);
        assert_eq!(words("exit 3"), ["/bin/sh", "-c", "exit 3"]);
        assert!(words("").is_empty());
    }
}
