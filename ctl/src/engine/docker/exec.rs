//! A command inside a container: the image's own health check.

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::StreamExt as _;

use super::Docker;
use super::refusal::{refusal, status};
use crate::engine::{EngineError, Instance};

/// Output of a stream beyond this is not kept.
const OUTPUT: usize = 4096;

impl Docker {
    pub(super) async fn exec_health_command(
        &self,
        instance: &Instance,
        command: &[String],
    ) -> Result<Result<(), String>, EngineError> {
        let what = format!("run the health command in {}", instance.name);
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..ExecConfig::default()
        };
        let exec = match self.handles.call.create_exec(&instance.id, config).await {
            Ok(exec) => exec,
            // Not running: that is for `watch` to tell, with the exit code.
            Err(error) if status(&error) == Some(409) => return Ok(Err("the container does not run".to_owned())),
            Err(error) => return Err(refusal(&what, error)),
        };
        // The engine copies the two side by side, so that which line came last of all can't be told.
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let started = self.handles.call.start_exec(&exec.id, Some(StartExecOptions::default())).await;
        match started {
            Ok(StartExecResults::Attached { output: mut frames, .. }) => {
                while let Some(Ok(frame)) = frames.next().await {
                    let text = if matches!(frame, LogOutput::StdErr { .. }) { &mut err } else { &mut out };
                    text.extend_from_slice(&frame.into_bytes());
                    // The last line is wanted, so the beginning goes.
                    let excess = text.len().saturating_sub(OUTPUT);
                    text.drain(..excess);
                }
            }
            Ok(StartExecResults::Detached) => {}
            Err(error) => match refusal(&what, error) {
                EngineError::Refused(words) => return Ok(Err(words)),
                other => return Err(other),
            },
        }
        let result = self.handles.call.inspect_exec(&exec.id).await.map_err(|error| refusal(&what, error))?;
        match result.exit_code {
            Some(0) => Ok(Ok(())),
            code => {
                let code = code.map_or_else(|| "no exit code".to_owned(), |code| format!("exit {code}"));
                // A program complains on stderr.
                let last = last_line(&err).or_else(|| last_line(&out));
                Ok(Err(last.map_or_else(|| code.clone(), |last| format!("{code}: {last}"))))
            }
        }
    }
}

/// Returns the last line that says something.
fn last_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
