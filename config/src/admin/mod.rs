//! The admin protocol: HTTP/1.1 and JSON on the proxy's Unix socket. Described for people in `docs/admin-protocol.md`.

pub mod error;
pub mod event;
pub mod journal;
pub mod request;
pub mod response;

pub use error::{AdminError, ErrorCode};
pub use event::Event;

use crate::brought::CertificateName;
use crate::name::ServiceName;

/// The version of the protocol; it stands in every path as `/v1`.
pub const PROTOCOL: u32 = 1;
/// The header in which a call names the lease it acts under.
pub const LEASE_HEADER: &str = "bluegreen-lease";
/// The parameter of an address that carries a preview's token.
pub const PREVIEW_PARAMETER: &str = "bg_preview";
/// How a successor begins its complaint that the running proxy can't be reached, as where a policy of the host keeps containers apart.
pub const CAN_NOT_ASK: &str = "the running proxy can't be asked";
/// A body of a call is no longer than this, in bytes.
pub const BODY_BYTES: usize = 4 * 1024 * 1024;
/// The log of a failed instance is kept up to this, in bytes: its end.
pub const LOG_BYTES: usize = 1024 * 1024;

/// Every call of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `GET /v1/version`: [`response::Version`].
    Version,
    /// `GET /v1/status`: [`response::Status`].
    Status,
    /// `GET /v1/services`: [`response::Services`].
    Services,
    /// `GET /v1/services/NAME`: [`response::ServiceStatus`].
    Service(ServiceName),
    /// `GET /v1/services/NAME/history`: [`journal::History`].
    History(ServiceName),
    /// `GET /v1/services/NAME/log`: the log of the last instance that failed, as text.
    Log(ServiceName),
    /// `PUT /v1/services/NAME` with [`request::ServiceSettings`]: creates the service or changes its routes.
    Put(ServiceName),
    /// `DELETE /v1/services/NAME`: takes the service's routes away and forgets it.
    Delete(ServiceName),
    /// `POST /v1/services/NAME/VERB`.
    Act(ServiceName, Verb),
    /// `GET /v1/proxy`: [`response::Proxy`].
    Proxy,
    /// `PUT /v1/proxy` with [`ProxySettings`](crate::settings::ProxySettings): the proxy's own settings, as a whole.
    PutProxy,
    /// `PUT /v1/certificates/NAME` with [`Brought`](crate::brought::Brought): shows a certificate and keeps it; answers
    /// [`response::CertificateStatus`].
    PutCertificate(CertificateName),
    /// `DELETE /v1/certificates/NAME`: shows and keeps it no longer.
    DeleteCertificate(CertificateName),
    /// `POST /v1/reload`: reads `bgproxy.toml` again.
    Reload,
    /// `POST /v1/upgrade` with [`request::Upgrade`]: starts another process in the place of this one; answers
    /// [`response::Upgraded`].
    Upgrade,
    /// `GET /v1/events`: a stream of [`Event`], one a line.
    Events,
    /// `GET /metrics`, in Prometheus' text form.
    Metrics,
}

/// What a `POST` does to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// [`request::Stage`]: puts endpoints into the idle slot and probes them; streams [`Event`]s.
    Stage,
    /// [`request::Flip`]: makes the other slot live; answers [`response::Flipped`].
    Flip,
    /// [`request::Drain`]: waits until nothing is in flight on the old slot; streams [`Event`]s.
    Drain,
    /// [`request::Flip`] back to the slot that was live before; answers [`response::Flipped`].
    Rollback,
    /// [`request::Pause`]: holds requests; answers [`response::Paused`].
    Pause,
    /// [`request::Resume`]: lets held requests go; answers [`response::ServiceStatus`].
    Resume,
    /// [`request::Maintenance`]: shows visitors a page; answers [`response::ServiceStatus`].
    Maintenance,
    /// [`request::Canary`]: sends a share of visitors to the idle slot; answers [`response::ServiceStatus`].
    Canary,
    /// [`request::Preview`]: shows the idle slot to whoever has a link; answers [`response::Preview`].
    Preview,
    /// [`request::Endpoints`]: more or fewer endpoints of the live slot; streams [`Event`]s.
    Endpoints,
    /// [`request::Lease`]: who may change the service; answers [`response::Lease`].
    Lease,
    /// [`journal::Journal`]: what is done to the service, step by step.
    Journal,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 12] = [
        Self::Stage,
        Self::Flip,
        Self::Drain,
        Self::Rollback,
        Self::Pause,
        Self::Resume,
        Self::Maintenance,
        Self::Canary,
        Self::Preview,
        Self::Endpoints,
        Self::Lease,
        Self::Journal,
    ];

    /// Returns the last segment of the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Flip => "flip",
            Self::Drain => "drain",
            Self::Rollback => "rollback",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Maintenance => "maintenance",
            Self::Canary => "canary",
            Self::Preview => "preview",
            Self::Endpoints => "endpoints",
            Self::Lease => "lease",
            Self::Journal => "journal",
        }
    }
}

