//! A command inside a container: the image's own health check.

use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::StreamExt as _;

use super::Docker;
use super::refusal::{refusal, status};
use crate::engine::{EngineError, Instance};

/// Output beyond this is not kept.
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
        let mut output = Vec::new();
        let started = self.handles.call.start_exec(&exec.id, Some(StartExecOptions::default())).await;
        match started {
            Ok(StartExecResults::Attached { output: mut frames, .. }) => {
                while let Some(Ok(frame)) = frames.next().await {
                    output.extend_from_slice(&frame.into_bytes());
                    // The last line is wanted, so the beginning goes.
                    let excess = output.len().saturating_sub(OUTPUT);
                    output.drain(..excess);
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
                let text = String::from_utf8_lossy(&output);
                let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
                let code = code.map_or_else(|| "no exit code".to_owned(), |code| format!("exit {code}"));
                Ok(Err(if last.is_empty() { code } else { format!("{code}: {last}") }))
            }
        }
    }
}
