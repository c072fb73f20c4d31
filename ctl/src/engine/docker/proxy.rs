//! The proxy's container: found, made in its holder's namespace, replaced by one of another build.

use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{RestartContainerOptions, StartContainerOptions, StopContainerOptions};
use config::admin::CAN_NOT_ASK;
use tokio::time::Instant;

use super::program_image::ProgramImage;
use super::raising::{Raising, Started, id_of, is_running, no_proxy, started_at};
use super::refusal::{refusal, status};
use super::sight;
use crate::engine::{EngineError, Restart};

/// A proxy that is told to stop drains for 30 s.
const PROXY_GRACE: i32 = 35;
/// One that has handed over finishes what it has within this: 30 s, and what tunnels and streams take to end.
const LAST_REQUESTS: Duration = Duration::from_secs(45);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

impl Raising<'_> {
    pub(super) async fn ensure_proxy(
        &mut self,
        proxy: Option<ContainerInspectResponse>,
        holder_now: Option<&ContainerInspectResponse>,
        holder: &Started,
        image: Option<&ProgramImage>,
    ) -> Result<(), EngineError> {
        let name = self.docker.names.proxy();
        let Some(proxy) = proxy else {
            return self.create_proxy(needed(image)?, holder).await;
        };
        let id = id_of(&proxy)?;
        if !self.shares(&proxy, Some(&holder.id)) {
            // Its holder is gone for good, and a container can't move to another namespace.
            self.docker.discard(&id).await?;
            return self.create_proxy(needed(image)?, holder).await;
        }
        let running_image = proxy.config.as_ref().and_then(|config| config.image.clone()).unwrap_or_default();
        let is_other = image.is_some_and(|image| image.reference != running_image);
        let sees_other = sight::present(Some(&proxy)) != self.volumes;
        if (is_other || sees_other) && self.spec.upgrade {
            return self.replace_proxy(&id, needed(image)?, holder).await;
        }
        if !is_running(&proxy) {
            let answer = self.docker.handles.call.start_container(&id, None::<StartContainerOptions>).await;
            answer.map_err(|error| no_proxy(&refusal(&format!("start {name}"), error)))?;
            self.wait_ready(&id).await?;
            self.report.done.push(format!("started {name}"));
        } else if started_at(&proxy) < holder_now.and_then(started_at) {
            // The holder was restarted under it: what the proxy is in has no network any more.
            let options = RestartContainerOptions { signal: None, t: Some(1) };
            let answer = self.docker.handles.long.restart_container(&id, Some(options)).await;
            answer.map_err(|error| no_proxy(&refusal(&format!("restart {name}"), error)))?;
            self.wait_ready(&id).await?;
            self.report.done.push(format!("restarted {name}: the holder of its ports had been restarted"));
        } else {
            self.wait_ready(&id).await?;
        }
        if sees_other {
            self.report.warnings.push(format!(
                "the running proxy sees other folders and was left alone: `bgctl up{} --upgrade` with these volumes replaces it",
                self.docker.names.flag()
            ));
        }
        if is_other {
            self.report.warnings.push(format!(
                "the running proxy is of another build or has other trusted networks ({running_image}) and was left alone: `bgctl up{} --upgrade` \
                 replaces it",
                self.docker.names.flag()
            ));
        }
        Ok(())
    }

    /// Tells whether a proxy is in the namespace of that holder.
    pub(super) fn shares(&self, proxy: &ContainerInspectResponse, holder_id: Option<&str>) -> bool {
        let mode = proxy.host_config.as_ref().and_then(|host| host.network_mode.as_deref());
        let holder = mode.and_then(|mode| mode.strip_prefix("container:"));
        holder.is_some_and(|holder| Some(holder) == holder_id || holder == self.docker.names.holder())
    }

    pub(super) async fn create_proxy(&mut self, image: &ProgramImage, holder: &Started) -> Result<(), EngineError> {
        self.load(image).await?;
        let name = self.docker.names.proxy();
        let body = self.proxy_body(image, holder);
        let started = self.start_new(&name, body, Some(&holder.log_driver)).await.map_err(|error| no_proxy(&error))?;
        self.wait_ready(&started.id).await?;
        self.report.done.push(format!("started {name} ({})", image.reference));
        Ok(())
    }

    /// Puts another build in the proxy's place; the old one waits under another name until the new one answers.
    async fn replace_proxy(&mut self, old: &str, image: &ProgramImage, holder: &Started) -> Result<(), EngineError> {
        let docker = self.docker;
        self.load(image).await?;
        if self.can_hand_over(old).await? {
            match self.hand_over(old, image, holder).await {
                // A host's policy (SELinux) may keep containers from each other's sockets; then it goes as it can.
                Err(error) if error.to_string().contains(CAN_NOT_ASK) => {}
                handed_over => return handed_over,
            }
        }
        let (name, waiting) = (docker.names.proxy(), docker.names.replaced_proxy());
        if let Some(left) = docker.own_container(&waiting).await? {
            docker.discard(&id_of(&left)?).await?;
        }
        docker.rename(old, &waiting).await?;
        let gap = Instant::now();
        let stop = StopContainerOptions { signal: None, t: Some(PROXY_GRACE) };
        let stopped = docker.handles.long.stop_container(old, Some(stop)).await;
        let outcome = match stopped {
            Err(error) if status(&error) != Some(304) => Err(refusal(&format!("stop {name}"), error)),
            _ => self.create_proxy(image, holder).await,
        };
        if let Err(error) = outcome {
            if let Some(failed) = docker.inspect(&name).await? {
                docker.discard(&id_of(&failed)?).await?;
            }
            docker.rename(old, &name).await?;
            let answer = docker.handles.call.start_container(old, None::<StartContainerOptions>).await;
            answer.map_err(|again| no_proxy(&refusal(&format!("start the old {name} again"), again)))?;
            self.wait_ready(old).await?;
            return Err(EngineError::NoProxy(format!("{error}\nThe old proxy serves again")));
        }
        docker.discard(old).await?;
        let gap = gap.elapsed().as_millis();
        self.report.done.push(format!("replaced the old proxy; new connections were refused for at most {gap} ms"));
        Ok(())
    }
}

