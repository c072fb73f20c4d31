//! How requests of a service are served, its routes aside.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::certificate::{self, CertificateError};
use crate::edge::{
    self, Access, BasicAuth, Compress, HeaderChanges, OldAssets, RateLimit, Redirect, RequestHeaders, ResponseHeaders,
    Rewrite, StaticFiles,
};
use crate::name::parse_host;

/// The options of a service; what is left out has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceOptions {
    /// What is spoken to the application.
    pub protocol: Protocol,
    /// Connecting to an endpoint; where absent the proxy's own limit.
    #[serde(with = "crate::duration::option")]
    pub connect_timeout: Option<Duration>,
    /// From the whole request sent to the head of the answer; where absent the proxy's own limit.
    #[serde(with = "crate::duration::option")]
    pub response_timeout: Option<Duration>,
    /// An answer's body in which nothing moves; where absent the proxy's own limit.
    #[serde(with = "crate::duration::option")]
    pub body_idle_timeout: Option<Duration>,
    /// The longest body of a request, in bytes; where absent there is no limit.
    #[serde(with = "crate::size::option")]
    pub request_bytes: Option<u64>,
    /// Takes a request's whole body before the application is asked, so that a slow uploader keeps nothing of it busy.
    pub buffer_requests: bool,
    /// Sends a visitor to the same one of several endpoints, by a cookie.
    pub sticky: bool,
    /// Requests of one client address in a second; where absent there is no limit.
    pub requests_per_second: Option<NonZeroU32>,
    /// How many may come at once before that counts; where absent as many as in a second.
    pub burst: Option<NonZeroU32>,
    /// Whether its requests are in the access log, where there is one.
    pub access_log: bool,
    /// Whether visitors of plain HTTP are led to https, once there is a certificate; where absent the proxy's own setting, where
    /// certificates come by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https_redirect: Option<bool>,
    /// How long a browser is to remember that there is https; where absent it is told nothing.
    #[serde(with = "crate::duration::option", skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Duration>,
    /// Whether that is so of subdomains too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hsts_subdomains: bool,
    /// The certificates, in PEM, of the authority that issued clients' certificates; where there is one, others are not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<ClientCa>,
    /// HTML pages in the place of our own, by status.
    pub error_pages: BTreeMap<StatusPattern, String>,
    /// Requests that are sent to another address, the first that takes one first.
    #[serde(deserialize_with = "edge::consistent", skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<Redirect>,
    /// The one host that visitors are to see: those of others are sent there.
    #[serde(deserialize_with = "host", skip_serializing_if = "Option::is_none")]
    pub canonical_host: Option<String>,
    /// Other paths for the application, the first that takes one first.
    #[serde(deserialize_with = "edge::consistent", skip_serializing_if = "Vec::is_empty")]
    pub rewrite: Vec<Rewrite>,
    /// Changes of requests.
    #[serde(deserialize_with = "edge::consistent", skip_serializing_if = "is_unchanged")]
    pub request_headers: RequestHeaders,
    /// Changes of answers.
    #[serde(deserialize_with = "edge::consistent", skip_serializing_if = "is_unchanged")]
    pub response_headers: ResponseHeaders,
    /// Whether answers have the usual fields for safety, where the application does not set them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub security_headers: bool,
    /// Which networks may come.
    #[serde(deserialize_with = "edge::consistent", skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<Access>,
    /// Who may come with a password.
    #[serde(deserialize_with = "edge::consistent", skip_serializing_if = "Vec::is_empty")]
    pub basic_auth: Vec<BasicAuth>,
    /// How many requests of one client are taken.
    #[serde(deserialize_with = "edge::consistent", skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// Which answers are compressed; where absent none.
    #[serde(deserialize_with = "edge::consistent", skip_serializing_if = "Option::is_none")]
    pub compress: Option<Compress>,
    /// Folders whose files are served.
    #[serde(rename = "static", deserialize_with = "edge::consistent", skip_serializing_if = "Vec::is_empty")]
    pub static_files: Vec<StaticFiles>,
    /// What the old version is asked for, for a while after a flip.
    #[serde(deserialize_with = "edge::consistent", skip_serializing_if = "Option::is_none")]
    pub old_assets: Option<OldAssets>,
}

/// Tells whether fields stay as they are.
fn is_unchanged(changes: &HeaderChanges) -> bool {
    changes.is_empty()
}

fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_host(&text).map_err(serde::de::Error::custom)).transpose()
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            connect_timeout: None,
            response_timeout: None,
            body_idle_timeout: None,
            request_bytes: None,
            buffer_requests: false,
            sticky: false,
            requests_per_second: None,
            burst: None,
            access_log: true,
            https_redirect: None,
            hsts: None,
            hsts_subdomains: false,
            client_ca: None,
            error_pages: BTreeMap::new(),
            redirects: Vec::new(),
            canonical_host: None,
            rewrite: Vec::new(),
            request_headers: RequestHeaders::default(),
            response_headers: ResponseHeaders::default(),
            security_headers: false,
            access: Vec::new(),
            basic_auth: Vec::new(),
            rate_limits: Vec::new(),
            compress: None,
            static_files: Vec::new(),
            old_assets: None,
        }
    }
}

impl ServiceOptions {
    /// Returns the page for a status: its own, else that of its class.
    pub fn error_page(&self, status: u16) -> Option<&str> {
        let class = StatusPattern::Class(u8::try_from(status / 100).unwrap_or(0));
        let page = self.error_pages.get(&StatusPattern::Exact(status)).or_else(|| self.error_pages.get(&class));
        page.map(String::as_str)
    }
}

/// Certificates of authorities, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientCa(String);

impl ClientCa {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ClientCa {
    type Error = CertificateError;

    fn try_from(text: String) -> Result<Self, CertificateError> {
        certificate::authorities(&text)?;
        Ok(Self(text))
    }
}

impl From<ClientCa> for String {
    fn from(ca: ClientCa) -> Self {
        ca.0
    }
}

/// What is spoken to an application.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1, and HTTP/2 for gRPC alone, which needs it.
    #[default]
    Http1,
    /// HTTP/2 by prior knowledge for everything but WebSockets.
    H2c,
}

/// One status, or a class of them: `502`, `5xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusPattern {
    /// This one.
    Exact(u16),
    /// All that begin with this digit.
    Class(u8),
}

impl FromStr for StatusPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no status of an error, such as 502, or a class of them: 4xx, 5xx");
        match text {
            "4xx" => Ok(Self::Class(4)),
            "5xx" => Ok(Self::Class(5)),
            _ => text
                .parse()
                .ok()
                .filter(|status| text.len() == 3 && (400..=599).contains(status))
                .map(Self::Exact)
                .ok_or_else(wrong),
        }
    }
}

impl fmt::Display for StatusPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(status) => status.fmt(f),
            Self::Class(digit) => write!(f, "{digit}xx"),
        }
    }
}

impl Serialize for StatusPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_what_is_left_out_has_its_default() {
        let options = ServiceOptions {
            response_timeout: Some(Duration::from_secs(300)),
            request_bytes: Some(50 * 1024 * 1024),
            error_pages: [(StatusPattern::Class(5), "<p>back soon".to_owned())].into(),
            ..ServiceOptions::default()
        };
        let text = serde_json::to_string(&options).unwrap();
        assert!(text.contains(r#""request_bytes":"50MiB""#) && text.contains(r#""5xx":"#), "{text}");
        assert_eq!(serde_json::from_str::<ServiceOptions>(&text).unwrap(), options);
        assert_eq!(serde_json::from_str::<ServiceOptions>("{}").unwrap(), ServiceOptions::default());
        for wrong in [
            r#"{"stiky":true}"#,
            r#"{"response_timeout":"0s"}"#,
            r#"{"connect_timeout":"9000y"}"#,
            r#"{"client_ca":"x"}"#,
        ] {
            assert!(serde_json::from_str::<ServiceOptions>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_page_of_the_status_wins_over_that_of_its_class() {
        let mut options = ServiceOptions::default();
        assert_eq!(options.error_page(502), None);
        options.error_pages.insert("5xx".parse().unwrap(), "any".to_owned());
        options.error_pages.insert("502".parse().unwrap(), "own".to_owned());
        assert_eq!([502, 503, 404].map(|status| options.error_page(status)), [Some("own"), Some("any"), None]);
        for bad in ["200", "3xx", "5XX", "0502", "502 ", "x"] {
            assert!(bad.parse::<StatusPattern>().is_err(), "{bad}");
        }
    }
}