impl Call {
    /// Returns the HTTP method.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Version
            | Self::Status
            | Self::Services
            | Self::Service(_)
            | Self::History(_)
            | Self::Log(_)
            | Self::Proxy
            | Self::Events
            | Self::Metrics => "GET",
            Self::Put(_) | Self::PutProxy | Self::PutCertificate(_) => "PUT",
            Self::Delete(_) | Self::DeleteCertificate(_) => "DELETE",
            Self::Act(..) | Self::Reload | Self::Upgrade => "POST",
        }
    }

    /// Returns the path.
    pub fn path(&self) -> String {
        match self {
            Self::Version => "/v1/version".to_owned(),
            Self::Status => "/v1/status".to_owned(),
            Self::Services => "/v1/services".to_owned(),
            Self::Service(name) | Self::Put(name) | Self::Delete(name) => format!("/v1/services/{name}"),
            Self::History(name) => format!("/v1/services/{name}/history"),
            Self::Log(name) => format!("/v1/services/{name}/log"),
            Self::Act(name, verb) => format!("/v1/services/{name}/{}", verb.as_str()),
            Self::Proxy | Self::PutProxy => "/v1/proxy".to_owned(),
            Self::PutCertificate(name) | Self::DeleteCertificate(name) => format!("/v1/certificates/{name}"),
            Self::Reload => "/v1/reload".to_owned(),
            Self::Upgrade => "/v1/upgrade".to_owned(),
            Self::Events => "/v1/events".to_owned(),
            Self::Metrics => "/metrics".to_owned(),
        }
    }

    /// Returns the call that a method and a path mean.
    ///
    /// # Errors
    /// `no_such_call` or `bad_request`, worded for whoever typed it.
    pub fn parse(method: &str, path: &str) -> Result<Self, AdminError> {
        let unknown = || {
            AdminError::new(ErrorCode::NoSuchCall, format!("there is no call {method} {path}"))
                .hint("see docs/admin-protocol.md")
        };
        let name =
            |text: &str| text.parse().map_err(|error| AdminError::new(ErrorCode::BadRequest, format!("{error}")));
        let certificate =
            |text: &str| text.parse().map_err(|error| AdminError::new(ErrorCode::BadRequest, format!("{error}")));
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method, segments.as_slice()) {
            ("GET", ["v1", "version"]) => Ok(Self::Version),
            ("GET", ["v1", "status"]) => Ok(Self::Status),
            ("GET", ["v1", "services"]) => Ok(Self::Services),
            ("GET", ["v1", "services", service]) => Ok(Self::Service(name(service)?)),
            ("GET", ["v1", "services", service, "history"]) => Ok(Self::History(name(service)?)),
            ("GET", ["v1", "services", service, "log"]) => Ok(Self::Log(name(service)?)),
            ("PUT", ["v1", "services", service]) => Ok(Self::Put(name(service)?)),
            ("DELETE", ["v1", "services", service]) => Ok(Self::Delete(name(service)?)),
            ("POST", ["v1", "services", service, verb]) => {
                let verb = Verb::ALL.into_iter().find(|known| known.as_str() == *verb).ok_or_else(unknown)?;
                Ok(Self::Act(name(service)?, verb))
            }
            ("PUT", ["v1", "certificates", name]) => Ok(Self::PutCertificate(certificate(name)?)),
            ("DELETE", ["v1", "certificates", name]) => Ok(Self::DeleteCertificate(certificate(name)?)),
            ("GET", ["v1", "proxy"]) => Ok(Self::Proxy),
            ("PUT", ["v1", "proxy"]) => Ok(Self::PutProxy),
            ("POST", ["v1", "reload"]) => Ok(Self::Reload),
            ("POST", ["v1", "upgrade"]) => Ok(Self::Upgrade),
            ("GET", ["v1", "events"]) => Ok(Self::Events),
            ("GET", ["metrics"]) => Ok(Self::Metrics),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_parsed_from_its_own_method_and_path() {
        let shop: ServiceName = "shop".parse().unwrap();
        let mut calls = vec![
            Call::Version,
            Call::Status,
            Call::Services,
            Call::Service(shop.clone()),
            Call::History(shop.clone()),
            Call::Log(shop.clone()),
            Call::Put(shop.clone()),
            Call::Delete(shop.clone()),
            Call::Proxy,
            Call::PutProxy,
            Call::PutCertificate("shop.test".parse().unwrap()),
            Call::DeleteCertificate("shop.test".parse().unwrap()),
            Call::Reload,
            Call::Upgrade,
            Call::Events,
            Call::Metrics,
        ];
        calls.extend(Verb::ALL.map(|verb| Call::Act(shop.clone(), verb)));
        for call in calls {
            assert_eq!(Call::parse(call.method(), &call.path()).unwrap(), call);
        }
    }
}
