//! Who is told when the proxy acted alone: an address on the web, and a secret that signs what is sent there.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What stands in the place of what nobody is to see.
const MASK: &str = "***";

/// `[webhook]`: each is there or left open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    /// Where it is sent; left open nobody is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<WebhookUrl>,
    /// Signs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<WebhookSecret>,
    /// A file of certificates that are believed besides those of the public authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

impl WebhookSettings {
    /// Tells whether nothing is there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns these settings with what they leave open taken from others.
    #[must_use]
    pub fn or(self, below: Self) -> Self {
        Self { url: self.url.or(below.url), secret: self.secret.or(below.secret), ca: self.ca.or(below.ca) }
    }
}

/// A secret; nothing that is printed for people shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebhookSecret(String);

impl WebhookSecret {
    /// Returns it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl FromStr for WebhookSecret {
    type Err = WebhookError;

    fn from_str(text: &str) -> Result<Self, WebhookError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for WebhookSecret {
    type Error = WebhookError;

    fn try_from(text: String) -> Result<Self, WebhookError> {
        if text.trim().is_empty() { Err(WebhookError::NoSecret) } else { Ok(Self(text)) }
    }
}

impl From<WebhookSecret> for String {
    fn from(secret: WebhookSecret) -> Self {
        secret.0
    }
}

/// An `http://` or `https://` address. Of many receivers its path is a secret, so what is printed for people leaves it out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebhookUrl {
    text: String,
    is_tls: bool,
    host: String,
    port: u16,
    /// Where host and port end in the text.
    origin: usize,
}

impl WebhookUrl {
    /// Tells whether it is `https`.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Returns the host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, the usual one where none is written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns host and port as they are written, which is the `Host` of a request.
    pub fn authority(&self) -> &str {
        let origin = self.text.get(..self.origin).unwrap_or_default();
        origin.split_once("://").map_or(origin, |(_, authority)| authority)
    }

    /// Returns path and query.
    pub fn target(&self) -> &str {
        self.text.get(self.origin..).filter(|target| !target.is_empty()).unwrap_or("/")
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.target() == "/" { "/" } else { "/***" };
        write!(f, "{}{path}", self.text.get(..self.origin).unwrap_or_default())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for WebhookUrl {
    type Err = WebhookError;

    fn from_str(text: &str) -> Result<Self, WebhookError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for WebhookUrl {
    type Error = WebhookError;

    fn try_from(text: String) -> Result<Self, WebhookError> {
        let (scheme, rest) = text.split_once("://").ok_or(WebhookError::Scheme)?;
        let is_tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(WebhookError::Scheme),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err(WebhookError::Password);
        }
        // What could end a line of the request's head, or would be taken for something else by the other side.
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        if !target.bytes().all(is_plain) || target.starts_with('?') {
            return Err(WebhookError::Target);
        }
        let (host, port) = split_authority(authority).ok_or(WebhookError::Host)?;
        let port = match port {
            None => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(WebhookError::Host)?,
        };
        let origin = scheme.len() + 3 + end;
        Ok(Self { host: host.to_owned(), text, is_tls, port, origin })
    }
}

impl From<WebhookUrl> for String {
    fn from(url: WebhookUrl) -> Self {
        url.text
    }
}

/// Returns the host and the port that is written behind it.
fn split_authority(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match port {
            "" => Some((host, None)),
            port => port.strip_prefix(':').map(|port| (host, Some(port))),
        };
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (!host.is_empty() && host.bytes().all(is_name)).then_some((host, port))
}

/// Why an address or a secret is refused; it repeats nothing of either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// It begins with something else.
    #[error("a webhook's address begins with https:// or http://")]
    Scheme,
    /// There is no host, or none that can be one.
    #[error("a webhook's address has no host and port that could be asked")]
    Host,
    /// A name and a password stand before the host.
    #[error("a webhook's address takes no name and password")]
    Password,
    /// Its path or query can't be sent.
    #[error("a webhook's address has a path that can't be asked for: only visible ASCII, and no `#`")]
    Target,
    /// The secret is blank.
    #[error("a webhook's secret is empty")]
    NoSecret,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_and_its_path_is_not_printed() {
        let url: WebhookUrl = "https://hooks.example.com/services/T0/B0?x=1".parse().unwrap();
        assert_eq!((url.is_tls(), url.host(), url.port()), (true, "hooks.example.com", 443));
        assert_eq!((url.authority(), url.target()), ("hooks.example.com", "/services/T0/B0?x=1"));
        assert_eq!(format!("{url} {url:?}"), "https://hooks.example.com/*** https://hooks.example.com/***");
        let url: WebhookUrl = "http://[::1]:9000".parse().unwrap();
        assert_eq!((url.is_tls(), url.host(), url.port()), (false, "::1", 9000));
        assert_eq!(
            (url.authority(), url.target(), url.to_string().as_str()),
            ("[::1]:9000", "/", "http://[::1]:9000/")
        );
        assert_eq!(String::from(url), "http://[::1]:9000");
    }

    #[test]
    fn what_can_not_be_asked_is_refused() {
        for (text, wanted) in [
            ("hooks.example.com", WebhookError::Scheme),
            ("ftp://hooks.example.com/", WebhookError::Scheme),
            ("https://", WebhookError::Host),
            ("https:///path", WebhookError::Host),
            ("https://a b/", WebhookError::Host),
            ("https://a:0/", WebhookError::Host),
            ("https://a:99999/", WebhookError::Host),
            ("https://[::g]/", WebhookError::Host),
            ("https://me:secret@a/", WebhookError::Password),
            ("https://a/b c", WebhookError::Target),
            ("https://a/b\r\nX: y", WebhookError::Target),
            ("https://a/b#c", WebhookError::Target),
            ("https://a?b", WebhookError::Target),
        ] {
            assert_eq!(text.parse::<WebhookUrl>().unwrap_err(), wanted, "{text}");
        }
        assert_eq!(" ".parse::<WebhookSecret>().unwrap_err(), WebhookError::NoSecret);
    }

    #[test]
    fn a_secret_is_masked_where_it_is_printed() {
        let settings = WebhookSettings { secret: Some("hunter2".parse().unwrap()), ..WebhookSettings::default() };
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(settings.secret.unwrap().reveal(), "hunter2");
    }
}
