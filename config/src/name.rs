//! The words of the domain, each parsed once: service, slot, host, path, endpoint.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not the name it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{text}`: {why}")]
pub struct NameError {
    /// The kind of name, as in "service name".
    pub what: &'static str,
    /// The text that was given.
    pub text: String,
    /// The rule it breaks.
    pub why: &'static str,
}

fn refuse<T>(what: &'static str, text: &str, why: &'static str) -> Result<T, NameError> {
    let text = text.chars().take(80).collect();
    Err(NameError { what, text, why })
}

/// The name of a service: one DNS label, so that `<service>.internal` and a container's name can carry it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(String);

impl ServiceName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const WHAT: &str = "service name";
        if text.is_empty() {
            return refuse(WHAT, text, "it is empty");
        }
        if text.len() > 48 {
            return refuse(WHAT, text, "it is longer than 48 characters");
        }
        if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_') {
            return refuse(WHAT, text, "only a-z, 0-9, `-` and `_` are allowed");
        }
        if !text.as_bytes()[0].is_ascii_alphanumeric() {
            return refuse(WHAT, text, "it must begin with a letter or a digit");
        }
        Ok(Self(text.to_owned()))
    }
}

/// One of the two places of a service that a version can run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// `BLUE`.
    Blue,
    /// `GREEN`.
    Green,
}

impl Slot {
    /// Both slots, blue first.
    pub const BOTH: [Self; 2] = [Self::Blue, Self::Green];

    /// Returns the slot that this one is not.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    /// Returns the name in upper case, as people read it and as container names carry it.
    pub fn upper(self) -> &'static str {
        match self {
            Self::Blue => "BLUE",
            Self::Green => "GREEN",
        }
    }

    /// Returns the name in lower case, as JSON and flags carry it.
    pub fn lower(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }
}

impl FromStr for Slot {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "blue" | "BLUE" => Ok(Self::Blue),
            "green" | "GREEN" => Ok(Self::Green),
            _ => refuse("slot", text, "it is `blue` or `green`"),
        }
    }
}

/// Whose requests a route takes: one host, every host below a domain, or every host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// `shop.example`: this host alone, in lower case and without a port.
    Exact(String),
    /// `*.shop.example`: every host that ends in `.shop.example`; the text kept is `shop.example`.
    Wildcard(String),
    /// `*`: every host that no other route takes.
    Any,
}

impl FromStr for HostPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let name = parse_host(name)?;
        if !wildcard {
            return Ok(Self::Exact(name));
        }
        if name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
            return refuse("domain", text, "an address has no subdomains");
        }
        Ok(Self::Wildcard(name))
    }
}

/// Returns a host name in the form that routes are compared in: lower case, no trailing dot, an IPv6 address in brackets.
///
/// # Errors
/// Where the text is neither a DNS name nor an IP address.
pub fn parse_host(text: &str) -> Result<String, NameError> {
    const WHAT: &str = "domain";
    if let Some(inner) = text.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return match address {
            Some(address) => Ok(format!("[{address}]")),
            None => refuse(WHAT, text, "what is in brackets is not an IPv6 address"),
        };
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return refuse(WHAT, text, "it is empty");
    }
    if name.len() > 253 {
        return refuse(WHAT, text, "it is longer than 253 characters");
    }
    if text.contains("://") {
        return refuse(WHAT, text, "a host is wanted, not a URL");
    }
    if text.contains(':') {
        return refuse(WHAT, text, "a host is wanted without a port");
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return refuse(WHAT, text, "a label between two dots has 1 to 63 characters");
        }
        if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return refuse(
                WHAT,
                text,
                "only letters, digits, `-`, `_` and `.` are allowed (write an IDN in its xn-- form)",
            );
        }
    }
    Ok(name.to_ascii_lowercase())
}

/// The beginning of a path that a route takes, cut at segment boundaries: `/api` takes `/api` and `/api/x`, not `/apix`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// Returns the prefix that takes every path.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Returns the prefix without a trailing slash: empty for the root.
    pub fn trimmed(&self) -> &str {
        self.0.trim_end_matches('/')
    }

    /// Tells whether the raw path of a request begins with this prefix, on a segment boundary.
    pub fn takes(&self, path: &str) -> bool {
        match path.strip_prefix(self.trimmed()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}

impl FromStr for PathPrefix {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const WHAT: &str = "path";
        if !text.starts_with('/') {
            return refuse(WHAT, text, "it must begin with `/`");
        }
        if text.contains("//") {
            return refuse(WHAT, text, "it has an empty segment");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&b)) {
            return refuse(WHAT, text, "only the characters of a URL path are allowed, without query and fragment");
        }
        if text.split('/').any(|segment| segment == "." || segment == "..") {
            return refuse(WHAT, text, "it has a `.` or `..` segment");
        }
        // Else a path with dots could be below the prefix as text, and above it for whoever decodes it.
        let lower = text.to_ascii_lowercase();
        if lower.contains("%2e") || lower.contains("%2f") {
            return refuse(WHAT, text, "it has an encoded dot or slash; write it as it is");
        }
        let trimmed = text.trim_end_matches('/');
        Ok(Self(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }))
    }
}

