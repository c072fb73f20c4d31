//! What a service wants done between a visitor and its application, compiled once when its settings change.
//!
//! A service that wants nothing of it has no [`Edge`], and its requests pay one branch for that. [`Edge::judge`] is asked
//! before a place on a slot is claimed; what it lets in, the request and its answer are changed by on their way.

mod access;
mod auth;
mod headers;
mod limit;
mod passwords;
mod path;
mod redirect;
mod seen;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use config::name::ServiceName;
use config::options::ServiceOptions;
use http::HeaderValue;

use self::access::Access;
use self::auth::Auth;
pub(crate) use self::headers::ChangedRequest;
use self::headers::{RequestChanges, ResponseChanges};
use self::limit::{Held, Limit};
pub(crate) use self::passwords::{Passwords, Verifier};
use self::redirect::Redirects;
pub(crate) use self::seen::Seen;
use crate::error::Error;
use http::header::HeaderMap;

/// What is done between a visitor and an application.
pub struct Edge {
    rules: Option<Rules>,
    rewrites: Vec<config::edge::Rewrite>,
    request: Option<RequestChanges>,
    response: Option<ResponseChanges>,
}

/// What can keep a request from the application.
struct Rules {
    redirects: Redirects,
    access: Vec<Access>,
    limits: Vec<Limit>,
    auth: Vec<Auth>,
}

/// A request that was let in, and what it holds until its answer's end.
pub(crate) struct Passed {
    /// The service that it was let in to.
    service: ServiceName,
    /// Who it is, where that was asked.
    user: Option<String>,
    _held: Vec<Held>,
}

/// Why a request goes no further.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// It is told to go elsewhere.
    Redirect {
        /// With which status.
        status: u16,
        /// Where to.
        location: HeaderValue,
    },
    /// It is refused.
    Refused(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Passed {
    /// Tells whether a request was let in to this service.
    pub(crate) fn is_in(&self, service: &ServiceName) -> bool {
        self.service == *service
    }

    /// Returns who it is, where that was asked.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

impl Edge {
    /// Compiles the options of a service; `None` where they want nothing. What the limits counted is taken from `before`,
    /// where they are the same.
    pub(crate) fn compile(options: &ServiceOptions, before: Option<&Self>) -> Option<Arc<Self>> {
        let counted = before.and_then(|before| before.rules.as_ref()).map_or(&[][..], |rules| &rules.limits);
        let rules = Rules {
            redirects: Redirects::compile(options),
            access: Access::compile(&options.access),
            limits: options.rate_limits.iter().map(|limit| Limit::compile(limit, counted)).collect(),
            auth: Auth::compile(options),
        };
        let edge = Self {
            rules: (!rules.is_empty()).then_some(rules),
            rewrites: options.rewrite.clone(),
            request: RequestChanges::compile(&options.request_headers),
            response: ResponseChanges::compile(&options.response_headers, options.security_headers),
        };
        (!edge.is_empty()).then(|| Arc::new(edge))
    }

    fn is_empty(&self) -> bool {
        self.rules.is_none() && self.rewrites.is_empty() && self.request.is_none() && self.response.is_none()
    }

    /// Tells whether a request must be judged before it is sent anywhere.
    pub(crate) fn has_rules(&self) -> bool {
        self.rules.is_some()
    }

    /// Lets a request in, or says why not: redirects first, then networks, limits and passwords.
    ///
    /// # Errors
    /// Where it goes no further.
    ///
    /// # Cancel safety
    /// Dropping it gives back what it holds; a password that is being looked at is looked at to the end.
    pub(crate) async fn judge(&self, seen: &Seen<'_>, passwords: &Passwords) -> Result<Box<Passed>, Stopped> {
        let mut passed = Box::new(Passed { service: seen.service.clone(), user: None, _held: Vec::new() });
        let Some(rules) = &self.rules else { return Ok(passed) };
        if let Some((status, location)) = rules.redirects.of(seen) {
            return Err(Stopped::Redirect { status, location });
        }
        let forms = path::forms(seen.path());
        if forms.iter().any(|path| !access::lets_in(&rules.access, path, seen.address)) {
            return Err(Error::Denied.into());
        }
        for limit in &rules.limits {
            passed._held.extend(limit.admit(seen, &forms)?);
        }
        passed.user = auth::who(&rules.auth, seen, &forms, passwords).await?;
        Ok(passed)
    }

    /// Returns the path and query that the application gets, where they are not those of the request.
    pub(crate) fn rewrite(&self, target: &str, seen: &Seen<'_>) -> Option<String> {
        self.rewrites.iter().find_map(|rewrite| redirect::rewrite(rewrite, target, seen))
    }

    /// Returns the request with its fields changed; `None` where they stay as they are.
    pub(crate) fn request(&self, seen: &Seen<'_>) -> Option<Box<ChangedRequest>> {
        self.request.as_ref().map(|changes| changes.apply(seen))
    }

    /// Changes the fields of an answer.
    pub(crate) fn answer(&self, headers: &mut HeaderMap, seen: &Seen<'_>) {
        if let Some(changes) = &self.response {
            changes.apply(headers, seen);
        }
    }
}

impl Rules {
    fn is_empty(&self) -> bool {
        self.redirects.is_empty() && self.access.is_empty() && self.limits.is_empty() && self.auth.is_empty()
    }
}
