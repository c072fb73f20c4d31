//! Commands around a deployment: migrations before the new version starts and tests before it is live, in a one-off instance with
//! its settings; and those that are run on the machine where bgctl runs.

use std::collections::VecDeque;
use std::time::Duration;

use config::duration::format;
use config::name::ServiceName;
use config::project::Hooks;
use tokio::process::Command;
use tokio::time::timeout;

use super::execute::{Candidate, Rollout};
use super::lease::leased;
use super::report::Report;
use crate::context::{Context, who};
use crate::engine::{self, EngineError, Exit, Instance, InstanceSpec};
use crate::error::{Error, Kind};
use crate::mask;
use crate::ui::Ui;

/// Lines of a hook's output that a failure shows.
const SHOWN: usize = 20;

/// How long a hook may take that nobody gave a time: visitors may be waiting for it.
const TIMEOUT: Duration = Duration::from_secs(60);

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

/// Returns how long each of the file's hooks may take.
pub(super) fn limit(hooks: &Hooks) -> Duration {
    hooks.timeout.unwrap_or(TIMEOUT)
}

/// What a hook is told in its environment.
#[derive(Debug, Clone)]
pub struct Facts(Vec<(&'static str, String)>);

impl Facts {
    /// Returns what is known of every deployment: of which service, and where; the host is empty for this machine.
    pub fn of(context: &Context<'_>, service: &ServiceName) -> Self {
        let host = context.global.host.clone().unwrap_or_default();
        Self(vec![("BG_SERVICE", service.to_string()), ("BG_HOST", host)])
    }

    /// Adds one.
    #[must_use]
    pub fn and(mut self, name: &'static str, fact: &(impl ToString + ?Sized)) -> Self {
        self.0.push((name, fact.to_string()));
        self
    }
}

/// The last lines of a hook, which are said as they come.
struct Tail<'a> {
    ui: &'a Ui,
    lines: VecDeque<String>,
}

impl<'a> Tail<'a> {
    fn new(ui: &'a Ui) -> Self {
        Self { ui, lines: VecDeque::new() }
    }

    fn take(&mut self, line: &str) {
        self.ui.say(&format!("| {line}"));
        if self.lines.len() == SHOWN {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("| {line}"));
    }

    fn failure(self, message: String) -> Error {
        let mut error = Error::new(Kind::Hook, message);
        let title = if self.lines.is_empty() { "it wrote nothing" } else { "its last lines:" };
        error.details.push(title.to_owned());
        error.details.extend(self.lines);
        error
    }
}

/// Returns why an ended hook has failed; `None` where it has not.
fn complaint(line: &str, Exit { code, oom }: &Exit) -> Option<String> {
    let why = if *oom { ", killed for want of memory (OOM)" } else { "" };
    (*code != 0).then(|| format!("`{line}` ended with code {code}{why}"))
}

/// Runs a hook on this machine, in the folder of the file.
///
/// # Errors
/// [`Kind::Hook`] with its exit code and last lines.
///
/// # Cancel safety
/// Dropping it kills the hook and what it started.
pub async fn run_here(ui: &Ui, hooks: &Hooks, name: &str, line: &str, facts: &Facts) -> Result<(), Error> {
    let shown = mask::line(line);
    ui.say(&format!("{name}: {shown}"));
    let limit = limit(hooks);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).current_dir(&hooks.folder).envs(facts.0.iter().map(|(name, fact)| (name, fact)));
    let mut tail = Tail::new(ui);
    let mut take = |line: &str| tail.take(line);
    let ended = timeout(limit, engine::run_to_its_end(command, &mut take)).await;
    let complaint = match ended {
        Ok(Ok(exit)) => complaint(&shown, &exit),
        Ok(Err(error)) => Some(format!("`{shown}` could not be run: {error}")),
        Err(_) => Some(format!("`{shown}` did not end within {}", format(limit))),
    };
    complaint.map_or(Ok(()), |complaint| Err(tail.failure(format!("{name}: {complaint}"))))
}

