//! The ports that the holder publishes: `--publish [IP:]PORT:PORT`.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::models::{PortBinding, PortMap};

use crate::engine::EngineError;

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    /// The address on the host; `None` is every one.
    pub(super) ip: Option<IpAddr>,
    pub(super) host: u16,
    pub(super) container: u16,
}

impl Published {
    /// Reads `80:80`, `127.0.0.1:8080:80` or `[::1]:8080:80`.
    ///
    /// # Errors
    /// [`EngineError::Usage`] that shows the form.
    pub(super) fn parse(text: &str) -> Result<Self, EngineError> {
        let wrong = || EngineError::Usage(format!("--publish `{text}`: write [IP:]PORT:PORT, as in 127.0.0.1:8080:80"));
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let (rest, container) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (ip, host) = match rest.rsplit_once(':') {
            Some((ip, host)) => {
                let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
                (Some(bare.parse().map_err(|_| wrong())?), host)
            }
            None => (None, rest),
        };
        match (port(host), port(container)) {
            (Some(host), Some(container)) => Ok(Self { ip, host, container }),
            _ => Err(wrong()),
        }
    }

    /// Returns the usual port and itself, on every address.
    pub(super) const fn usual(port: u16) -> Self {
        Self { ip: None, host: port, container: port }
    }

    /// Returns what [`Published::parse`] reads back.
    pub(super) fn as_flag(&self) -> String {
        match self.ip {
            None => format!("{}:{}", self.host, self.container),
            Some(IpAddr::V4(ip)) => format!("{ip}:{}:{}", self.host, self.container),
            Some(IpAddr::V6(ip)) => format!("[{ip}]:{}:{}", self.host, self.container),
        }
    }

    /// Returns where the proxy is reached by it; `host` is the engine's, where that is another machine.
    pub(super) fn url(&self, host: Option<&str>) -> String {
        let scheme = if self.container == 443 { "https" } else { "http" };
        match self.ip {
            None => format!("{scheme}://{}:{}", host.unwrap_or("0.0.0.0"), self.host),
            Some(IpAddr::V6(ip)) => format!("{scheme}://[{ip}]:{}", self.host),
            Some(ip) => format!("{scheme}://{ip}:{}", self.host),
        }
    }
}

/// Returns ports in the engine's form.
pub(super) fn bindings(ports: &[Published]) -> PortMap {
    let mut map: PortMap = HashMap::new();
    for port in ports {
        let binding = PortBinding { host_ip: port.ip.map(|ip| ip.to_string()), host_port: Some(port.host.to_string()) };
        map.entry(format!("{}/tcp", port.container)).or_default().get_or_insert_with(Vec::new).push(binding);
    }
    map
}

/// Returns ports from the engine's form, in order.
pub(super) fn read(map: Option<&PortMap>) -> Vec<Published> {
    let mut ports: Vec<Published> = map
        .into_iter()
        .flatten()
        .flat_map(|(container, bindings)| {
            let container = container.split('/').next().and_then(|port| port.parse().ok());
            bindings.iter().flatten().filter_map(move |binding| {
                let ip = binding.host_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "0.0.0.0");
                let host = binding.host_port.as_deref()?.parse().ok()?;
                Some(Published { ip: ip.and_then(|ip| ip.parse().ok()), host, container: container? })
            })
        })
        .collect();
    ports.sort_by_key(|port| (port.container, port.host));
    ports
}

/// Returns which of the ports the engine's refusal is about.
pub(super) fn taken<'a>(ports: &'a [Published], refusal: &str) -> Option<&'a Published> {
    let is_about_a_port = ["already allocated", "address already in use", "ports are not available"];
    if !is_about_a_port.iter().any(|words| refusal.contains(words)) {
        return None;
    }
    ports.iter().find(|port| {
        let number = format!(":{}", port.host);
        refusal.match_indices(&number).any(|(at, _)| {
            // `:80` is not in `:8080`.
            !refusal[at + number.len()..].starts_with(|c: char| c.is_ascii_digit())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_on_every_address_is_reached_by_the_name_of_its_host() {
        assert_eq!(Published::usual(80).url(Some("shop.example")), "http://shop.example:80");
        assert_eq!(Published::usual(443).url(None), "https://0.0.0.0:443");
    }

    #[test]
    fn what_is_published_is_read_as_docker_reads_it() {
        let port = Published::parse("127.0.0.1:8080:80").unwrap();
        assert_eq!(
            (port.host, port.container, port.url(Some("shop.example")).as_str()),
            (8080, 80, "http://127.0.0.1:8080")
        );
        assert_eq!(Published::parse("80:80").unwrap(), Published::usual(80));
        assert_eq!(Published::parse("[::1]:81:80").unwrap().url(None), "http://[::1]:81");
        for text in ["80:80", "127.0.0.1:8080:80", "[::1]:81:80"] {
            assert_eq!(Published::parse(text).unwrap().as_flag(), text);
        }
        for bad in ["80", "x:80", "80:0", "host:80:80", "", "1:2:3:4", "70000:80"] {
            assert!(matches!(Published::parse(bad), Err(EngineError::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn ports_come_back_from_the_engine_as_they_were_sent() {
        let ports = vec![Published::usual(80), Published::parse("127.0.0.1:8443:443").unwrap()];
        assert_eq!(read(Some(&bindings(&ports))), ports);
    }

    #[test]
    fn a_refusal_is_traced_to_its_port() {
        let ports = [Published::usual(80), Published::parse("8080:81").unwrap()];
        let words = "Bind for 0.0.0.0:8080 failed: port is already allocated";
        assert_eq!(taken(&ports, words).unwrap().host, 8080);
        let words = "listen tcp4 0.0.0.0:80: bind: address already in use";
        assert_eq!(taken(&ports, words).unwrap().host, 80);
        assert!(taken(&ports, "no such image: x:80").is_none());
    }
}
