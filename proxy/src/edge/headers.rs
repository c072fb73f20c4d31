//! Changes of header fields, on requests and on answers.

use config::edge::{FieldName, HeaderChanges, Part, RequestHeaders, ResponseHeaders, Template};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use super::seen::Seen;

/// What an answer has for safety, where the application says nothing of it.
const SAFETY: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
    (header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
];
/// A year; without the subdomains, of which we know nothing.
const HSTS: &str = "max-age=31536000";

/// A value, or what makes it.
enum Value {
    Fixed(HeaderValue),
    Filled(Template),
}

impl Value {
    fn of(template: &Template) -> Self {
        let text = match template.parts() {
            [] => Some(""),
            [Part::Text(text)] => Some(text.as_str()),
            _ => None,
        };
        let fixed = text.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok());
        fixed.map_or_else(|| Self::Filled(template.clone()), Self::Fixed)
    }

    /// Returns the value; `None` where it is empty.
    fn get(&self, seen: &Seen<'_>) -> Option<HeaderValue> {
        let value = match self {
            Self::Fixed(value) => value.clone(),
            Self::Filled(template) => {
                let mut filled = Vec::with_capacity(64);
                seen.fill(template, &[], |piece, _| filled.extend_from_slice(piece));
                HeaderValue::from_bytes(&filled).ok()?
            }
        };
        (!value.is_empty()).then_some(value)
    }
}

/// Changes, compiled.
struct Changes {
    /// Those that are taken out, and those that are set.
    gone: Vec<HeaderName>,
    set: Vec<(HeaderName, Value)>,
    add: Vec<(HeaderName, Value)>,
}

impl Changes {
    fn compile(changes: &HeaderChanges) -> Self {
        let name = |name: &FieldName| HeaderName::from_bytes(name.as_str().as_bytes()).ok();
        let values = |values: &std::collections::BTreeMap<FieldName, Template>| {
            values.iter().filter_map(|(field, value)| Some((name(field)?, Value::of(value)))).collect::<Vec<_>>()
        };
        Self {
            gone: changes.remove.iter().chain(changes.set.keys()).filter_map(name).collect(),
            set: values(&changes.set),
            add: values(&changes.add),
        }
    }
}

/// Changes of requests.
pub(super) struct RequestChanges(Changes);

/// A request whose fields were changed.
pub(crate) struct ChangedRequest {
    /// What is left of the client's own.
    pub(crate) request: Parts,
    /// What it is given, whatever its `Connection` says.
    pub(crate) fields: Vec<(HeaderName, HeaderValue)>,
    /// The `Host` that it is given.
    pub(crate) host: Option<String>,
}

impl RequestChanges {
    pub(super) fn compile(changes: &RequestHeaders) -> Option<Self> {
        (!changes.is_empty()).then(|| Self(Changes::compile(changes)))
    }

    pub(super) fn apply(&self, seen: &Seen<'_>) -> Box<ChangedRequest> {
        let Changes { gone, set, add } = &self.0;
        let mut request = seen.request.clone();
        gone.iter().for_each(|name| drop(request.headers.remove(name)));
        let mut changed = ChangedRequest { request, fields: Vec::with_capacity(set.len() + add.len()), host: None };
        for (name, value) in set.iter().chain(add) {
            let Some(value) = value.get(seen) else { continue };
            match *name {
                header::HOST => {
                    let host = value.to_str().ok().filter(|host| host.parse::<http::uri::Authority>().is_ok());
                    changed.host = host.map(str::to_owned);
                }
                _ => changed.fields.push((name.clone(), value)),
            }
        }
        Box::new(changed)
    }
}

/// Changes of answers.
pub(super) struct ResponseChanges {
    changes: Changes,
    safety: bool,
}

impl ResponseChanges {
    pub(super) fn compile(changes: &ResponseHeaders, safety: bool) -> Option<Self> {
        (safety || !changes.is_empty()).then(|| Self { changes: Changes::compile(changes), safety })
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap, seen: &Seen<'_>) {
        let Changes { gone, set, add } = &self.changes;
        if self.safety {
            for (name, value) in SAFETY {
                headers.entry(name).or_insert(HeaderValue::from_static(value));
            }
            if seen.is_https() {
                headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(HeaderValue::from_static(HSTS));
            }
        }
        gone.iter().for_each(|name| drop(headers.remove(name)));
        for (name, value) in set.iter().chain(add) {
            if let Some(value) = value.get(seen) {
                headers.append(name, value);
            }
        }
    }
}