/// Runs what goes after a deployment, whichever way it ended; nothing that fails here undoes it or hides why it failed.
///
/// # Errors
/// That of the deployment alone.
pub async fn tell(
    context: &Context<'_>,
    service: &ServiceName,
    hooks: &Hooks,
    mut report: Result<Option<Report>, Error>,
) -> Result<Option<Report>, Error> {
    let facts = Facts::of(context, service);
    let ended = match &report {
        Ok(Some(Report { deployment, new, .. })) => hooks.after.as_ref().map(|line| {
            let facts = facts.and("BG_DEPLOYMENT", deployment).and("BG_SLOT", new.slot.lower());
            ("after", line, facts.and("BG_IMAGE", new.image.as_deref().unwrap_or_default()))
        }),
        Ok(None) => None,
        Err(error) => hooks.on_failure.as_ref().map(|line| {
            let facts = facts.and("BG_ERROR", &error.message);
            ("on_failure", line, facts.and("BG_EXIT_CODE", &error.kind.exit_code().0))
        }),
    };
    let Some((name, line, facts)) = ended else { return report };
    // The first signal may be why it failed.
    let ran = tokio::select! {
        biased;
        signal = context.interrupt.second() => Err(Error::interrupted(signal)),
        ran = run_here(context.ui, hooks, name, line, &facts) => ran,
    };
    if let Err(failed) = ran {
        context.ui.warn(&failed.message);
        if let Ok(Some(report)) = &mut report {
            report.after_failed = Some(failed.message);
        }
    }
    report
}

impl Rollout<'_> {
    /// Runs the command that goes before the new version starts.
    ///
    /// # Errors
    /// [`Kind::Hook`] with its exit code and last lines; nothing else was done yet.
    ///
    /// # Cancel safety
    /// Dropping it leaves the one-off instance, which [`crate::engine::Engine::end_once`] removes.
    pub(super) async fn run_before(&mut self, spec: &InstanceSpec, line: &str) -> Result<(), Error> {
        self.context.ui.say(&format!("before: {}", mask::line(line)));
        self.run_inside(spec.clone(), line, self.settings.before_timeout).await
    }

    /// Runs the command that goes before the flip, which is told where the new version is reached.
    ///
    /// # Errors
    /// [`Kind::Hook`] with its exit code and last lines.
    ///
    /// # Cancel safety
    /// As of [`Rollout::run_before`].
    pub(super) async fn run_before_flip(&mut self, instances: &[Instance], line: &str) -> Result<(), Error> {
        let engine = self.engine()?;
        let hooks = self.hooks.clone();
        let mut addresses = Vec::new();
        for instance in instances {
            addresses.push(match hooks.is_inside {
                true => instance.endpoint.to_string(),
                false => engine.address(instance).await?,
            });
        }
        let facts = Facts::of(self.context, self.service)
            .and("BG_DEPLOYMENT", &self.work.deployment)
            .and("BG_IMAGE", self.work.image.as_deref().unwrap_or_default())
            .and("BG_SLOT", self.plan.slot.lower())
            .and("BG_ADDRESS", addresses.first().map_or("", String::as_str))
            .and("BG_ADDRESSES", &addresses.join(" "));
        if !hooks.is_inside {
            let run = leased(self.client, run_here(self.context.ui, &hooks, "before_flip", line, &facts));
            return self.context.interrupt.beside(run).await?;
        }
        self.context.ui.say(&format!("before_flip: {}", mask::line(line)));
        let mut spec = match (&self.candidate, instances) {
            (Candidate::New(spec), _) => (**spec).clone(),
            (_, [first, ..]) => engine.spec_of(first, who()).await?,
            (_, []) => return Err(Error::usage("there is no instance whose image could run before_flip")),
        };
        spec.run.env.extend(facts.0.into_iter().map(|(name, fact)| format!("{name}={fact}")));
        self.run_inside(spec, line, limit(&hooks)).await
    }

    /// Runs a command in a one-off instance.
    async fn run_inside(&mut self, mut spec: InstanceSpec, line: &str, limit: Duration) -> Result<(), Error> {
        spec.run.command = words(line);
        let shown = mask::line(line);
        let engine = self.engine()?;
        let interrupt = self.context.interrupt.clone();
        let mut tail = Tail::new(self.context.ui);
        let mut take = |line: &str| tail.take(line);
        let run = leased(self.client, timeout(limit, engine.run_once(&spec, &mut take)));
        let ended = match interrupt.beside(run).await {
            Ok(ended) => ended,
            Err(interrupted) => {
                engine.end_once(&spec.service).await?;
                return Err(interrupted);
            }
        };
        let complaint = match ended {
            Ok(Ok(exit)) => complaint(&shown, &exit),
            Ok(Err(EngineError::Refused(words))) => {
                let error = Error::from(EngineError::Refused(words));
                Some(format!("`{shown}` could not be run: {}", error.message))
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                engine.end_once(&spec.service).await?;
                Some(format!("`{shown}` did not end within {}", format(limit)))
            }
        };
        complaint.map_or(Ok(()), |complaint| Err(tail.failure(complaint)))
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
