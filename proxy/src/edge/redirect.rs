//! Where a request is sent instead, and the path that the application sees.

use config::edge::{Redirect, RedirectStatus, Rewrite, Template, Variable};
use config::name::HostPattern;
use config::options::ServiceOptions;
use http::header::HeaderValue;

use super::seen::Seen;

/// What sends visitors elsewhere.
pub(super) struct Redirects {
    canonical: Option<String>,
    list: Vec<Redirect>,
}

impl Redirects {
    pub(super) fn compile(options: &ServiceOptions) -> Self {
        Self { canonical: options.canonical_host.clone(), list: options.redirects.clone() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.canonical.is_none() && self.list.is_empty()
    }

    /// Returns where a request is sent instead. What it asks for already is nowhere else.
    pub(super) fn of(&self, seen: &Seen<'_>) -> Option<(u16, HeaderValue)> {
        // The asterisk of OPTIONS is no path.
        if !seen.path().starts_with('/') {
            return None;
        }
        let told = self.list.iter().find_map(|redirect| {
            let location = location(redirect, seen)?;
            (!is_here(&location, seen)).then_some((redirect.status, location))
        });
        let (status, location) = told.or_else(|| Some((RedirectStatus::PERMANENT, self.canonical(seen)?)))?;
        Some((status.code(), HeaderValue::from_bytes(&location).ok()?))
    }

    fn canonical(&self, seen: &Seen<'_>) -> Option<Vec<u8>> {
        let canonical = self.canonical.as_deref()?;
        // By its name within the network a service is asked by containers, and by nobody who has a browser.
        let is_inside = seen.host.strip_suffix(".internal") == Some(seen.service.as_str());
        if seen.host == canonical || seen.host.is_empty() || is_inside {
            return None;
        }
        let usual = if seen.is_https() { "443" } else { "80" };
        let port = seen.port.filter(|port| *port != usual).map(|port| format!(":{port}")).unwrap_or_default();
        let target = encoded(seen.target().as_bytes());
        Some([format!("{}://{canonical}{port}", seen.scheme()).as_bytes(), &target].concat())
    }
}

fn location(redirect: &Redirect, seen: &Seen<'_>) -> Option<Vec<u8>> {
    let takes_host = match &redirect.host {
        None | Some(HostPattern::Any) => true,
        Some(HostPattern::Exact(host)) => seen.host == host,
        Some(HostPattern::Wildcard(suffix)) => {
            seen.host.strip_suffix(suffix.as_str()).is_some_and(|front| front.ends_with('.') && front.len() > 1)
        }
    };
    if !takes_host {
        return None;
    }
    let path = seen.path();
    let captures = match (&redirect.from, &redirect.pattern) {
        (Some(from), _) => from.captures(path)?,
        (None, Some(pattern)) => groups(pattern, path)?.1,
        (None, None) => Vec::new(),
    };
    let mut filled = fill(&redirect.to, seen, &captures);
    if redirect.to.as_str().starts_with('/') {
        // Two slashes, or a slash and a backslash, begin a host: `/$1` must not let a visitor choose one.
        let rest = filled.iter().position(|byte| !b"/\\".contains(byte)).unwrap_or(filled.len());
        filled.drain(1..rest.max(1));
    }
    Some(with_query(&redirect.to, filled, seen))
}

/// Adds the query of the request, unless the target has its own word on that.
fn with_query(to: &Template, mut filled: Vec<u8>, seen: &Seen<'_>) -> Vec<u8> {
    if to.as_str().contains('?') || [Variable::RequestUri, Variable::Args].iter().any(|variable| to.uses(variable)) {
        // A question mark at the end says that there is to be none.
        if to.as_str().ends_with('?') && filled.ends_with(b"?") {
            filled.pop();
        }
        return filled;
    }
    let Some(query) = seen.request.uri.query() else { return filled };
    let at = filled.iter().position(|byte| *byte == b'#').unwrap_or(filled.len());
    let query = [b"?", &encoded(query.as_bytes())[..]].concat();
    filled.splice(at..at, query);
    filled
}

/// Tells whether a location is what was asked for: to be sent there would have no end.
fn is_here(location: &[u8], seen: &Seen<'_>) -> bool {
    let target = seen.target().as_bytes();
    if location == target {
        return true;
    }
    let rest = location.strip_prefix(seen.scheme().as_bytes()).and_then(|rest| rest.strip_prefix(b"://"));
    let rest = rest.and_then(|rest| rest.strip_prefix(seen.host.as_bytes()));
    let port = seen.port.map(|port| format!(":{port}")).unwrap_or_default();
    rest.is_some_and(|rest| {
        let rest = rest.strip_prefix(port.as_bytes()).unwrap_or(rest);
        rest == target || rest.is_empty() && target == b"/"
    })
}

fn groups<'p>(pattern: &config::edge::Pattern, path: &'p str) -> Option<(std::ops::Range<usize>, Vec<&'p str>)> {
    let found = pattern.regex().captures(path)?;
    let whole = found.get(0)?.range();
    Some((whole, (1..found.len()).map(|group| found.get(group).map_or("", |group| group.as_str())).collect()))
}

fn fill(template: &Template, seen: &Seen<'_>, captures: &[&str]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(64);
    seen.fill(template, captures, |piece, is_own| match is_own {
        true => filled.extend_from_slice(piece),
        false => filled.extend_from_slice(&encoded(piece)),
    });
    filled
}

/// Encodes what can't stand in an address; what is encoded already stays.
fn encoded(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            0..=b' ' | 0x7f.. | b'#' => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => encoded.push(*byte),
        }
    }
    encoded
}

/// Returns the path and query that take the place of `target`, where the rewrite takes its path.
pub(super) fn rewrite(rewrite: &Rewrite, target: &str, seen: &Seen<'_>) -> Option<String> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut filled = match (&rewrite.prefix, &rewrite.pattern) {
        (Some(prefix), _) => {
            let rest = path.strip_prefix(prefix.trimmed()).filter(|_| prefix.takes(path))?;
            let mut filled = fill(&rewrite.to, seen, &[]);
            if rest.starts_with('/') {
                while filled.ends_with(b"/") {
                    filled.pop();
                }
            }
            filled.extend_from_slice(rest.as_bytes());
            filled
        }
        (None, Some(pattern)) => fill(&rewrite.to, seen, &groups(pattern, path)?.1),
        (None, None) => return None,
    };
    if let Some(query) = query {
        filled.push(if filled.contains(&b'?') { b'&' } else { b'?' });
        filled.extend_from_slice(query.as_bytes());
    }
    String::from_utf8(filled).ok()
}
