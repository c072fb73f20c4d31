//! Where a request goes: to a version, to a folder, to a gate, or nowhere: connection -> handler -> **way**.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;
use http::request::Parts;

use crate::edge::{Edge, Passed};
use crate::error::Error;
use crate::files;
use crate::headers::Authority;
use crate::routing::canary::Visit;
use crate::routing::closed::{Closed, Gate};
use crate::routing::preview::{self, Entry, Look};
use crate::routing::table::{Matched, Service, escapes};
use crate::secure::{self, Visitor};
use crate::upstream::run::Claim;
use crate::worker::Worker;

/// Why we answer ourselves, and for which service.
pub(crate) struct Refusal {
    pub(crate) error: Error,
    pub(crate) service: Option<Arc<Service>>,
    /// A slot has counted it.
    pub(crate) is_counted: bool,
}

impl Refusal {
    /// Of a service, before any slot of it had a part in the request.
    pub(crate) fn of(service: &Arc<Service>, error: Error) -> Self {
        Self { error, service: Some(Arc::clone(service)), is_counted: false }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, service: None, is_counted: false }
    }
}

/// A request's way, and its place on the run.
pub(crate) struct Routed<'r> {
    pub(crate) service: Arc<Service>,
    pub(crate) claim: Claim,
    pub(crate) target: Cow<'r, str>,
    /// Where a share of the visitors is on another slot.
    pub(crate) visit: Option<Visit>,
    /// Where it is shown to whoever has a link.
    pub(crate) look: Look,
}

/// What a request has behind it: it looks for its way again after each.
#[derive(Default)]
pub(crate) struct Cleared {
    /// The rules of its service let it in.
    pub(crate) passed: Option<Box<Passed>>,
    /// There is no file for it, so that the application is asked.
    pub(crate) has_no_file: bool,
}

impl Cleared {
    /// Returns who it is, where its service asks for that.
    pub(crate) fn user(&self) -> Option<&str> {
        self.passed.as_deref().and_then(Passed::user)
    }
}

/// Where a request goes from here.
pub(crate) enum Way<'r> {
    /// To the live version.
    Open(Routed<'r>),
    /// To the folder in this place of its service's.
    File(Arc<Service>, usize),
    /// Nowhere until its service's rules let it in.
    Judged(Arc<Service>, Arc<Edge>),
    /// Nowhere until the gate opens.
    Closed(Arc<Service>, Arc<Gate>),
    /// It is a health check of a service that is closed on purpose.
    Healthy(Arc<Service>),
    /// To the version that waits for its flip, with the next request.
    Enter(Arc<Service>, Box<Entry>),
    /// To the same address by https.
    Https(Arc<Service>, HeaderValue),
}

/// Looks the service up and claims a place on its live run: load, claim, and where the run drains load again.
pub(crate) fn route<'r>(
    worker: &Worker,
    request: &'r Parts,
    authority: &Authority<'_>,
    visitor: &Visitor<'_>,
    cleared: &Cleared,
) -> Result<Way<'r>, Refusal> {
    let path = request.uri.path();
    loop {
        let table = worker.table();
        let Some(Matched { service, prefix }) = table.find(&authority.host, path) else {
            return Err(if table.state_lost() { Error::NoVersion.into() } else { Error::NoRoute.into() });
        };
        let refused = |error| Refusal::of(service, error);
        if escapes(path, prefix) {
            return Err(refused(Error::BadRequest("the path's dot segments lead out of its route")));
        }
        if (service.secure.is_some() || visitor.guard.is_some())
            && let Some(location) = secure::judge(service, request, authority, visitor).map_err(refused)?
        {
            return Ok(Way::Https(Arc::clone(service), location));
        }
        if let Some(closed) = &service.closed
            && let Some(way) = closed_way(service, closed, request, visitor.address)?
        {
            return Ok(way);
        }
        if let Some(edge) = &service.edge
            && edge.has_rules()
            && !cleared.passed.as_ref().is_some_and(|passed| passed.is_in(&service.name))
        {
            return Ok(Way::Judged(Arc::clone(service), Arc::clone(edge)));
        }
        if !service.options.static_files.is_empty()
            && !cleared.has_no_file
            && let Some(at) = files::find(&service.options.static_files, &request.method, path)
        {
            return Ok(Way::File(Arc::clone(service), at));
        }
        let live = service.live.as_ref().ok_or_else(|| refused(Error::NoVersion))?;
        let look = match &service.preview {
            None if !service.has_signed => Look::Live,
            None => preview::left_over(&service.name, request),
            Some(preview) => match preview.look(&service.name, request) {
                Look::Enter(entry) => return Ok(Way::Enter(Arc::clone(service), entry)),
                Look::Refused => return Err(refused(Error::BadRequest("this link to a preview holds no more"))),
                look => look,
            },
        };
        let shown = service.preview.as_ref().filter(|_| look == Look::Idle);
        let id = || String::from_utf8_lossy(worker.request_id().as_bytes()).into_owned();
        let visit = service
            .canary
            .as_ref()
            .filter(|_| shown.is_none())
            .map(|canary| canary.visit(&service.name, &request.headers, id));
        let to = match (shown, &service.canary, &visit) {
            (Some(preview), _, _) => &preview.target,
            (None, Some(canary), Some(Visit { is_canary: true, .. })) => &canary.target,
            _ => live,
        };
        if let Some(claim) = to.run.claim(worker.index) {
            let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            let mut target = if service.strip_path { strip(target, prefix.trimmed()) } else { Cow::Borrowed(target) };
            if look == Look::Ended {
                target = Cow::Owned(preview::without_parameter(&target).into_owned());
            }
            return Ok(Way::Open(Routed { service: Arc::clone(service), claim, target, visit, look }));
        }
    }
}

/// Returns the way of a request to a service that is closed on purpose; `None`: it is served all the same.
fn closed_way(
    service: &Arc<Service>,
    closed: &Closed,
    request: &Parts,
    client: IpAddr,
) -> Result<Option<Way<'static>>, Refusal> {
    let maintenance = closed.maintenance.as_ref();
    let maintenance = maintenance.filter(|page| !page.lets_in(&service.name, client, &request.headers));
    if maintenance.is_none() && closed.gate.is_none() {
        return Ok(None);
    }
    if closed.health_path.as_deref() == Some(request.uri.path()) {
        return Ok(Some(Way::Healthy(Arc::clone(service))));
    }
    match (maintenance, &closed.gate) {
        (Some(page), _) => Err(Refusal::of(service, Error::Maintenance(Arc::clone(&page.message)))),
        (None, gate) => Ok(gate.as_ref().map(|gate| Way::Closed(Arc::clone(service), Arc::clone(gate)))),
    }
}

fn strip<'t>(target: &'t str, prefix: &str) -> Cow<'t, str> {
    match target.strip_prefix(prefix) {
        Some(rest) if rest.starts_with('/') => Cow::Borrowed(rest),
        Some(rest) => Cow::Owned(format!("/{rest}")),
        None => Cow::Borrowed(target),
    }
}
