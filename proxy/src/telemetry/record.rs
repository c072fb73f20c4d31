//! What is written of one request, at its end, whichever way it ended.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use config::admin::PREVIEW_PARAMETER;
use config::model::{Access, AccessFormat};
use config::name::Slot;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Version};

use super::access_log::WorkerLog;
use crate::clock;
use crate::routing::table::Service;

/// One request; it is written when dropped.
pub(crate) struct Record {
    log: Rc<WorkerLog>,
    access: Arc<Access>,
    /// Its service wants no line of it.
    is_unwanted: bool,
    time: SystemTime,
    began: Instant,
    peer: IpAddr,
    method: Method,
    target: Option<PathAndQuery>,
    version: Version,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    request_id: HeaderValue,
    traceparent: Option<HeaderValue>,
    status: StatusCode,
    bytes: u64,
    /// The service and slot that it was sent to.
    service: Option<String>,
    slot: Option<Slot>,
    /// Why it failed, where it did.
    cause: Option<String>,
}

impl Record {
    /// Begins the record of a request; `None` where nothing is to be written of it.
    pub(crate) fn new(
        log: &Rc<WorkerLog>,
        access: Arc<Access>,
        peer: IpAddr,
        request: &Parts,
        request_id: &HeaderValue,
    ) -> Option<Box<Self>> {
        let path = request.uri.path();
        if access.exclude.iter().any(|prefix| prefix.takes(path)) {
            return None;
        }
        let field = |name| request.headers.get(name).cloned();
        Some(Box::new(Self {
            log: Rc::clone(log),
            access,
            is_unwanted: false,
            time: SystemTime::now(),
            began: clock::now(),
            peer,
            method: request.method.clone(),
            target: request.uri.path_and_query().cloned(),
            version: request.version,
            host: host(request),
            referer: field(header::REFERER),
            user_agent: field(header::USER_AGENT),
            request_id: request_id.clone(),
            traceparent: request.headers.get("traceparent").cloned(),
            status: StatusCode::OK,
            bytes: 0,
            service: None,
            slot: None,
            cause: None,
        }))
    }

    /// Notes whom it is sent to.
    pub(crate) fn is_sent_to(&mut self, service: &Service, slot: Slot) {
        self.is_of(service);
        self.slot = Some(slot);
    }

    /// Notes whose it is, where it is sent nowhere.
    pub(crate) fn is_of(&mut self, service: &Service) {
        self.service = Some(service.name.to_string());
        self.is_unwanted = !service.options.access_log;
    }

    /// Notes the status of the answer.
    pub(crate) fn is_answered(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// Notes why it failed.
    pub(crate) fn has_failed(&mut self, cause: impl std::fmt::Display) {
        self.cause = Some(cause.to_string());
    }

    /// Counts bytes of the answer's body.
    pub(crate) fn sends(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn line(&self) -> Vec<u8> {
        match self.access.format {
            AccessFormat::Off => Vec::new(),
            AccessFormat::Combined => self.combined(),
            AccessFormat::Json => self.json(),
        }
    }

    /// `host ident user [time] "request" status bytes "referer" "user agent"`.
    fn combined(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(256);
        let (target, status, bytes) = (self.target(), self.status, self.bytes);
        let Self { peer, method, version, .. } = self;
        let written = write!(line, "{peer} - - [{}] \"{method} ", clf_time(self.time)).and_then(|()| {
            escape(&mut line, target.as_bytes());
            write!(line, " {version:?}\" {} {bytes} \"", status.as_u16())
        });
        written.expect("a buffer in memory takes all that is written");
        escape(&mut line, self.referer().as_deref().unwrap_or("-").as_bytes());
        line.extend_from_slice(b"\" \"");
        escape(&mut line, self.user_agent.as_ref().map_or(b"-", |value| value.as_bytes()));
        line.extend_from_slice(b"\"\n");
        line
    }

    fn json(&self) -> Vec<u8> {
        let text = |value: &Option<HeaderValue>| {
            value.as_ref().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let value = serde_json::json!({
            "time": humantime::format_rfc3339_millis(self.time).to_string(),
            "client": self.peer.to_string(),
            "service": self.service,
            "slot": self.slot.map(Slot::lower),
            "method": self.method.as_str(),
            "host": text(&self.host),
            "target": self.target(),
            "protocol": format!("{:?}", self.version),
            "status": self.status.as_u16(),
            "bytes": self.bytes,
            "seconds": self.began.elapsed().as_secs_f64(),
            "request_id": text(&Some(self.request_id.clone())),
            "trace_id": self.traceparent.as_ref().and_then(trace_id),
            "referer": self.referer(),
            "user_agent": text(&self.user_agent),
            "cause": self.cause,
        });
        let mut line = value.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

impl Record {
    /// Returns the target without what is not to be written.
    fn target(&self) -> Cow<'_, str> {
        redact(self.target.as_ref().map_or("/", PathAndQuery::as_str), &self.access.redact)
    }

    /// Returns the page that the client came from: its query may hold the same.
    fn referer(&self) -> Option<String> {
        let referer = self.referer.as_ref()?;
        let text = String::from_utf8_lossy(referer.as_bytes());
        Some(redact(&text, &self.access.redact).into_owned())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.status = StatusCode::INTERNAL_SERVER_ERROR;
            self.cause.get_or_insert_with(|| "the proxy failed".to_owned());
        }
        let has_failed = self.status.is_server_error() || self.cause.is_some();
        let is_turn = self.log.is_turn(self.access.one_in);
        if !self.is_unwanted && (has_failed || is_turn) {
            self.log.add(&self.line());
        }
    }
}

/// Returns a target or an address with the values of these query parameters left out.
fn redact<'t>(target: &'t str, names: &[String]) -> Cow<'t, str> {
    let is_secret = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        name == PREVIEW_PARAMETER || names.iter().any(|secret| secret.eq_ignore_ascii_case(name))
    };
    let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(target);
    }
    let (query, fragment) = match query.split_once('#') {
        Some((query, fragment)) => (query, format!("#{fragment}")),
        None => (query, String::new()),
    };
    let shown: Vec<Cow<'_, str>> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret(pair) => Cow::Owned(format!("{name}=REDACTED")),
            _ => Cow::Borrowed(pair),
        })
        .collect();
    Cow::Owned(format!("{path}?{}{fragment}", shown.join("&")))
}

