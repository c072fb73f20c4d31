//! Networks as people write them: `10.0.0.0/8`, an address, or a word for several.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What `private` stands for: the networks that no visitor from outside can have.
const PRIVATE: [&str; 8] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];
/// What `cloudflare` stands for: the networks that Cloudflare publishes at cloudflare.com/ips, as of 2026-11. They have not
/// changed since 2021; where they do, the new ones can be listed beside the word.
const CLOUDFLARE: [&str; 22] = [
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];

/// A network, or a word for several; what a word stands for is the reader's own knowledge, so that it can grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// `private`.
    Private,
    /// `cloudflare`.
    Cloudflare,
    /// This one.
    One(IpNet),
}

/// Returns all that networks and words stand for.
pub fn expand(networks: &[Network]) -> Vec<IpNet> {
    let parsed = |texts: &[&str]| texts.iter().filter_map(|text| text.parse().ok()).collect();
    networks
        .iter()
        .flat_map(|network| match network {
            Network::Private => parsed(&PRIVATE),
            Network::Cloudflare => parsed(&CLOUDFLARE),
            Network::One(network) => vec![*network],
        })
        .collect()
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "private" => return Ok(Self::Private),
            "cloudflare" => return Ok(Self::Cloudflare),
            _ => {}
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::One(network.trunc()));
        }
        let shown: String = text.chars().take(80).collect();
        text.parse::<IpAddr>()
            .map(|address| Self::One(address.into()))
            .map_err(|_| format!("`{shown}` is not a network"))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => f.write_str("private"),
            Self::Cloudflare => f.write_str("cloudflare"),
            Self::One(network) => network.fmt(f),
        }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_that_a_word_stands_for_is_one_and_what_is_written_is_read_back() {
        assert_eq!(expand(&[Network::Private, Network::Cloudflare]).len(), PRIVATE.len() + CLOUDFLARE.len());
        for text in ["private", "cloudflare", "10.0.0.0/8", "2001:db8::/32"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("10.1.2.3/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
        assert_eq!("203.0.113.7".parse::<Network>().unwrap().to_string(), "203.0.113.7/32");
        assert_eq!("10.0.0.0/33".parse::<Network>().unwrap_err(), "`10.0.0.0/33` is not a network");
    }
}
