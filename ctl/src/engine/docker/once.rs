//! One-off containers with a service's settings: hooks and `bgctl run`; and commands in a container that runs.

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::{CreateContainerOptions, StartContainerOptions};
use config::name::ServiceName;
use futures_util::StreamExt as _;

use super::Docker;
use super::labels::{self, Role};
use super::refusal::refusal;
use super::spec::{Surroundings, blueprint};
use crate::engine::{EngineError, Exit, Instance, InstanceSpec, LogRange, Output};

impl Docker {
    /// Runs a command to its end in a container of its own.
    pub(in crate::engine) async fn run_one_off(
        &self,
        spec: &InstanceSpec,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Exit, EngineError> {
        self.end_one_off(&spec.service).await?;
        let name = self.names.once(&spec.service);
        let network = self.names.network();
        let log_driver = self.log_driver().await?;
        let mut blueprint = blueprint(spec, &Surroundings { network: &network, log_driver: &log_driver })?;
        // It is no slot, whatever it has in common with one.
        let mut own = labels::of_part(&network, Some(Role::Once));
        own.insert(labels::SERVICE.to_owned(), spec.service.to_string());
        let labels = blueprint.body.labels.get_or_insert_default();
        labels.retain(|name, _| !name.starts_with(labels::PREFIX));
        labels.extend(own);
        // Said twice, the program would take its own name for an argument.
        let is_entrypoint = spec.run.entrypoint.is_none() && spec.image.entrypoint.first() == spec.run.command.first();
        if is_entrypoint && spec.image.entrypoint.len() == 1 {
            blueprint.body.cmd = Some(spec.run.command[1..].to_vec());
        }
        let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
        let created = self.handles.call.create_container(Some(options), blueprint.body).await;
        let id = created.map_err(|error| refusal(&format!("create {name}"), error))?.id;
        let ended = async {
            for (network, settings) in blueprint.networks {
                self.join(&id, &network, settings).await?;
            }
            let started = self.handles.call.start_container(&id, None::<StartContainerOptions>).await;
            started.map_err(|error| refusal(&format!("start {name}"), error))?;
            // The log ends with the container.
            self.read_log(&id, LogRange { tail: None, follow: true }, line).await?;
            self.exit_of(&id).await
        };
        let ended = ended.await;
        self.discard(&id).await?;
        ended
    }

    /// Removes what a run that was cut off left.
    pub(in crate::engine) async fn end_one_off(&self, service: &ServiceName) -> Result<(), EngineError> {
        let name = self.names.once(service);
        let Some(present) = self.inspect(&name).await? else { return Ok(()) };
        let labels = present.config.as_ref().and_then(|config| config.labels.as_ref());
        if !labels::is_ours(labels, &self.names.network()) {
            return Err(EngineError::Refused(format!(
                "{name} is there already, and bluegreen did not make it, so it was not touched\nhint: `docker rename \
                 {name} OTHER-NAME` frees the name"
            )));
        }
        self.discard(&name).await
    }

    async fn exit_of(&self, id: &str) -> Result<Exit, EngineError> {
        // The log may end a moment before the engine has noted the exit.
        loop {
            let state = self.inspect(id).await?.and_then(|container| container.state);
            let state = state.ok_or_else(|| EngineError::Refused(format!("container {id} is gone")))?;
            if state.running != Some(true) {
                let code = state.exit_code.unwrap_or(Exit::UNKNOWN);
                return Ok(Exit { code, oom: state.oom_killed.unwrap_or(false) });
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Runs a command in a container that runs.
    pub(in crate::engine) async fn exec_command(
        &self,
        instance: &Instance,
        command: &[String],
        output: &mut (dyn FnMut(Output, &[u8]) + Send),
    ) -> Result<i64, EngineError> {
        let what = format!("run a command in {}", instance.name);
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..ExecConfig::default()
        };
        let exec = self.handles.call.create_exec(&instance.id, config).await.map_err(|error| refusal(&what, error))?;
        let started = self.handles.long.start_exec(&exec.id, Some(StartExecOptions::default())).await;
        if let StartExecResults::Attached { output: mut frames, .. } = started.map_err(|error| refusal(&what, error))? {
            while let Some(frame) = frames.next().await {
                let frame = frame.map_err(|error| refusal(&what, error))?;
                let stream = if matches!(frame, LogOutput::StdErr { .. }) { Output::Error } else { Output::Data };
                output(stream, &frame.into_bytes());
            }
        }
        let result = self.handles.call.inspect_exec(&exec.id).await.map_err(|error| refusal(&what, error))?;
        Ok(result.exit_code.unwrap_or(Exit::UNKNOWN))
    }
}
