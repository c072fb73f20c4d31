//! The cookie that keeps a visitor with one of several endpoints of a slot.
//!
//! It names an endpoint by a hash of its address. After a flip there is no such endpoint any more, and the visitor gets
//! another cookie with the first answer of the new version.

use config::name::ServiceName;
use http::HeaderValue;
use http::header::HeaderMap;

use crate::routing::closed::cookie;
use crate::routing::table::{Endpoint, Target};

/// Returns the place of the endpoint that a visitor was with, where it is still there.
pub(crate) fn wanted(headers: &HeaderMap, service: &ServiceName, target: &Target) -> Option<usize> {
    let mark = cookie(headers, &name(service))?;
    target.endpoints.iter().position(|endpoint| *endpoint.mark == *mark)
}

/// Returns the cookie that keeps a visitor with an endpoint, for as long as the browser is open.
pub(crate) fn set_cookie(service: &ServiceName, endpoint: &Endpoint) -> HeaderValue {
    let text = format!("{}={}; Path=/; HttpOnly; SameSite=Lax", name(service), endpoint.mark);
    HeaderValue::try_from(text).expect("a service's name and hexadecimal digits are a field value")
}

fn name(service: &ServiceName) -> String {
    format!("bg-{service}")
}