/// Returns the trace that a request belongs to, where its `traceparent` is one (W3C Trace Context, section 3.2).
fn trace_id(traceparent: &HeaderValue) -> Option<String> {
    let text = traceparent.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let [version, trace, parent, flags, ..] = parts[..] else { return None };
    let valid = is_hex(version, 2) && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    (valid && version != "ff" && trace.bytes().any(|b| b != b'0')).then(|| trace.to_owned())
}

fn host(request: &Parts) -> Option<HeaderValue> {
    let named = |headers: &HeaderMap| headers.get(header::HOST).cloned();
    let authority = request.uri.authority();
    authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()).or_else(|| named(&request.headers))
}

/// Writes what a client sent so that it can't leave its quotes or its line: as nginx does, `\xHH`.
fn escape(line: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b' '..=b'~' if *byte != b'"' && *byte != b'\\' => line.push(*byte),
            _ => write!(line, "\\x{byte:02X}").expect("a buffer in memory takes all that is written"),
        }
    }
}

/// Returns a time as `10/Oct/2026:13:55:36 +0000`.
fn clf_time(time: SystemTime) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let part = |range| text.get(range).unwrap_or_default();
    let month = part(5..7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    format!("{}/{}/{}:{} +0000", part(8..10), month.unwrap_or(&"Jan"), part(0..4), part(11..19))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_time_is_that_of_the_common_log_format() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        assert_eq!(clf_time(time), "18/Nov/2026:11:06:40 +0000");
    }

    #[test]
    fn secrets_of_a_query_are_left_out_and_nothing_else() {
        let names = ["token".to_owned(), "Key".to_owned()];
        for (target, shown) in [
            ("/a?token=s3cret&b=1", "/a?token=REDACTED&b=1"),
            ("/a?b=1&key=x=y&TOKEN=z", "/a?b=1&key=REDACTED&TOKEN=REDACTED"),
            ("https://x/a?token=s#top", "https://x/a?token=REDACTED#top"),
            ("/token=1?tokens=2&a", "/token=1?tokens=2&a"),
            ("/a?token", "/a?token"),
        ] {
            assert_eq!(redact(target, &names), shown);
        }
    }

    #[test]
    fn a_trace_is_told_where_its_field_is_one() {
        let id = |text: &'static str| trace_id(&HeaderValue::from_static(text));
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(id("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").as_deref(), Some(trace));
        assert_eq!(id("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later").as_deref(), Some(trace));
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_leaves_its_quotes_or_its_line(bytes: Vec<u8>) {
            let mut line = Vec::new();
            escape(&mut line, &bytes);
            prop_assert!(line.iter().all(|byte| (b' '..=b'~').contains(byte) && *byte != b'"'));
            // Every backslash begins an escape, so it can be read back.
            let text = String::from_utf8(line).unwrap();
            let mut read = Vec::new();
            let mut rest = text.as_bytes();
            while let Some((first, tail)) = rest.split_first() {
                if *first == b'\\' {
                    read.push(u8::from_str_radix(std::str::from_utf8(&tail[1..3]).unwrap(), 16).unwrap());
                    rest = &tail[3..];
                } else {
                    read.push(*first);
                    rest = tail;
                }
            }
            prop_assert_eq!(read, bytes);
        }
    }
}
