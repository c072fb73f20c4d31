//! The values of an instance's environment: they are its container's own, and our labels only name them.
//!
//! A label is copied to log drivers, to collectors of metrics and into bug reports; whoever may inspect a container may read its
//! environment anyhow.

use bollard::models::ContainerInspectResponse;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Docker;
use crate::engine::{EngineError, Instance, RunSettings};

/// So many containers are asked at once: over ssh each call under way may be a channel of its own, and a server allows ten.
const AT_ONCE: usize = 4;

impl Docker {
    /// Returns instances with the values that their labels don't tell; one that is gone by now is left out.
    pub(super) async fn with_values(&self, instances: Vec<Instance>) -> Result<Vec<Instance>, EngineError> {
        let asked = stream::iter(instances).map(async |instance| {
            if !instance.run.env.lacks_values() {
                return Ok(Some(instance));
            }
            let container = self.inspect(&instance.id).await?;
            Ok(container.map(|container| valued(instance, &environment(&container))))
        });
        asked.buffered(AT_ONCE).try_filter_map(async |instance| Ok(instance)).try_collect().await
    }
}

/// Returns a container's environment, as `K=V`.
pub(super) fn environment(container: &ContainerInspectResponse) -> Vec<String> {
    container.config.as_ref().and_then(|config| config.env.clone()).unwrap_or_default()
}

/// Returns an instance with the values of its container's environment.
pub(super) fn valued(instance: Instance, environment: &[String]) -> Instance {
    let run = RunSettings { env: instance.run.env.valued(environment), ..instance.run };
    Instance { run, ..instance }
}
