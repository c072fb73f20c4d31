//! The calls of the admin protocol: from a request to control, and from its outcome to an answer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;
use config::admin::request;
use config::admin::response::{CertificateStatus, Services, Status, Version};
use config::admin::{AdminError, BODY_BYTES, Call, ErrorCode, Event, LEASE_HEADER, PROTOCOL, Verb};
use config::name::{ServiceName, Slot};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, mpsc, oneshot};

use super::stream::{self, EventBody};
use crate::control::custody::Custody;
use crate::control::reload::{Bring, Configure, Order};
use crate::control::{self, Change, Counted, Handle, IfMatch};
use crate::successor::{self, Program};
use crate::telemetry::count::Count;
use crate::telemetry::metrics::{self, ProxyMetrics, SlotMetrics};
use crate::telemetry::panics;
use crate::worker::Shared;

type Answer = Response<Either<Full<Bytes>, EventBody>>;

/// SHA-256 of our own program; it does not change while we run.
static BUILD: OnceCell<String> = OnceCell::const_new();

/// What calls are answered from.
pub(crate) struct Context {
    /// Services and their changes.
    pub(crate) handle: Rc<Handle>,
    /// What workers count.
    pub(crate) shared: Arc<Shared>,
    /// Where a reload is asked for.
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    /// The addresses that the proxy listens on.
    pub(crate) addresses: Vec<SocketAddr>,
    /// When the proxy started.
    pub(crate) started: SystemTime,
    /// How a successor is started.
    pub(crate) program: Option<Program>,
}

/// Answers a request; a refusal is an answer too.
pub(super) async fn answer(context: Rc<Context>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    Ok(answer_call(&context, request).await.unwrap_or_else(|refusal| refused(&refusal)))
}

async fn answer_call(context: &Context, request: Request<Incoming>) -> Result<Answer, AdminError> {
    let (head, body) = request.into_parts();
    let call = Call::parse(head.method.as_str(), head.uri.path())?;
    let body = read(body).await?;
    let handle = &context.handle;
    if call.method() != "GET" && *handle.custody.borrow() != Custody::Ours {
        return Err(AdminError::new(ErrorCode::HandingOver, "a successor is taking over; nothing was changed")
            .hint("ask again in a moment: it answers at the same place"));
    }
    match call {
        Call::Version => json(None, &version().await),
        Call::Status => {
            let version = version().await;
            json(None, &context.status(version))
        }
        Call::Services => json(None, &Services { services: handle.with(|control| control.services()) }),
        Call::Service(name) => {
            let service = handle.with(|control| control.service(&name))?;
            json(Some(service.generation), &service)
        }
        Call::Put(name) => {
            let change = change(&head.headers)?;
            let settings = parse(&body)?;
            let service = handle.with(|control| control.put(&name, settings, &change))?;
            json(Some(service.generation), &service)
        }
        Call::Delete(name) => {
            let change = change(&head.headers)?;
            control::delete(handle, &name, &parse(&body)?, &change).await?;
            Ok(respond(StatusCode::NO_CONTENT, None, Bytes::new()))
        }
        Call::Act(name, verb) => act(context, &name, verb, &head.headers, &body).await,
        Call::Reload => {
            let problems = context.order(|reply| Order::Reload(Some(reply))).await?;
            json(None, &Event::Reloaded { problems })
        }
        Call::Upgrade => json(None, &successor::start(handle, context.program.as_ref(), parse(&body)?).await?),
        Call::Proxy => {
            let proxy = context.order(Order::Tell).await?;
            json(Some(proxy.generation), &proxy)
        }
        Call::PutProxy => {
            let Change { if_match, .. } = change(&head.headers)?;
            let settings = parse(&body).map_err(|error| {
                error.hint("what needs a restart, such as `listen`, stands in bgproxy.toml; docs/admin-protocol.md lists the rest")
            })?;
            let configure = |reply| Order::Configure(Box::new(Configure { settings, if_match, reply }));
            let proxy = context.order(configure).await??;
            json(Some(proxy.generation), &proxy)
        }
        Call::PutCertificate(name) => {
            let brought = parse(&body)?;
            let bring = |reply| Order::Bring(Box::new(Bring { name, brought, reply }));
            json(None, &context.order(bring).await??)
        }
        Call::DeleteCertificate(name) => {
            context.order(|reply| Order::TakeAway(name, reply)).await??;
            Ok(respond(StatusCode::NO_CONTENT, None, Bytes::new()))
        }
        Call::Events => Ok(events(stream::follow(handle.events.subscribe()))),
        Call::Metrics => Ok(respond(StatusCode::OK, Some("text/plain; version=0.0.4"), context.metrics().into())),
        Call::History(name) => json(None, &handle.with(|control| control.history(&name))?),
        Call::Log(name) => {
            let log = handle.with(|control| control.failed_log(&name))?;
            Ok(respond(StatusCode::OK, Some("text/plain; charset=utf-8"), log.into()))
        }
    }
}

