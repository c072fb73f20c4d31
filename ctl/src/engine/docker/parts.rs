//! The two containers of a gateway, as they are made: no rights, nothing to write to, always there.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HostConfig, Mount, MountType, NetworkingConfig,
    RestartPolicyNameEnum,
};

use super::labels::{self, Role};
use super::names::ALIAS;
use super::ports::{self, Published};
use super::program_image::{ProgramImage, UID};
use super::proxy_image::PROGRAM;
use super::raising::{Raising, Started};
use super::spec::restart_policy;
use crate::engine::EngineError;

impl Raising<'_> {
    pub(super) fn holder_body(&self, image: &ProgramImage, published: &[Published]) -> ContainerCreateBody {
        let network = self.docker.names.network();
        let alias = EndpointSettings { aliases: Some(vec![ALIAS.to_owned()]), ..EndpointSettings::default() };
        ContainerCreateBody {
            image: Some(image.reference.clone()),
            cmd: Some(vec!["hold".to_owned()]),
            user: Some(format!("{UID}:{UID}")),
            labels: Some(labels::of_part(&network, Some(Role::Holder))),
            exposed_ports: Some(published.iter().map(|port| format!("{}/tcp", port.container)).collect()),
            host_config: Some(HostConfig {
                port_bindings: Some(ports::bindings(published)),
                // The proxy has no capability, and ports below 1024 are its business.
                sysctls: Some(HashMap::from([("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())])),
                network_mode: Some(network.clone()),
                ..hardened()
            }),
            networking_config: Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(network, alias)])) }),
            ..ContainerCreateBody::default()
        }
    }

    pub(super) fn proxy_body(&self, image: &ProgramImage, holder: &Started) -> ContainerCreateBody {
        let names = &self.docker.names;
        let state = Mount {
            typ: Some(MountType::VOLUME),
            source: Some(names.volume()),
            target: Some(config::paths::STATE_DIR.to_owned()),
            ..Mount::default()
        };
        let mut own_labels = labels::of_part(&names.network(), Some(Role::Proxy));
        own_labels.insert(labels::TRUSTED.to_owned(), self.trusted.join(","));
        if !self.volumes.is_empty() {
            own_labels.insert(labels::VOLUMES.to_owned(), serde_json::json!(self.volumes).to_string());
        }
        let owned = match self.docker.handles.is_podman {
            // Podman's word for: it belongs to the container's user.
            true => "mode=0700,U".to_owned(),
            false => format!("mode=0700,uid={UID},gid={UID}"),
        };
        let run = format!("rw,nosuid,nodev,noexec,size=1m,{owned}");
        ContainerCreateBody {
            image: Some(image.reference.clone()),
            entrypoint: Some(vec![PROGRAM.to_owned()]),
            // Beside a proxy that uses the same state it takes that one's place; alone it just starts.
            cmd: Some(vec!["--take-over".to_owned()]),
            user: Some(format!("{UID}:{UID}")),
            labels: Some(own_labels),
            host_config: Some(HostConfig {
                network_mode: Some(format!("container:{}", holder.id)),
                mounts: Some(vec![state]),
                binds: Some(self.volumes.clone()).filter(|volumes| !volumes.is_empty()),
                tmpfs: Some(HashMap::from([("/run/bluegreen".to_owned(), run)])),
                ..hardened()
            }),
            ..ContainerCreateBody::default()
        }
    }
}

/// Returns the networks to trust: those of `--trusted-proxy`, else those that the present proxy was made with.
pub(super) fn trusted_proxies(
    asked: &[String],
    proxy: Option<&ContainerInspectResponse>,
) -> Result<Vec<String>, EngineError> {
    if asked.is_empty() {
        let own_labels = proxy.and_then(|proxy| proxy.config.as_ref()?.labels.as_ref());
        let present = own_labels.and_then(|labels| labels.get(labels::TRUSTED)).map_or("", String::as_str);
        return Ok(present.split(',').filter(|network| !network.is_empty()).map(str::to_owned).collect());
    }
    match asked.iter().find(|network| !is_network(network)) {
        Some(wrong) => Err(EngineError::Usage(format!(
            "--trusted-proxy `{wrong}`: write a network such as 10.0.0.0/8, an address, or `private`"
        ))),
        None => Ok(asked.to_vec()),
    }
}

fn is_network(text: &str) -> bool {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let fits = |most: u8| length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= most));
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => fits(32),
        Ok(IpAddr::V6(_)) => fits(128),
        Err(_) => text == "private",
    }
}

/// What holder and proxy have in common: no rights, nothing to write to, always there.
fn hardened() -> HostConfig {
    HostConfig {
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        restart_policy: Some(restart_policy(RestartPolicyNameEnum::ALWAYS)),
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusted_networks_are_checked_and_stay_when_nobody_names_any() {
        for good in ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "private"] {
            assert_eq!(trusted_proxies(&[good.to_owned()], None).unwrap(), [good]);
        }
        for bad in ["10.0.0.0/33", "proxy", "10.0.0.0/8\"", "", "::/129"] {
            assert!(matches!(trusted_proxies(&[bad.to_owned()], None), Err(EngineError::Usage(_))), "{bad}");
        }
        let own_labels = HashMap::from([(labels::TRUSTED.to_owned(), "10.0.0.0/8,private".to_owned())]);
        let config = bollard::models::ContainerConfig {
            labels: Some(own_labels),
            ..bollard::models::ContainerConfig::default()
        };
        let proxy = ContainerInspectResponse { config: Some(config), ..ContainerInspectResponse::default() };
        assert_eq!(trusted_proxies(&[], Some(&proxy)).unwrap(), ["10.0.0.0/8", "private"]);
        assert!(trusted_proxies(&[], None).unwrap().is_empty());
    }
}
