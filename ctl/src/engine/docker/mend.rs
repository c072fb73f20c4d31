//! What a takeover leaves that was killed, finished or taken back.
//!
//! Which it is, the containers tell: where ours run and nobody else's does, visitors are on ours, and all that may be missing is a
//! name. Else nginx gets its name, its ports and its restart policies back.

use std::collections::HashMap;

use bollard::models::{ContainerInspectResponse, RestartPolicy};
use bollard::query_parameters::StartContainerOptions;

use super::names::Names;
use super::raising::{id_of, is_running};
use super::recipe::{Part, Recipe};
use super::refusal::refusal;
use super::{Docker, labels};
use crate::engine::EngineError;

/// On the holder that takes over: the restart policies of what it replaces, by id, as JSON.
pub(super) const POLICIES: &str = "bluegreen.policies";

/// Returns the label's value.
pub(super) fn policies(recipe: &Recipe) -> String {
    let parts = [Some(&recipe.nginx), recipe.holder.as_ref()].into_iter().flatten();
    let policies: HashMap<&str, &Option<RestartPolicy>> = parts.map(|part| (part.id.as_str(), &part.restart)).collect();
    serde_json::to_string(&policies).expect("strings and numbers are JSON")
}

impl Docker {
    /// Finishes or takes back what a run left that was killed; returns what was done.
    ///
    /// # Errors
    /// Where the engine can't be reached or refuses.
    pub async fn mend(&self) -> Result<Vec<String>, EngineError> {
        let (moving, settled) = (self.names.moving(), self.names.settled());
        let is_ours = |container: &ContainerInspectResponse| {
            labels::is_ours(container.config.as_ref().and_then(|config| config.labels.as_ref()), &settled.network())
        };
        let moved = [self.inspect(&moving.holder()).await?, self.inspect(&moving.proxy()).await?];
        let moved = moved.map(|part| part.filter(is_ours));
        if moved.iter().all(Option::is_none) {
            return Ok(Vec::new());
        }
        // One of the two may have its name already.
        let named = [self.inspect(&settled.holder()).await?, self.inspect(&settled.proxy()).await?];
        let (named, others): (Vec<_>, Vec<_>) = named
            .into_iter()
            .map(|part| {
                part.map_or((None, None), |part| if is_ours(&part) { (Some(part), None) } else { (None, Some(part)) })
            })
            .unzip();
        let mut waiting = Vec::new();
        for (name, other) in [settled.holder(), settled.proxy()].into_iter().zip(others) {
            waiting.extend(other.map(|other| (name.clone(), other)));
            let before = self.inspect(&Names::before(&name)).await?.filter(|before| !is_ours(before));
            waiting.extend(before.map(|before| (name, before)));
        }
        let serves = waiting.iter().any(|(_, container)| is_running(container));
        let runs = |at: usize| moved[at].as_ref().or(named[at].as_ref()).is_some_and(is_running);
        if runs(0) && runs(1) && !serves {
            self.rename_all().await?;
            return Ok(vec!["finished what an interrupted run had begun: the ports are bgproxy's".to_owned()]);
        }
        let ours: Vec<&ContainerInspectResponse> = moved.iter().rev().chain(named.iter().rev()).flatten().collect();
        let policies = ours.iter().find_map(|part| policies_of(part)).unwrap_or_default();
        for part in ours {
            self.discard(&id_of(part)?).await?;
        }
        let mut done = Vec::new();
        for (name, container) in waiting {
            let part = Part { id: id_of(&container)?, name, restart: None };
            if container.name.as_deref().is_some_and(|now| now.trim_start_matches('/') != part.name) {
                self.rename(&part.id, &part.name).await?;
            }
            if !is_running(&container) {
                let answer = self.handles.call.start_container(&part.id, None::<StartContainerOptions>).await;
                answer.map_err(|error| refusal(&format!("start {}", part.name), error))?;
                done.push(format!("started {} again, which an interrupted run had stopped", part.name));
            }
            if let Some(policy) = policies.get(&part.id) {
                self.set_policy(&part, policy.clone()).await?;
            }
        }
        Ok(done)
    }
}

fn policies_of(part: &ContainerInspectResponse) -> Option<HashMap<String, Option<RestartPolicy>>> {
    let text = part.config.as_ref()?.labels.as_ref()?.get(POLICIES)?;
    serde_json::from_str(text).ok()
}
