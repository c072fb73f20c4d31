//! Steady load by independent visitors, and a verdict that counts instead of assuming.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::task::JoinSet;

use crate::client::{Client, Response, client, client_tls};

/// The body of a POST, all of which must arrive.
const BODY_BYTES: usize = 20_000;
/// Failures are kept with their words up to this many; all are counted.
const SHOWN: usize = 20;
/// A streamed answer has so many pieces, each so many milliseconds after the one before.
const STREAM: (usize, u64) = (5, 50);

/// Who visits.
#[derive(Debug, Clone)]
pub struct Load {
    /// Sent as `Host`.
    pub host: String,
    /// Clients that use one connection for all their GETs.
    pub keep_alive: usize,
    /// Clients that open a connection for each GET.
    pub fresh: usize,
    /// Clients that send POSTs with bodies, each with an id of its own.
    pub posts: usize,
    /// Clients whose GETs are answered slowly.
    pub slow: usize,
    /// How slowly.
    pub slow_for: Duration,
    /// Clients whose GETs are answered in pieces, over a quarter of a second.
    pub streams: usize,
    /// What each client but the slow ones waits between an answer and its next request.
    pub pause: Duration,
    /// They speak TLS and trust this.
    pub tls: Option<Arc<ClientConfig>>,
    /// Says which version gave an answer with status 200, or what is wrong with it.
    pub judge: fn(&Asked<'_>, &Response) -> Result<String, String>,
}

/// What a visitor asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What it carried as `X-Load-Id`.
    pub id: &'a str,
    /// How many bytes a POST had.
    pub posted: Option<usize>,
    /// In how many pieces the answer was to come.
    pub pieces: Option<usize>,
}

/// Judges an answer of [`upstream()`](crate::upstream()).
fn judge_upstream(asked: &Asked<'_>, answer: &Response) -> Result<String, String> {
    let Asked { id, posted, pieces } = *asked;
    if answer.field("x-load-id") != Some(id) {
        return Err(format!("the answer to another request: {:?}", answer.field("x-load-id")));
    }
    let arrived = answer.field("x-body-bytes").and_then(|bytes| bytes.parse().ok());
    if let Some(posted) = posted.filter(|posted| arrived != Some(*posted)) {
        return Err(format!("{arrived:?} of {posted} bytes arrived"));
    }
    let version = answer.field("x-version").unwrap_or("none");
    match pieces {
        Some(pieces) if answer.text() != version.repeat(pieces) => {
            Err(format!("{pieces} pieces of {version} came as {:?}", answer.text()))
        }
        _ => Ok(version.to_owned()),
    }
}

impl Default for Load {
    fn default() -> Self {
        Self {
            host: "shop.test".to_owned(),
            keep_alive: 8,
            fresh: 2,
            posts: 2,
            slow: 2,
            slow_for: Duration::from_millis(200),
            streams: 0,
            pause: Duration::ZERO,
            tls: None,
            judge: judge_upstream,
        }
    }
}

/// What became of the requests.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Requests sent.
    pub total: u64,
    /// Those without the right answer.
    pub failed: u64,
    /// The first of these, in words, with the time since the start.
    pub failures: Vec<(Duration, String)>,
    /// Right answers by the version that gave them.
    pub versions: BTreeMap<String, u64>,
    /// The longest wait for an answer, those asked to be slow aside.
    pub slowest: Duration,
    /// Kept-alive connections that the server announced to close.
    pub closed: u64,
}

impl Verdict {
    /// Ends the test unless every request got its answer.
    ///
    /// # Panics
    /// With the first failures in words.
    pub fn assert_none_failed(&self) {
        assert!(self.total > 0, "no request was sent");
        assert_eq!(self.failed, 0, "of {} requests failed: {:#?}", self.total, self.failures);
    }
}

/// Load that goes on until it is stopped.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    visitors: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    load: Load,
    began: Instant,
    stop: AtomicBool,
    /// When each request began; its place is its id.
    began_at: Mutex<Vec<Instant>>,
    verdict: Mutex<Verdict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visitor {
    KeepAlive,
    Fresh,
    Post,
    Slow,
    Stream,
}

impl Visitor {
    /// Tells whether its answers take as long as it asked for.
    fn is_patient(self) -> bool {
        matches!(self, Self::Slow | Self::Stream)
    }
}

/// Sends load to an address.
pub fn load(address: SocketAddr, load: Load) -> Running {
    let counts = [
        (Visitor::KeepAlive, load.keep_alive),
        (Visitor::Fresh, load.fresh),
        (Visitor::Post, load.posts),
        (Visitor::Slow, load.slow),
        (Visitor::Stream, load.streams),
    ];
    let shared = Arc::new(Shared {
        address,
        load,
        began: Instant::now(),
        stop: AtomicBool::new(false),
        began_at: Mutex::default(),
        verdict: Mutex::default(),
    });
    let mut visitors = JoinSet::new();
    for (visitor, count) in counts {
        for _ in 0..count {
            visitors.spawn(visit(shared.clone(), visitor));
        }
    }
    Running { shared, visitors }
}

