//! One-off processes with a service's settings: hooks and `bgctl run`.

use std::process::Stdio;
use std::sync::PoisonError;

use config::name::ServiceName;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use super::Process;
use super::program;
use crate::engine::{EngineError, Exit, InstanceSpec};

impl Process {
    /// Runs a command to its end as a process of its own; it ends with us.
    pub(in crate::engine) async fn run_one_off(
        &self,
        spec: &InstanceSpec,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Exit, EngineError> {
        program::check(&spec.run)?;
        let (name, words) =
            spec.run.command.split_first().ok_or_else(|| {
                EngineError::Usage("there is no command to run\nhint: name one behind `--`".to_owned())
            })?;
        let program = program::find(name, config::paths::variable("PATH").as_deref())?;
        let failed = |error: std::io::Error| EngineError::Refused(format!("run {}: {error}", program.display()));
        let mut command = Command::from(program::command(&program, &spec.run, spec.port));
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let lines = std::sync::Mutex::new(line);
        let out = each_line(child.stdout.take(), &lines);
        let err = each_line(child.stderr.take(), &lines);
        let (out, err, status) = tokio::join!(out, err, child.wait());
        out.and(err).map_err(failed)?;
        let status = status.map_err(failed)?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        let code = status.code().map(i64::from).or_else(|| signal.map(|signal| 128 + i64::from(signal)));
        Ok(Exit { code: code.unwrap_or(Exit::UNKNOWN), oom: false })
    }

    /// A process of ours ended with us: nothing is left.
    #[expect(clippy::unused_self, reason = "the other engine has something to do")]
    pub(in crate::engine) fn end_one_off(&self, _: &ServiceName) {}
}

async fn each_line(
    stream: Option<impl AsyncRead + Unpin>,
    line: &std::sync::Mutex<&mut (dyn FnMut(&str) + Send)>,
) -> std::io::Result<()> {
    let Some(stream) = stream else { return Ok(()) };
    let mut lines = BufReader::new(stream).lines();
    while let Some(text) = lines.next_line().await? {
        line.lock().unwrap_or_else(PoisonError::into_inner)(&text);
    }
    Ok(())
}
