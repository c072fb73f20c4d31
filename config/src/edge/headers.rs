//! Changes of header fields, on requests and on answers.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Consistent, Fault, Template};

/// Changes of the fields of a message, in this order: `remove`, `set`, `add`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderChanges {
    /// Fields whose values are taken out and given this one; one that comes out empty is left out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<FieldName, Template>,
    /// Fields that get one more value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<FieldName, Template>,
    /// Fields that are taken out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<FieldName>,
}

impl HeaderChanges {
    /// Tells whether they change nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    fn faults(&self, refused: impl Fn(&str, &str) -> Option<String>) -> Vec<Fault> {
        let set = self.set.keys().map(|name| ("set", name));
        let add = self.add.keys().map(|name| ("add", name));
        let remove = self.remove.iter().map(|name| ("remove", name));
        let mut faults: Vec<Fault> = set
            .chain(add)
            .chain(remove)
            .filter_map(|(key, name)| Some(Fault::new(key, format!("`{name}` {}", refused(key, &name.0)?), HINT)))
            .collect();
        for (key, values) in [("set", &self.set), ("add", &self.add)] {
            for (name, value) in values {
                if value.captures() > 0 {
                    let what = format!("`${}` in `{name}` stands for nothing", value.captures());
                    faults.push(Fault::new(key, what, Template::HINT));
                }
            }
        }
        for name in self.remove.iter().filter(|name| self.set.contains_key(name)) {
            let what = format!("`{name}` is set and removed");
            faults.push(Fault::new("remove", what, "leave it in `set` alone, which takes the place of every value"));
        }
        faults
    }
}

const HINT: &str = "leave it out: docs/edge.md lists the fields that are the proxy's own";

/// What frames a message or belongs to one connection alone: whoever could change it could smuggle.
const FRAMING: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-accept",
];

/// Changes of requests, on their way to the application.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestHeaders(pub HeaderChanges);

/// Changes of answers, on their way to the client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResponseHeaders(pub HeaderChanges);

impl Consistent for RequestHeaders {
    fn faults(&self) -> Vec<Fault> {
        self.0.faults(|key, name| match name {
            name if FRAMING.contains(&name) => Some("frames the message or belongs to one connection".to_owned()),
            "x-forwarded-for" | "x-real-ip" | "forwarded" | "x-request-id" => {
                Some("is set by the proxy, to the truth; trusted_proxies says whom to believe".to_owned())
            }
            "host" | "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-port" if key != "set" => {
                Some("is in every request, so it can only be set".to_owned())
            }
            "cookie" if key == "add" => Some("may be in a request once, so it can only be set or removed".to_owned()),
            _ => None,
        })
    }
}

impl Consistent for ResponseHeaders {
    fn faults(&self) -> Vec<Fault> {
        self.0.faults(|key, name| match name {
            name if FRAMING.contains(&name) => Some("frames the message or belongs to one connection".to_owned()),
            "content-encoding" | "content-range" => Some("says how the body is to be read".to_owned()),
            "x-request-id" => Some("is set by the proxy".to_owned()),
            "set-cookie" if key == "set" => Some("may be in an answer many times, so it can only be added".to_owned()),
            _ => None,
        })
    }
}

impl Deref for RequestHeaders {
    type Target = HeaderChanges;

    fn deref(&self) -> &HeaderChanges {
        &self.0
    }
}

impl Deref for ResponseHeaders {
    type Target = HeaderChanges;

    fn deref(&self) -> &HeaderChanges {
        &self.0
    }
}

/// The name of a header field, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldName(String);

impl FieldName {
    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FieldName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.is_empty() || text.len() > 256 || !text.bytes().all(is_name) {
            return Err(format!("`{}` is no header name", super::shorten(text)));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

super::serde_as_text!(FieldName);
