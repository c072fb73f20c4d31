//! What the proxy serves from and the engine does not have, with the command that mends it.
//!
//! The engine is never asked what is live: the proxy knows. It is asked whether that is still there.

use std::fmt;

use ::config::admin::response::{ServiceStatus, SlotState};
use ::config::name::Slot;

use crate::context::Context;
use crate::engine::{Engine, Instance};
use crate::error::Error;

/// A live slot without what it should run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// What is so, in words.
    pub(super) words: String,
    /// The command that mends it.
    pub(super) mend: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.words, self.mend)
    }
}

/// Looks for what is live and not there.
///
/// # Errors
/// Where the engine can't be reached.
pub(super) async fn look(
    engine: &Engine,
    services: &[ServiceStatus],
) -> Result<Vec<Missing>, crate::engine::EngineError> {
    let instances = engine.instances(None).await?;
    Ok(services.iter().filter_map(|service| missing(service, &instances)).collect())
}

/// Asks the proxy first.
///
/// # Errors
/// Where the proxy or the engine can't be reached.
pub(super) async fn ask(engine: &Engine, context: &Context<'_>) -> Result<Vec<Missing>, Error> {
    let status = context.admin().await?.status().await?;
    Ok(look(engine, &status.services).await?)
}

/// Returns what a service's live slot lacks; nothing where it is addresses that we don't manage.
fn missing(service: &ServiceStatus, instances: &[Instance]) -> Option<Missing> {
    let live = service.live?;
    let (slot, name) = (service.slots.get(live), &service.name);
    let (image, deployment) = (slot.image.as_ref()?, slot.deployment.as_ref()?);
    let ours = instances.iter().filter(|instance| instance.service == *name);
    let is_of_live =
        |instance: &&Instance| instance.slot == live && !instance.kept && instance.deployment == *deployment;
    let (of_live, others): (Vec<_>, Vec<_>) = ours.partition(is_of_live);
    let wanted = slot.endpoints.len().max(1);
    let running = of_live.iter().filter(|instance| instance.running).count();
    if running >= wanted {
        return None;
    }
    let stopped: Vec<&str> =
        of_live.iter().filter(|instance| !instance.running).map(|instance| instance.name.as_str()).collect();
    let gone = wanted.saturating_sub(of_live.len());
    let mut what = Vec::new();
    if !stopped.is_empty() {
        let verb = if stopped.len() == 1 { "does" } else { "do" };
        what.push(format!("{} {verb} not run", stopped.join(" and ")));
    }
    if gone > 0 {
        what.push(if wanted == 1 {
            "its instance is gone".to_owned()
        } else {
            format!("{gone} of its {wanted} instances are gone")
        });
    }
    let words = format!("{live} of {name} is live and {}", what.join(", "));
    let back = live.other();
    let mend = if running > 0 || gone == 0 {
        format!("`bgctl scale {name} {wanted}` starts what is missing")
    } else if is_warm(service, back) {
        format!("`bgctl rollback {name}` makes {back} live, which is warm")
    } else if others.iter().any(|instance| instance.slot == back) {
        format!("`bgctl rollback {name}` starts the version before it")
    } else {
        format!("`bgctl switch {name} --image {image}` starts it anew")
    };
    Some(Missing { words, mend })
}

fn is_warm(service: &ServiceStatus, slot: Slot) -> bool {
    let slot = service.slots.get(slot);
    matches!(slot.state, SlotState::Warm | SlotState::Draining)
        && slot.endpoints.iter().all(|endpoint| endpoint.healthy)
}

#[cfg(test)]
mod tests {
    use ::config::admin::request::ServiceSettings;
    use ::config::admin::response::{EndpointStatus, Origin, SlotStatus, Slots};

    use super::*;
    use crate::engine::RunSettings;

