//! The labels by which we know what is ours, and what an instance runs with.

use std::collections::{BTreeMap, HashMap};

use config::name::{EndpointAddr, ServiceName, Slot};

use super::names::strip_kept;
use crate::engine::{Instance, InstanceSpec, RunSettings};

/// What every name of ours begins with.
pub(super) const PREFIX: &str = "bluegreen.";
/// The gateway, by its network's name: on everything that we make.
pub(super) const GATEWAY: &str = "bluegreen.gateway";
/// What a container is for: [`Role`].
pub(super) const ROLE: &str = "bluegreen.role";
/// SHA-256 of the `bgproxy` in an image, in hex.
pub(super) const BUILD: &str = "bluegreen.build";
/// On the proxy: the networks that it was told to trust, with commas between them.
pub(super) const TRUSTED: &str = "bluegreen.trusted-proxies";
/// On the proxy: what of the host it sees, a list of JSON.
pub(super) const VOLUMES: &str = "bluegreen.volumes";
/// The service.
pub(super) const SERVICE: &str = "bluegreen.service";
const SLOT: &str = "bluegreen.slot";
const REPLICA: &str = "bluegreen.replica";
const DEPLOYMENT: &str = "bluegreen.deployment";
const IMAGE: &str = "bluegreen.image";
const REFERENCE: &str = "bluegreen.reference";
const PORT: &str = "bluegreen.port";
const RUN: &str = "bluegreen.run";
const WHO: &str = "bluegreen.who";
const OURS: [&str; 12] = [BUILD, GATEWAY, ROLE, SERVICE, SLOT, REPLICA, DEPLOYMENT, IMAGE, REFERENCE, PORT, RUN, WHO];

/// What a container of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Holder,
    Proxy,
    Slot,
    Once,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Holder => "holder",
            Self::Proxy => "proxy",
            Self::Slot => "slot",
            Self::Once => "once",
        }
    }
}

/// Returns the labels of a part of a gateway.
pub(super) fn of_part(gateway: &str, role: Option<Role>) -> HashMap<String, String> {
    let mut labels = HashMap::from([(GATEWAY.to_owned(), gateway.to_owned())]);
    if let Some(role) = role {
        labels.insert(ROLE.to_owned(), role.as_str().to_owned());
    }
    labels
}

/// Returns our labels of an instance; [`read`] gives back what they say.
pub(super) fn of_instance(gateway: &str, spec: &InstanceSpec) -> HashMap<String, String> {
    let run = serde_json::to_string(&public(&spec.run)).expect("settings are strings, lists and flags");
    let mut labels = of_part(gateway, Some(Role::Slot));
    labels.extend(spec.notes.iter().map(|(name, value)| (format!("{PREFIX}{name}"), value.clone())));
    let own = [
        (SERVICE, spec.service.to_string()),
        (SLOT, spec.slot.lower().to_owned()),
        (REPLICA, spec.replica.to_string()),
        (DEPLOYMENT, spec.deployment.clone()),
        (IMAGE, spec.image.id.clone()),
        (REFERENCE, spec.image.reference.clone()),
        (PORT, spec.port.to_string()),
        (RUN, run),
        (WHO, spec.who.clone()),
    ];
    labels.extend(own.map(|(name, value)| (name.to_owned(), value)));
    labels
}

/// Returns settings as they may stand in a label, which goes wherever logs and metrics go: of the environment the names alone. The
/// values are the container's own: [`super::environment`] takes them from there.
pub(super) fn public(run: &RunSettings) -> RunSettings {
    RunSettings { env: run.env.names(), ..run.clone() }
}

/// A container, as the engine lists it.
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) running: bool,
    /// RFC 3339.
    pub(super) created: String,
    pub(super) labels: HashMap<String, String>,
}