async fn act(
    context: &Context,
    name: &ServiceName,
    verb: Verb,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, AdminError> {
    let handle = &context.handle;
    match verb {
        Verb::Stage => Ok(events(control::stage(handle, name, parse(body)?, &change(headers)?).await?)),
        Verb::Flip => {
            let flipped = control::flip(handle, name, &parse(body)?, &change(headers)?)?;
            json(Some(flipped.generation), &flipped)
        }
        Verb::Rollback => {
            let flipped = control::rollback(handle, name, &parse(body)?, &change(headers)?)?;
            json(Some(flipped.generation), &flipped)
        }
        Verb::Drain => Ok(events(control::drain(handle, name, &parse(body)?, lease(headers)?.as_deref())?)),
        Verb::Lease => {
            let lease = parse(body)?;
            json(None, &handle.with(|control| control.lease(name, lease))?)
        }
        Verb::Pause => json(None, &control::pause(handle, name, parse(body)?, &change(headers)?).await?),
        Verb::Resume => {
            let request::Resume {} = parse(body)?;
            let service = control::resume(handle, name, &change(headers)?)?;
            json(Some(service.generation), &service)
        }
        Verb::Maintenance => {
            let (wanted, change) = (parse(body)?, change(headers)?);
            let service = handle.with(|control| control.maintenance(name, wanted, &change))?;
            json(Some(service.generation), &service)
        }
        Verb::Journal => {
            let (line, lease) = (parse(body)?, lease(headers)?);
            handle.with(|control| control.journal(name, line, lease.as_deref()))?;
            Ok(respond(StatusCode::NO_CONTENT, None, Bytes::new()))
        }
        Verb::Endpoints => Ok(events(control::endpoints(handle, name, &parse(body)?, &change(headers)?)?)),
        Verb::Preview => json(None, &control::preview(handle, name, &parse(body)?, &change(headers)?)?),
        Verb::Canary => {
            let service = control::canary(handle, name, &parse(body)?, &change(headers)?)?;
            json(Some(service.generation), &service)
        }
    }
}

impl Context {
    /// Asks whoever applies the configuration, and waits for the reply.
    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, AdminError> {
        let (reply, answer) = oneshot::channel();
        let gone = || {
            AdminError::new(ErrorCode::Internal, "the proxy is ending, or failed at this")
                .hint("where it goes on, its log says what happened: `bgctl logs --proxy`")
        };
        self.orders.send(order(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    fn status(&self, version: Version) -> Status {
        let (state_lost, mut warnings, services) =
            self.handle.with(|control| (control.state_lost(), control.warnings(), control.services()));
        let told = self.shared.tls.told();
        warnings.extend(told.warnings(SystemTime::now()));
        let certificates = told.shown().map(CertificateStatus::from);
        Status {
            version,
            started: humantime::format_rfc3339_seconds(self.started).to_string(),
            listeners: self.addresses.iter().map(ToString::to_string).collect(),
            tls_listeners: told.addresses.iter().map(ToString::to_string).collect(),
            certificates: certificates.collect(),
            connections: self.shared.connections.load(Ordering::Relaxed),
            requests: self.requests(),
            state_lost,
            warnings,
            services,
        }
    }

    fn requests(&self) -> u64 {
        self.shared.requests.iter().map(Count::get).sum()
    }

    /// Returns the metrics, in the text form of Prometheus.
    pub(super) fn metrics(&self) -> String {
        let (services, counted) = self.handle.with(|control| (control.services(), control.counted()));
        let slots = counted.iter().flat_map(|Counted { name, requests, .. }| {
            let status = services.iter().find(|service| service.name == *name);
            Slot::BOTH.into_iter().filter_map(move |slot| {
                let (status, live) = status.map(|status| (status.slots.get(slot), status.live))?;
                let healthy = status.endpoints.iter().filter(|endpoint| endpoint.healthy).count();
                Some(SlotMetrics {
                    service: name.to_string(),
                    slot: slot.lower(),
                    sums: requests.sums(slot),
                    in_flight: status.in_flight,
                    is_live: live == Some(slot),
                    endpoints: (healthy, status.endpoints.len()),
                })
            })
        });
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut certificates = BTreeMap::new();
        for certificate in self.shared.tls.told().shown() {
            let ends = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let first = certificates.entry(certificate.title().to_owned()).or_insert(ends);
            *first = ends.min(*first);
        }
        let proxy = ProxyMetrics {
            version: env!("CARGO_PKG_VERSION"),
            started: started.as_secs(),
            connections: self.shared.connections.load(Ordering::Relaxed),
            received: self.requests(),
            refused: self.shared.crowd.refused(),
            handshakes: self.shared.tls.counts(),
            certificates: certificates.into_iter().collect(),
            log_dropped: self.shared.access.dropped(),
            webhooks: {
                let told = self.handle.webhook.outcomes();
                [told.sent.get(), told.failed.get(), told.dropped.get()]
            },
            acme: self.shared.tls.ordered(),
            panics: panics::count(),
            own: counted.iter().map(|counted| (counted.name.to_string(), counted.own)).collect(),
            files: counted.iter().map(|counted| (counted.name.to_string(), counted.files)).collect(),
            flips: counted.iter().map(|counted| (counted.name.to_string(), counted.flips)).collect(),
            drains: counted.iter().map(|counted| (counted.name.to_string(), counted.drains)).collect(),
        };
        metrics::render(&proxy, &slots.collect::<Vec<_>>())
    }
}

async fn version() -> Version {
    let hash = || async { tokio::task::spawn_blocking(hash_of_program).await.unwrap_or_default() };
    Version {
        program: "bgproxy".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL,
        build: BUILD.get_or_init(hash).await.clone(),
        pid: std::process::id(),
        hands_over: true,
    }
}

/// Returns the hash of the program as it runs, even where its file was replaced; empty where it can't be read.
fn hash_of_program() -> String {
    let hash = || {
        let mut file = std::fs::File::open("/proc/self/exe")?;
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hash.finalize()),
                length => hash.update(&buffer[..length]),
            }
        }
    };
    hash().map_or_else(
        |error: std::io::Error| {
            tracing::warn!(%error, "can't read our own program, so its hash is not known");
            String::new()
        },
        |hash| hash.iter().map(|byte| format!("{byte:02x}")).collect(),
    )
}

/// Reads a body of bounded length.
async fn read(body: Incoming) -> Result<Bytes, AdminError> {
    match Limited::new(body, BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(AdminError::new(ErrorCode::TooLarge, format!("the body is longer than {BODY_BYTES} bytes")))
        }
        Err(error) => Err(bad_request(format!("the body can't be read: {error}"))),
    }
}

