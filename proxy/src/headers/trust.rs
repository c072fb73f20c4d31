//! Whom to believe about the client behind a peer, and which address that client then has.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::HeaderMap;
use ipnet::IpNet;

/// Networks of proxies: those whose forwarded headers are believed, or those that send a PROXY header.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust(Arc<[IpNet]>);

impl Trust {
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    /// Tells whether an address is one of theirs, so that what it says of its client is believed.
    pub(crate) fn believes(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Returns the address of the client behind a peer: the peer's own, or, where that is believed, the last in
    /// `X-Forwarded-For` that is no trusted proxy's. What an untrusted address claims beyond itself counts for nothing.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.believes(client) {
            return client;
        }
        for value in headers.get_all("x-forwarded-for").iter().rev() {
            for hop in value.to_str().unwrap_or_default().rsplit(',') {
                match address(hop.trim()) {
                    Some(hop) => client = hop,
                    None => return client,
                }
                if !self.believes(client) {
                    return client;
                }
            }
        }
        client
    }
}

/// Reads an address, with the port that some proxies add.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.split(']').next()).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| bare.rsplit_once(':').and_then(|(host, _)| host.parse().ok()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let trust = Trust::new(&["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_str(value).unwrap());
        }
        trust.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_client_is_the_last_that_no_trusted_proxy_is() {
        assert_eq!(client("203.0.113.9", &["6.6.6.6"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 203.0.113.9, 10.0.0.7"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "203.0.113.9", "10.0.0.7"]), "203.0.113.9");
        assert_eq!(client("::ffff:10.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["203.0.113.9:1234"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["10.0.0.2, 10.0.0.3"]), "10.0.0.2");
        // Nonsense ends the chain where it stands.
        assert_eq!(client("10.0.0.1", &["6.6.6.6, unknown, 10.0.0.3"]), "10.0.0.3");
    }
}
