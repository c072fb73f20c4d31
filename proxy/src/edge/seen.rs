//! What rules and variables see of a request.

use std::borrow::Cow;
use std::net::IpAddr;

use config::edge::{Part, Template, Variable};
use config::name::{ServiceName, Slot};
use http::header::HeaderValue;
use http::request::Parts;

/// What is known of a request.
pub(crate) struct Seen<'r> {
    /// Its head.
    pub(crate) request: &'r Parts,
    /// The host that it names, in lower case and without a port.
    pub(crate) host: &'r str,
    /// The port, where it names one.
    pub(crate) port: Option<&'r str>,
    /// The client's address, as far as it is to be believed.
    pub(crate) address: IpAddr,
    /// The peer is believed in what it says of its client.
    pub(crate) trusted: bool,
    /// The peer speaks TLS with us.
    pub(crate) secure: bool,
    /// Its id.
    pub(crate) request_id: &'r HeaderValue,
    /// The service that takes it.
    pub(crate) service: &'r ServiceName,
    /// Who it is, where that was asked.
    pub(crate) user: Option<&'r str>,
    /// The slot that it is sent to, once that is known.
    pub(crate) slot: Option<Slot>,
}

impl<'r> Seen<'r> {
    /// Returns its path as it came.
    pub(crate) fn path(&self) -> &'r str {
        self.request.uri.path()
    }

    /// Returns its path and query as they came.
    pub(crate) fn target(&self) -> &'r str {
        self.request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }

    /// Tells whether the visitor speaks TLS: with us, or with a proxy that is believed.
    pub(crate) fn is_https(&self) -> bool {
        let claim = self.request.headers.get("x-forwarded-proto").filter(|_| self.trusted);
        let claim = claim.and_then(|value| value.to_str().ok()?.split(',').next()).map(str::trim);
        match claim {
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => true,
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => false,
            _ => self.secure,
        }
    }

    /// Returns `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_https() { "https" } else { "http" }
    }

    /// Fills a template in; `write` is given each piece, and whether it is the operator's own text.
    pub(crate) fn fill(&self, template: &Template, captures: &[&str], mut write: impl FnMut(&[u8], bool)) {
        for part in template.parts() {
            match part {
                Part::Text(text) => write(text.as_bytes(), true),
                Part::Capture(number) => {
                    write(captures.get(number - 1).copied().unwrap_or_default().as_bytes(), false);
                }
                Part::Variable(variable) => write(&self.value(variable), false),
            }
        }
    }

    fn value(&self, variable: &Variable) -> Cow<'r, [u8]> {
        let query = self.request.uri.query();
        let text = |text: &'r str| Cow::Borrowed(text.as_bytes());
        match variable {
            Variable::Host => text(self.host),
            Variable::RemoteAddr => Cow::Owned(self.address.to_string().into_bytes()),
            Variable::Scheme => text(self.scheme()),
            Variable::Uri => text(self.path()),
            Variable::RequestUri => text(self.target()),
            Variable::Args => text(query.unwrap_or_default()),
            Variable::IsArgs => text(if query.is_some() { "?" } else { "" }),
            Variable::RequestMethod => text(self.request.method.as_str()),
            Variable::RequestId => Cow::Borrowed(self.request_id.as_bytes()),
            Variable::RemoteUser => text(self.user.unwrap_or_default()),
            Variable::Service => text(self.service.as_str()),
            Variable::Slot => text(self.slot.map_or("", Slot::lower)),
            Variable::Field(name) => match (self.request.headers.get(name.as_str()), name.as_str()) {
                (Some(value), _) => Cow::Borrowed(value.as_bytes()),
                // HTTP/2 names its host in the target.
                (None, "host") => text(self.request.uri.authority().map_or(self.host, http::uri::Authority::as_str)),
                (None, _) => Cow::Borrowed(&[]),
            },
        }
    }
}