/// Returns what a body means; no body means that every field has its default.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, AdminError> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| bad_request(format!("the body can't be read: {error}")))
}

fn change(headers: &HeaderMap) -> Result<Change, AdminError> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Err(AdminError::new(ErrorCode::NoIfMatch, "a change needs If-Match")
            .hint("send the ETag of the service, \"0\" for one that is not there, or * for whichever it is"));
    };
    Ok(Change { if_match: if_match(value)?, lease: lease(headers)? })
}

fn if_match(value: &HeaderValue) -> Result<IfMatch, AdminError> {
    let value = value.as_bytes().trim_ascii();
    if value == b"*" {
        return Ok(IfMatch::Any);
    }
    let digits = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    digits
        .filter(|digits| digits.iter().all(u8::is_ascii_digit))
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .map(IfMatch::Generation)
        .ok_or_else(|| bad_request("If-Match is not an ETag of ours").hint("such as \"7\", with its quotes, or *"))
}

fn lease(headers: &HeaderMap) -> Result<Option<String>, AdminError> {
    let Some(value) = headers.get(LEASE_HEADER) else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad_request(format!("{LEASE_HEADER} is not a lease's id")))?;
    Ok(Some(text.to_owned()))
}

fn json(generation: Option<u64>, body: &impl Serialize) -> Result<Answer, AdminError> {
    let mut body = serde_json::to_vec(body)
        .map_err(|error| AdminError::new(ErrorCode::Internal, format!("the answer can't be written: {error}")))?;
    // For whoever reads it in a terminal.
    body.push(b'\n');
    let mut answer = respond(StatusCode::OK, Some("application/json"), body.into());
    if let Some(tag) = generation.and_then(|generation| HeaderValue::try_from(format!("\"{generation}\"")).ok()) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    Ok(answer)
}

fn refused(refusal: &AdminError) -> Answer {
    let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body = serde_json::to_vec(refusal).unwrap_or_default();
    body.push(b'\n');
    respond(status, Some("application/json"), body.into())
}

fn events(events: mpsc::Receiver<Event>) -> Answer {
    let mut answer = Response::new(Either::Right(EventBody(events)));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    answer
}

fn respond(status: StatusCode, content: Option<&'static str>, body: Bytes) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(body)));
    *answer.status_mut() = status;
    if let Some(content) = content {
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    }
    answer
}

fn bad_request(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use config::admin::request::Flip;

    use super::*;

    fn headers(if_match: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(if_match))])
    }

    #[test]
    fn a_change_names_a_generation_or_says_that_any_will_do() {
        assert!(matches!(change(&headers("*")).unwrap().if_match, IfMatch::Any));
        assert!(matches!(change(&headers("\"7\"")).unwrap().if_match, IfMatch::Generation(7)));
        for wrong in ["7", "\"\"", "\"+7\"", "W/\"7\"", "\"7\", \"8\"", "\"99999999999999999999\""] {
            assert_eq!(change(&headers(wrong)).err().unwrap().code, ErrorCode::BadRequest, "{wrong}");
        }
        assert_eq!(change(&HeaderMap::new()).err().unwrap().code, ErrorCode::NoIfMatch);
    }

    #[test]
    fn no_body_is_the_default_and_an_unknown_field_is_refused() {
        assert_eq!(parse::<Flip>(b" \n").unwrap(), Flip::default());
        assert_eq!(parse::<Flip>(br#"{"forse":true}"#).unwrap_err().code, ErrorCode::BadRequest);
    }
}