impl Raising<'_> {
    /// Tells whether the proxy gives its sockets to another one beside it; it is then not started again once it has.
    async fn can_hand_over(&self, proxy: &str) -> Result<bool, EngineError> {
        let version = self.docker.proxy_version().await?;
        if !version.is_some_and(|version| version.hands_over) {
            return Ok(false);
        }
        // An engine that can't change it would start the old one again when that ends by itself.
        Ok(self.docker.set_proxy_restart(proxy, Restart::No).await.is_ok())
    }

    /// Starts another build beside the proxy, in the same namespace and on the same state: it takes over what the old one has,
    /// which then finishes its requests and ends. Until the new one serves the old one does.
    async fn hand_over(&mut self, old: &str, image: &ProgramImage, holder: &Started) -> Result<(), EngineError> {
        let docker = self.docker;
        let waiting = docker.names.replaced_proxy();
        let begun = async {
            if let Some(left) = docker.own_container(&waiting).await? {
                docker.discard(&id_of(&left)?).await?;
            }
            docker.rename(old, &waiting).await?;
            self.create_proxy(image, holder).await
        };
        if let Err(error) = begun.await {
            self.take_up_again(old).await?;
            return Err(EngineError::NoProxy(format!("{error}\nThe old proxy serves on")));
        }
        self.report.done.push("the old proxy handed over: no connection was refused".to_owned());
        let end = Instant::now() + LAST_REQUESTS;
        while docker.inspect(old).await?.is_some_and(|old| is_running(&old)) && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
        }
        docker.discard(old).await
    }

    /// Makes the old proxy the one again, whatever its successor came to.
    async fn take_up_again(&self, old: &str) -> Result<(), EngineError> {
        let docker = self.docker;
        let name = docker.names.proxy();
        let Some(present) = docker.inspect(old).await? else { return Ok(()) };
        if let Some(failed) = docker.inspect(&name).await?
            && failed.id != present.id
        {
            docker.discard(&id_of(&failed)?).await?;
        }
        if present.name.as_deref().map(|name| name.trim_start_matches('/')) != Some(name.as_str()) {
            docker.rename(old, &name).await?;
        }
        docker.set_proxy_restart(old, Restart::Always).await?;
        if docker.proxy_version().await?.is_none() {
            // It had handed over before the other one failed.
            let options = RestartContainerOptions { signal: None, t: Some(PROXY_GRACE) };
            let answer = docker.handles.long.restart_container(old, Some(options)).await;
            answer.map_err(|error| no_proxy(&refusal(&format!("start the old {name} again"), error)))?;
            self.wait_ready(old).await?;
        }
        Ok(())
    }
}

pub(super) fn needed(image: Option<&ProgramImage>) -> Result<&ProgramImage, EngineError> {
    image.ok_or_else(|| EngineError::NoProxy("the proxy stopped at this very moment\nhint: run it again".to_owned()))
}