/// Returns the instance that a container's labels describe, without the values of its environment; `None` where it is not a slot
/// of ours.
pub(super) fn read(listed: Listed) -> Option<Instance> {
    let labels = &listed.labels;
    let get = |name: &str| labels.get(name).cloned();
    if get(ROLE)? != Role::Slot.as_str() {
        return None;
    }
    let service: ServiceName = get(SERVICE)?.parse().ok()?;
    let slot: Slot = get(SLOT)?.parse().ok()?;
    // One that was made before there were replicas is alone in its slot.
    let replica = get(REPLICA).and_then(|replica| replica.parse().ok()).unwrap_or(1);
    let endpoint: EndpointAddr = format!("{}:{}", listed.name, get(PORT)?).parse().ok()?;
    let run: RunSettings = serde_json::from_str(&get(RUN)?).ok()?;
    let notes: BTreeMap<String, String> = labels
        .iter()
        .filter(|(name, _)| !OURS.contains(&name.as_str()))
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value.clone())))
        .collect();
    Some(Instance {
        service,
        slot,
        replica,
        kept: strip_kept(&listed.name).1,
        running: listed.running,
        endpoint,
        deployment: get(DEPLOYMENT)?,
        image: get(REFERENCE)?,
        image_id: get(IMAGE)?,
        run,
        notes: notes.into_iter().collect(),
        created: listed.created,
        id: listed.id,
        name: listed.name,
    })
}

/// Tells whether labels are those of something that this gateway made.
pub(super) fn is_ours(labels: Option<&HashMap<String, String>>, gateway: &str) -> bool {
    labels.and_then(|labels| labels.get(GATEWAY)).is_some_and(|value| value == gateway)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Image;

    fn spec() -> InstanceSpec {
        InstanceSpec {
            service: "shop".parse().unwrap(),
            slot: Slot::Blue,
            replica: 2,
            deployment: "42".to_owned(),
            image: Image {
                reference: "shop:42".to_owned(),
                id: "sha256:abc".to_owned(),
                exposed_ports: vec![9000],
                entrypoint: Vec::new(),
                revision: None,
                health_command: None,
            },
            port: 9000,
            run: RunSettings {
                env: vec!["A=hunter2".to_owned()].into(),
                memory: Some("64m".to_owned()),
                init: true,
                ..RunSettings::default()
            },
            who: "alice@laptop".to_owned(),
            notes: vec![("health".to_owned(), "{}".to_owned()), ("note".to_owned(), "first".to_owned())],
        }
    }

    fn listed(name: &str, labels: HashMap<String, String>) -> Listed {
        Listed { id: "1".to_owned(), name: name.to_owned(), running: true, created: String::new(), labels }
    }

    #[test]
    fn what_an_instance_runs_with_is_read_back_from_its_labels() {
        let spec = spec();
        let mut labels = of_instance("web-gateway", &spec);
        labels.insert("maintainer".to_owned(), "someone".to_owned());
        assert!(!labels.values().any(|value| value.contains("hunter2")), "{labels:?}");
        let instance = read(listed("shop_BLUE_2_kept", labels)).unwrap();
        assert_eq!(instance.run, public(&spec.run));
        assert_eq!(instance.notes, spec.notes);
        assert_eq!((instance.image.as_str(), instance.image_id.as_str()), ("shop:42", "sha256:abc"));
        assert_eq!(instance.endpoint.to_string(), "shop_BLUE_2_kept:9000");
        assert!(instance.kept && instance.replica == 2);
    }

    #[test]
    fn a_label_that_has_values_is_of_an_older_bgctl_and_is_believed() {
        let mut labels = of_instance("web-gateway", &spec());
        labels.insert(RUN.to_owned(), serde_json::to_string(&spec().run).unwrap());
        assert_eq!(*read(listed("shop_BLUE_2", labels)).unwrap().run.env, ["A=hunter2"]);
    }

    #[test]
    fn a_container_without_our_labels_is_no_instance() {
        assert!(read(listed("shop_BLUE", HashMap::new())).is_none());
        assert!(read(listed("reverse-proxy", of_part("web-gateway", Some(Role::Proxy)))).is_none());
    }

    #[test]
    fn another_gateways_things_are_not_ours() {
        let labels = of_part("test-web-gateway", None);
        assert!(is_ours(Some(&labels), "test-web-gateway"));
        assert!(!is_ours(Some(&labels), "web-gateway") && !is_ours(None, "web-gateway"));
    }
}
