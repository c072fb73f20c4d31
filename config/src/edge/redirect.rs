//! Where a request is sent instead: to another address, told to the client, or to another path, which it never sees.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Consistent, Fault, Part, PathGlob, Pattern, Template, Variable};
use crate::name::{HostPattern, PathPrefix};

/// A redirect; the first of a service that takes a request answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// The paths that it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathGlob>,
    /// The same as a regular expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Pattern>,
    /// The hosts that it takes; where absent all of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostPattern>,
    /// Where to.
    pub to: Template,
    /// With which status.
    #[serde(default)]
    pub status: RedirectStatus,
}

impl Consistent for Redirect {
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.from.is_none() && self.pattern.is_none() && self.host.is_none() {
            let hint = "add from = \"/old/*\", or host = \"www.example.com\"";
            faults.push(Fault::new("to", "the redirect does not say whose requests it takes", hint));
        }
        if self.from.is_some() && self.pattern.is_some() {
            faults.push(Fault::new(
                "pattern",
                "`from` and `pattern` say the same thing twice",
                "leave one of them out",
            ));
        }
        let has = self.from.as_ref().map_or(0, PathGlob::stars) + self.pattern.as_ref().map_or(0, Pattern::groups);
        faults.extend(missing_capture(&self.to, has));
        faults.extend(wrong_target(&self.to));
        // Whatever the path is, it leads to one that the same redirect takes.
        let is_fixed = self.host.is_none() && self.to.parts().iter().all(|part| matches!(part, Part::Text(_)));
        let path = self.to.as_str().split(['?', '#']).next().unwrap_or_default();
        let from = self.from.as_ref().is_some_and(|from| from.takes(path));
        let pattern = self.pattern.as_ref().is_some_and(|pattern| pattern.regex().is_match(path));
        if is_fixed && self.to.as_str().starts_with('/') && (from || pattern) {
            faults.push(Fault::new("to", "the redirect leads to itself, without an end", "let `from` not take it"));
        }
        faults
    }
}

/// A change of the path on the way to the application; the first of a service that takes a request makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// The beginning of the path, which `to` takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<PathPrefix>,
    /// A regular expression of the path; `to` takes the place of the whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Pattern>,
    /// What the application sees.
    pub to: Template,
}

impl Consistent for Rewrite {
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let hint =
            "write { prefix = \"/api\", to = \"/v1\" } or { pattern = \"^/u/([0-9]+)$\", to = \"/users?id=$1\" }";
        match (&self.prefix, &self.pattern) {
            (None, None) => faults.push(Fault::new("to", "the rewrite does not say which paths it takes", hint)),
            (Some(_), Some(_)) => {
                faults.push(Fault::new("pattern", "`prefix` and `pattern` say the same thing twice", hint));
            }
            _ => {}
        }
        faults.extend(missing_capture(&self.to, self.pattern.as_ref().map_or(0, Pattern::groups)));
        if !self.to.as_str().starts_with('/') || self.to.as_str().contains([' ', '#']) {
            let what = format!("`{}` is no path", super::shorten(self.to.as_str()));
            faults.push(Fault::new("to", what, "begin it with `/`; to another host it is a redirect"));
        }
        if self.prefix.is_some() && self.to.as_str().contains('?') {
            let what = "the place of a prefix can't be taken by a query";
            faults.push(Fault::new("to", what, "write it with a pattern"));
        }
        faults
    }
}

fn missing_capture(to: &Template, has: usize) -> Option<Fault> {
    let used = to.captures();
    let what = format!("`${used}` stands for nothing: there are {has} `*` or groups");
    (used > has).then(|| Fault::new("to", what, "each `*` of `from` and each group (...) of `pattern` is a number"))
}

/// Returns what is wrong with a redirect's target: nothing that a visitor writes may become a part of its host.
fn wrong_target(to: &Template) -> Option<Fault> {
    const HINT: &str = "begin it with `/`, or with https:// and a host";
    let text = to.as_str();
    if text.contains([' ', '\\']) || !text.is_ascii() {
        return Some(Fault::new("to", "the redirect's target has a character that is in no address", HINT));
    }
    if text.starts_with('/') && !text.starts_with("//") {
        return None;
    }
    let Some(authority) =
        ["https://", "http://", "$scheme://", "${scheme}://"].iter().find_map(|s| text.strip_prefix(s))
    else {
        return Some(Fault::new("to", format!("`{}` is no address", super::shorten(text)), HINT));
    };
    let mut has_host = false;
    for part in authority.parse::<Template>().ok()?.parts() {
        match part {
            Part::Text(text) => match text.find(['/', '?', '#']) {
                Some(0) if !has_host => break,
                Some(at) if text[..at].contains('@') => break,
                Some(_) => return None,
                None if text.contains('@') => break,
                None => has_host = true,
            },
            Part::Variable(Variable::Host) => has_host = true,
            // They begin with a slash.
            Part::Variable(Variable::Uri | Variable::RequestUri) if has_host => return None,
            Part::Variable(_) | Part::Capture(_) => {
                let what = "what a visitor writes would become a part of the redirect's host";
                return Some(Fault::new("to", what, "end the host with `/` before it"));
            }
        }
    }
    let what = format!("`{}` names no host", super::shorten(text));
    (!has_host || authority.contains('@')).then(|| Fault::new("to", what, HINT))
}

/// The status of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedirectStatus(u16);

impl RedirectStatus {
    /// For good, with the method and body of the request.
    pub const PERMANENT: Self = Self(308);

    /// Returns the number.
    pub fn code(self) -> u16 {
        self.0
    }
}

impl Default for RedirectStatus {
    fn default() -> Self {
        Self::PERMANENT
    }
}

impl TryFrom<i64> for RedirectStatus {
    type Error = String;

    fn try_from(code: i64) -> Result<Self, String> {
        match u16::try_from(code) {
            Ok(code @ (301 | 302 | 303 | 307 | 308)) => Ok(Self(code)),
            _ => Err(format!("`{code}` is no status of a redirect: 301, 302, 303, 307 or 308")),
        }
    }
}

impl FromStr for RedirectStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<i64>().map_err(|_| format!("`{}` is no status", super::shorten(text)))?.try_into()
    }
}

impl fmt::Display for RedirectStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for RedirectStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.0)
    }
}

impl<'de> Deserialize<'de> for RedirectStatus {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}
