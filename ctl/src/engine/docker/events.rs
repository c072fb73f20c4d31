//! What happens to a container while a deployment waits for its health, within milliseconds.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use bollard::models::{ContainerInspectResponse, EventMessage, HealthStatusEnum};
use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::Docker;
use crate::engine::{EngineError, Exit, Happening, Instance};

/// How long an engine that went away (a restart of the daemon) may stay away.
const ABSENCE: Duration = Duration::from_secs(30);
/// How long to wait before an engine that went away is asked again.
const PAUSE: Duration = Duration::from_millis(200);

impl Docker {
    /// Waits for an exit or an unhealthy verdict.
    ///
    /// The stream is asked for everything since the container's start, by the engine's own clock: what happens between
    /// the look at the container and the subscription is in it.
    pub(super) async fn watch_instance(&self, instance: &Instance) -> Result<Happening, EngineError> {
        let mut reached = Instant::now();
        loop {
            let container = match self.inspect(&instance.id).await {
                Ok(container) => container,
                Err(EngineError::Unreachable(words)) => {
                    if reached.elapsed() > ABSENCE {
                        return Err(EngineError::Unreachable(words));
                    }
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(refused) => return Err(refused),
            };
            reached = Instant::now();
            let Some(container) = container else {
                return Err(EngineError::Refused(format!("{}: the container was removed by someone", instance.name)));
            };
            if let Some(happening) = state_of(&container) {
                return Ok(happening);
            }
            if let Some(happening) = self.next_event(&instance.id, since(&container)).await {
                return Ok(self.with_oom_flag(&instance.id, happening).await);
            }
            // The stream ended, as it does when the daemon stops; look again.
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn next_event(&self, id: &str, since: Option<String>) -> Option<Happening> {
        let filter = |name: &str, values: &[&str]| {
            (name.to_owned(), values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
        };
        let filters = HashMap::from([
            filter("type", &["container"]),
            filter("container", &[id]),
            // Podman tells of a `die`, and filters by its own word for it.
            filter("event", &["die", "died", "oom", "health_status"]),
        ]);
        let options = EventsOptions { since, until: None, filters: Some(filters) };
        let mut events = std::pin::pin!(self.handles.call.events(Some(options)));
        let mut oom = false;
        while let Some(Ok(event)) = events.next().await {
            match read(&event) {
                Some(Told::Oom) => oom = true,
                Some(Told::Died(code)) => return Some(Happening::Exited(Exit { code, oom })),
                Some(Told::Unhealthy) => return Some(Happening::Unhealthy),
                None => {}
            }
        }
        None
    }

    /// Adds the flag that some engines set only in the container's state.
    async fn with_oom_flag(&self, id: &str, happening: Happening) -> Happening {
        match happening {
            Happening::Exited(exit) if !exit.oom => {
                let state = self.inspect(id).await.ok().flatten().and_then(|container| container.state);
                let oom = state.and_then(|state| state.oom_killed).unwrap_or(false);
                Happening::Exited(Exit { oom, ..exit })
            }
            other => other,
        }
    }
}

/// What one event says.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Died(i64),
    Oom,
    Unhealthy,
}

fn read(event: &EventMessage) -> Option<Told> {
    match event.action.as_deref()? {
        "oom" => Some(Told::Oom),
        "die" => {
            let attributes = event.actor.as_ref()?.attributes.as_ref();
            let code = attributes.and_then(|attributes| attributes.get("exitCode")?.parse().ok());
            // A death without a code would be an engine of another kind; it ended, and not well.
            Some(Told::Died(code.unwrap_or(-1)))
        }
        action if action.starts_with("health_status") && action.ends_with("unhealthy") => Some(Told::Unhealthy),
        _ => None,
    }
}

/// Returns what a container's state already says.
fn state_of(container: &ContainerInspectResponse) -> Option<Happening> {
    let state = container.state.as_ref()?;
    if !state.running.unwrap_or(false) {
        let (code, oom) = (state.exit_code.unwrap_or(-1), state.oom_killed.unwrap_or(false));
        return Some(Happening::Exited(Exit { code, oom }));
    }
    let health = state.health.as_ref().and_then(|health| health.status);
    (health == Some(HealthStatusEnum::UNHEALTHY)).then_some(Happening::Unhealthy)
}

/// Returns the container's start as the events call wants it: seconds and nanoseconds.
fn since(container: &ContainerInspectResponse) -> Option<String> {
    let started = container.state.as_ref()?.started_at.as_deref()?;
    let since_epoch = humantime::parse_rfc3339(started).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{}.{:09}", since_epoch.as_secs(), since_epoch.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerState, EventActor};

    use super::*;

    fn event(action: &str, attributes: &[(&str, &str)]) -> EventMessage {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        EventMessage {
            action: Some(action.to_owned()),
            actor: Some(EventActor { id: None, attributes: Some(attributes) }),
            ..EventMessage::default()
        }
    }

    #[test]
    fn the_exit_code_comes_from_the_event() {
        assert_eq!(read(&event("die", &[("exitCode", "137")])), Some(Told::Died(137)));
        assert_eq!(read(&event("oom", &[])), Some(Told::Oom));
        assert_eq!(read(&event("health_status: unhealthy", &[])), Some(Told::Unhealthy));
        assert_eq!(read(&event("health_status: healthy", &[])), None);
        assert_eq!(read(&event("exec_create: sh", &[])), None);
    }

    #[test]
    fn a_container_that_has_ended_says_so_without_an_event() {
        let ended = ContainerState { running: Some(false), exit_code: Some(3), ..ContainerState::default() };
        let container = ContainerInspectResponse { state: Some(ended), ..ContainerInspectResponse::default() };
        assert_eq!(state_of(&container), Some(Happening::Exited(Exit { code: 3, oom: false })));
    }

    #[test]
    fn a_start_is_told_to_the_nanosecond() {
        let started_at = Some("2026-11-23T19:00:00.000000042Z".to_owned());
        let state = ContainerState { started_at, ..ContainerState::default() };
        let container = ContainerInspectResponse { state: Some(state), ..ContainerInspectResponse::default() };
        assert!(since(&container).unwrap().ends_with(".000000042"));
    }
}
