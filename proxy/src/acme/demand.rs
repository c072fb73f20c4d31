//! Hosts that no service names and a visitor does: whoever knows is asked whether they may have a certificate, within limits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use config::webhook::WebhookUrl;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::wire::{self, Wire};

/// How many hosts are kept in memory, and how many refusals.
const MOST: usize = 10_000;
/// How long a no is believed.
const DENIED: Duration = Duration::from_secs(5 * 60);
/// How long nobody is asked again who could not say.
const UNKNOWN: Duration = Duration::from_secs(30);
/// How long an answer may take: a visitor waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What was demanded.
#[derive(Default)]
pub(super) struct Demand {
    /// Hosts that may have a certificate, or are asked about.
    hosts: BTreeSet<String>,
    /// Hosts that may not, until when.
    denied: BTreeMap<String, SystemTime>,
    /// When first certificates were ordered in the last hour.
    ordered: VecDeque<SystemTime>,
}

impl Demand {
    /// Takes a host up, unless it may have none.
    pub(super) fn take_up(&mut self, host: &str, now: SystemTime) {
        let is_denied = self.denied.get(host).is_some_and(|until| now < *until);
        if is_public(host) && !is_denied && self.hosts.len() < MOST {
            self.hosts.insert(host.to_owned());
        }
    }

    /// Tells whether a host was demanded.
    pub(super) fn has(&self, host: &str) -> bool {
        self.hosts.contains(host)
    }

    /// Returns what was demanded, but for what is of no use any more.
    pub(super) fn retain(&mut self, is_of_use: impl Fn(&str) -> bool) -> impl Iterator<Item = &String> {
        self.hosts.retain(|host| is_of_use(host));
        self.hosts.iter()
    }

    /// Notes that a host may have none; `is_known`: whoever knows has said so.
    pub(super) fn deny(&mut self, host: &str, is_known: bool, now: SystemTime) {
        self.hosts.remove(host);
        if self.denied.len() >= MOST {
            self.denied.retain(|_, until| now < *until);
        }
        if self.denied.len() >= MOST {
            self.denied.clear();
        }
        self.denied.insert(host.to_owned(), now + if is_known { DENIED } else { UNKNOWN });
    }

    /// Takes back what was counted last, as nothing was ordered.
    pub(super) fn uncount(&mut self) {
        self.ordered.pop_back();
    }

    /// Counts a first certificate.
    ///
    /// # Errors
    /// Where there were enough in this hour: when there is room again.
    pub(super) fn order(&mut self, most: u32, now: SystemTime) -> Result<(), SystemTime> {
        while self.ordered.front().is_some_and(|first| *first + HOUR <= now) {
            self.ordered.pop_front();
        }
        match self.ordered.front() {
            Some(first) if self.ordered.len() >= usize::try_from(most).unwrap_or(usize::MAX) => Err(*first + HOUR),
            _ => {
                self.ordered.push_back(now);
                Ok(())
            }
        }
    }
}

/// Tells whether an authority may know a name: one of several labels, and none of a network within.
fn is_public(host: &str) -> bool {
    let is_label = |label: &str| {
        let is_plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && label.len() <= 63 && is_plain && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_within = [".internal", ".local", ".localhost"].iter().any(|end| host.ends_with(end));
    host.len() <= 253 && host.contains('.') && host.split('.').all(is_label) && !is_within
}

/// Asks whether a host may have a certificate.
///
/// # Errors
/// Why nobody knows, in words.
pub(super) async fn permits(url: &WebhookUrl, host: &str) -> Result<bool, String> {
    let asked = tokio::time::timeout(TIMEOUT, ask(url, host)).await;
    let status = asked.map_err(|_| format!("{url} gave no answer within {} s", TIMEOUT.as_secs()))??;
    match status.as_u16() {
        200..=299 => Ok(true),
        400..=499 => Ok(false),
        other => Err(format!("{url} answered {other}")),
    }
}

async fn ask(url: &WebhookUrl, host: &str) -> Result<StatusCode, String> {
    let words = |error: std::io::Error| format!("{url} can't be asked: {error}");
    let stream = wire::connect(url.host(), url.port()).await.map_err(words)?;
    let status = if url.is_tls() {
        let name = ServerName::try_from(url.host().to_owned()).map_err(|error| error.to_string())?;
        let stream = Wire::new(None)?.tls.connect(name, stream).await.map_err(words)?;
        get(stream, url, host).await
    } else {
        get(stream, url, host).await
    };
    status.map_err(|error| format!("{url} can't be asked: {error}"))
}

async fn get<S>(stream: S, url: &WebhookUrl, host: &str) -> Result<StatusCode, Box<dyn std::error::Error>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let join = if url.target().contains('?') { '&' } else { '?' };
    let request = Request::get(format!("{}{join}domain={host}", url.target()))
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, concat!("bgproxy/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let mut asked = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut asked => answer?,
        // The answer may have come with the end of the connection.
        _ = connection => asked.await?,
    };
    Ok(answer.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_public_alone_are_asked_about() {
        for good in ["a.test", "xn--bcher-kva.example", "a-1.b.c"] {
            assert!(is_public(good), "{good}");
        }
        for bad in ["localhost", "shop.internal", "a..b", "-a.test", "a.test.", "a_b.test", "a.test/x", "*.a.test", ""]
        {
            assert!(!is_public(bad), "{bad}");
        }
    }

    #[test]
    fn so_many_are_ordered_in_an_hour_and_a_no_is_believed_for_a_while() {
        let (mut demand, start) = (Demand::default(), SystemTime::UNIX_EPOCH + HOUR * 1000);
        assert_eq!((demand.order(2, start), demand.order(2, start + HOUR / 2)), (Ok(()), Ok(())));
        assert_eq!(demand.order(2, start + HOUR / 2), Err(start + HOUR));
        assert_eq!(demand.order(2, start + HOUR), Ok(()));
        demand.take_up("a.test", start);
        assert!(demand.has("a.test"));
        // What was denied was not ordered.
        demand.deny("a.test", true, start);
        demand.uncount();
        assert_eq!(demand.order(2, start + HOUR), Ok(()));
        demand.take_up("a.test", start + DENIED / 2);
        assert!(!demand.has("a.test"));
        demand.take_up("a.test", start + DENIED);
        assert!(demand.has("a.test"));
    }
}