impl Running {
    /// Returns what has become of the requests so far.
    pub fn so_far(&self) -> Verdict {
        self.shared.verdict.lock().unwrap().clone()
    }

    /// Returns when a request began, before its first byte was sent, by what it carried as `X-Load-Id`.
    ///
    /// # Panics
    /// Where no visitor sent such a request.
    pub fn began(&self, id: &str) -> Instant {
        self.shared.began_at.lock().unwrap()[id.parse::<usize>().unwrap()]
    }

    /// Lets the visitors finish their requests, and returns the verdict.
    pub async fn stop(mut self) -> Verdict {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.visitors.join_next().await {
            ended.unwrap();
        }
        self.so_far()
    }
}

async fn visit(shared: Arc<Shared>, visitor: Visitor) {
    let mut connection: Option<Client> = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let (id, sent) = shared.begin();
        let answer = exchange(&shared, visitor, &id, &mut connection).await;
        let goes_on = visitor != Visitor::Fresh && answer.as_ref().is_ok_and(|(answer, _)| !answer.closes());
        if !goes_on {
            connection = None;
        }
        shared.record(visitor, &id, sent.elapsed(), answer);
        if !visitor.is_patient() && !shared.load.pause.is_zero() {
            tokio::time::sleep(shared.load.pause).await;
        }
    }
}

impl Shared {
    /// Returns a new request's id and its beginning.
    fn begin(&self) -> (String, Instant) {
        let mut began_at = self.began_at.lock().unwrap();
        let now = Instant::now();
        began_at.push(now);
        ((began_at.len() - 1).to_string(), now)
    }

    fn record(&self, visitor: Visitor, id: &str, took: Duration, answer: Result<(Response, String), String>) {
        let mut verdict = self.verdict.lock().unwrap();
        verdict.total += 1;
        match answer {
            Ok((answer, version)) => {
                verdict.closed += u64::from(visitor != Visitor::Fresh && answer.closes());
                *verdict.versions.entry(version).or_default() += 1;
                if !visitor.is_patient() {
                    verdict.slowest = verdict.slowest.max(took);
                }
            }
            Err(why) => {
                verdict.failed += 1;
                if verdict.failures.len() < SHOWN {
                    verdict.failures.push((self.began.elapsed(), format!("{visitor:?} request {id}: {why}")));
                }
            }
        }
    }
}

/// Sends one request and judges its answer, which it returns with the version; a connection that ends without one is a
/// failure, reused or not.
async fn exchange(
    shared: &Shared,
    visitor: Visitor,
    id: &str,
    connection: &mut Option<Client>,
) -> Result<(Response, String), String> {
    let slot = match connection {
        Some(open) => open,
        None => {
            let open = match &shared.load.tls {
                Some(trusted) => client_tls(shared.address, &shared.load.host, trusted).await,
                None => client(shared.address).await,
            };
            let open = open.map_err(|error| format!("connect: {error}"))?;
            connection.insert(open)
        }
    };
    let fields = format!("Host: {}\r\nX-Load-Id: {id}\r\n", shared.load.host);
    let request = match visitor {
        Visitor::KeepAlive => format!("GET / HTTP/1.1\r\n{fields}\r\n"),
        Visitor::Fresh => format!("GET / HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"),
        Visitor::Slow => format!("GET /slow/{} HTTP/1.1\r\n{fields}\r\n", shared.load.slow_for.as_millis()),
        Visitor::Stream => format!("GET /stream/{}/{} HTTP/1.1\r\n{fields}\r\n", STREAM.0, STREAM.1),
        Visitor::Post => {
            let body = "x".repeat(BODY_BYTES);
            format!("POST / HTTP/1.1\r\n{fields}Content-Length: {BODY_BYTES}\r\n\r\n{body}")
        }
    };
    slot.send(request).await.map_err(|error| format!("send: {error}"))?;
    let answer = slot.answer().await.map_err(|error| format!("read: {error}"))?;
    let answer = answer.ok_or("the connection was closed without an answer")?;
    if answer.status != 200 {
        return Err(format!("{} {}", answer.status, answer.text().chars().take(200).collect::<String>()));
    }
    let asked = Asked {
        id,
        posted: (visitor == Visitor::Post).then_some(BODY_BYTES),
        pieces: (visitor == Visitor::Stream).then_some(STREAM.0),
    };
    let version = (shared.load.judge)(&asked, &answer)?;
    Ok((answer, version))
}