/// Where an application listens: a name or an address, and a port; or a Unix socket of the proxy's own host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointAddr(Endpoint);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Endpoint {
    Network { host: String, port: u16 },
    Unix(PathBuf),
}

/// The longest path that the kernel takes as the address of a socket (unix(7)), without the byte that ends it.
const SOCKET_PATH: usize = 107;

impl EndpointAddr {
    /// Returns the name or the address, without brackets; of a Unix socket `localhost`.
    pub fn host(&self) -> &str {
        match &self.0 {
            Endpoint::Network { host, .. } => host,
            Endpoint::Unix(_) => "localhost",
        }
    }

    /// Returns the port; 0 of a Unix socket.
    pub fn port(&self) -> u16 {
        match &self.0 {
            Endpoint::Network { port, .. } => *port,
            Endpoint::Unix(_) => 0,
        }
    }

    /// Returns the path of a Unix socket.
    pub fn socket(&self) -> Option<&Path> {
        match &self.0 {
            Endpoint::Network { .. } => None,
            Endpoint::Unix(path) => Some(path),
        }
    }

    /// Returns the same host with another port; a Unix socket has none.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        match &self.0 {
            Endpoint::Network { host, .. } => Self(Endpoint::Network { host: host.clone(), port }),
            Endpoint::Unix(_) => self.clone(),
        }
    }

    /// Returns the socket address where the host is an IP address and nothing must be resolved.
    pub fn literal(&self) -> Option<SocketAddr> {
        match &self.0 {
            Endpoint::Network { host, port } => host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, *port)),
            Endpoint::Unix(_) => None,
        }
    }
}

impl FromStr for EndpointAddr {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const WHAT: &str = "address";
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///run/app.sock` is written too.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
                refuse(WHAT, text, "a Unix socket is written unix:/run/app.sock")
            } else if path.len() > SOCKET_PATH {
                refuse(WHAT, text, "the path of a Unix socket has at most 107 bytes")
            } else {
                Ok(Self(Endpoint::Unix(path.into())))
            };
        }
        let text_without_scheme = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let Some((host, port)) = text_without_scheme.unwrap_or(text).rsplit_once(':') else {
            return refuse(WHAT, text, "it has no port; write HOST:PORT");
        };
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return refuse(WHAT, text, "the port is a number from 1 to 65535"),
        };
        if host.contains(':') && !host.starts_with('[') {
            return refuse(WHAT, text, "an IPv6 address stands in brackets: [::1]:8080");
        }
        // A container's name may be upper case and Docker's DNS doesn't mind, so the case is kept.
        parse_host(host).map_err(|error| NameError { what: WHAT, text: text.to_owned(), why: error.why })?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self(Endpoint::Network { host, port }))
    }
}

// === Display: what FromStr reads back ===

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.upper())
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for EndpointAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Endpoint::Network { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint::Network { host, port } => write!(f, "{host}:{port}"),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === serde: the same text forms ===

macro_rules! serde_as_text {
    ($($type:ty => $write:expr),* $(,)?) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let write: fn(&$type) -> String = $write;
                serializer.serialize_str(&write(self))
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text! {
    ServiceName => ToString::to_string,
    Slot => |slot| slot.lower().to_owned(),
    HostPattern => ToString::to_string,
    PathPrefix => ToString::to_string,
    EndpointAddr => ToString::to_string,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_read_back_as_the_same_value() {
        for text in ["shop.example", "*.shop.example", "*", "[::1]", "127.0.0.1"] {
            assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), text);
        }
        for text in ["[::1]:80", "127.0.0.1:8080", "uptimer_BLUE:9000", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<EndpointAddr>().unwrap().to_string(), text);
        }
        assert_eq!("/api/".parse::<PathPrefix>().unwrap().to_string(), "/api");
    }

    #[test]
    fn a_prefix_ends_on_a_segment_boundary() {
        let api: PathPrefix = "/api".parse().unwrap();
        assert!(api.takes("/api") && api.takes("/api/") && api.takes("/api/x"));
        assert!(!api.takes("/apix") && !api.takes("/"));
        assert!(PathPrefix::root().takes("/") && PathPrefix::root().takes("/anything"));
    }

    #[test]
    fn hosts_are_compared_in_lower_case_without_a_trailing_dot() {
        assert_eq!("Shop.Example.".parse::<HostPattern>().unwrap(), HostPattern::Exact("shop.example".to_owned()));
    }

    #[test]
    fn a_wrong_name_says_which_rule_it_breaks() {
        let error = "My Shop".parse::<ServiceName>().unwrap_err();
        assert_eq!(error.to_string(), "service name `My Shop`: only a-z, 0-9, `-` and `_` are allowed");
        for bad in ["shop:80", "http://shop", "a..b", "*.10.0.0.1", "", "ü.de"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
        for bad in ["8080", "host", "host:0", "host:99999", "::1:80", "a b:1", "unix:app.sock", "unix:", "unix:/run/"] {
            assert!(bad.parse::<EndpointAddr>().is_err(), "{bad}");
        }
        for bad in ["api", "/a//b", "/a/../b", "/a?b", "/a b", "/a%2Fb", "/%2e%2e/x"] {
            assert!(bad.parse::<PathPrefix>().is_err(), "{bad}");
        }
    }
}
