//! One-off processes: hooks, and `bgctl run` with a service's settings.

use std::io;
use std::pin::pin;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use config::name::ServiceName;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

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
        let mut command = Command::from(program::command(&program, &spec.run, spec.port));
        command.args(words);
        let ended = run_to_its_end(command, line).await;
        ended.map_err(|error| EngineError::Refused(format!("run {}: {error}", program.display())))
    }

    /// A process of ours ended with us: nothing is left.
    #[expect(clippy::unused_self, reason = "the other engine has something to do")]
    pub(in crate::engine) fn end_one_off(&self, _: &ServiceName) {}
}

/// How long the last lines of a command that has ended may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Runs a command on this machine without an input, hands over its lines, and waits until it has ended. What it leaves running goes on.
///
/// # Errors
/// Where it can't be started or read; a command that fails is no error.
///
/// # Cancel safety
/// Dropping it before its end kills the command, and what that has started.
pub(crate) async fn run_to_its_end(mut command: Command, line: &mut (dyn FnMut(&str) + Send)) -> io::Result<Exit> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let lines = Mutex::new(line);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut told = pin!(async { tokio::join!(each_line(out, &lines), each_line(err, &lines)) });
    let (status, told) = tokio::select! {
        told = &mut told => (child.wait().await, Some(told)),
        // What it has started in the background may keep its output open, and is not waited for.
        status = child.wait() => (status, timeout(LAST_LINES, told).await.ok()),
    };
    group.leave();
    told.map_or(Ok(()), |(out, err)| out.and(err))?;
    let status = status?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().map(i64::from).or_else(|| signal.map(|signal| 128 + i64::from(signal)));
    Ok(Exit { code: code.unwrap_or(Exit::UNKNOWN), oom: false })
}

/// A command and what it has started: killed where nobody waits for its end any more.
struct Group(Option<Pid>);

impl Group {
    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended by itself.
            let _gone = kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn each_line(
    stream: Option<impl AsyncRead + Unpin>,
    line: &Mutex<&mut (dyn FnMut(&str) + Send)>,
) -> io::Result<()> {
    let Some(stream) = stream else { return Ok(()) };
    let mut stream = BufReader::new(stream);
    let mut bytes = Vec::new();
    while stream.read_until(b'\n', &mut bytes).await? > 0 {
        // Whatever it writes is shown as well as it can be.
        let text = String::from_utf8_lossy(&bytes);
        line.lock().unwrap_or_else(PoisonError::into_inner)(text.trim_end_matches(['\n', '\r']));
        bytes.clear();
    }
    Ok(())
}