    fn instance(name: &str, slot: Slot, deployment: &str, running: bool) -> Instance {
        Instance {
            id: name.to_owned(),
            name: name.to_owned(),
            service: "shop".parse().unwrap(),
            slot,
            replica: 1,
            kept: false,
            running,
            endpoint: format!("{name}:8080").parse().unwrap(),
            deployment: deployment.to_owned(),
            image: "shop:2".to_owned(),
            image_id: "x".to_owned(),
            run: RunSettings::default(),
            notes: Vec::new(),
            created: String::new(),
        }
    }

    fn service(endpoints: &[&str], blue: SlotState, image: Option<&str>) -> ServiceStatus {
        let endpoint = |name: &&str| EndpointStatus {
            address: format!("{name}:8080").parse().unwrap(),
            healthy: true,
            reason: None,
        };
        let slot = |state, endpoints: &[&str], deployment: &str| SlotStatus {
            state,
            endpoints: endpoints.iter().map(endpoint).collect(),
            in_flight: 0,
            long_lived: None,
            image: image.map(str::to_owned),
            deployment: Some(deployment.to_owned()),
            since: None,
        };
        ServiceStatus {
            name: "shop".parse().unwrap(),
            generation: 1,
            origin: Origin::Admin,
            live: Some(Slot::Green),
            slots: Slots { blue: slot(blue, &["shop_BLUE"], "old"), green: slot(SlotState::Live, endpoints, "new") },
            settings: ServiceSettings::default(),
            lease: None,
            paused: None,
            maintenance: None,
            canary: None,
            preview: None,
            tls: Vec::new(),
            bake: None,
        }
    }

    #[test]
    fn what_is_live_and_not_there_is_told_with_what_mends_it() {
        let shop = |blue| service(&["shop_GREEN"], blue, Some("shop:2"));
        let green = |running| instance("shop_GREEN", Slot::Green, "new", running);
        let blue = instance("shop_BLUE", Slot::Blue, "old", true);
        let told = |service: &ServiceStatus, instances: &[Instance]| missing(service, instances).unwrap().to_string();
        assert_eq!(missing(&shop(SlotState::Warm), &[blue.clone(), green(true)]), None);
        let warm = told(&shop(SlotState::Warm), std::slice::from_ref(&blue));
        assert_eq!(
            warm,
            "GREEN of shop is live and its instance is gone: `bgctl rollback shop` makes BLUE live, which is warm"
        );
        let kept = told(&shop(SlotState::Empty), std::slice::from_ref(&blue));
        assert!(kept.ends_with("`bgctl rollback shop` starts the version before it"), "{kept}");
        let alone = told(&shop(SlotState::Empty), &[]);
        assert!(alone.ends_with("`bgctl switch shop --image shop:2` starts it anew"), "{alone}");
        let stopped = told(&shop(SlotState::Warm), &[blue, green(false)]);
        assert_eq!(
            stopped,
            "GREEN of shop is live and shop_GREEN does not run: `bgctl scale shop 1` starts what is missing"
        );
        // Another version in the same slot is not what is live.
        assert!(missing(&shop(SlotState::Empty), &[instance("shop_GREEN", Slot::Green, "other", true)]).is_some());
        // Addresses that someone else looks after.
        assert_eq!(missing(&service(&["10.0.0.1"], SlotState::Empty, None), &[]), None);
    }

    #[test]
    fn of_several_replicas_those_that_are_missing_are_counted() {
        let shop = service(&["shop_GREEN", "shop_GREEN_2", "shop_GREEN_3"], SlotState::Empty, Some("shop:2"));
        let running = |name: &str, running| instance(name, Slot::Green, "new", running);
        let some = [running("shop_GREEN", true), running("shop_GREEN_2", false)];
        assert_eq!(
            missing(&shop, &some).unwrap().to_string(),
            "GREEN of shop is live and shop_GREEN_2 does not run, 1 of its 3 instances are gone: \
             `bgctl scale shop 3` starts what is missing"
        );
    }
}
