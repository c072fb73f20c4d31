//! The application of the demo: says its version and how long it has been running, in HTTP/1.0, once it has loaded.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request's head is no longer than this.
const HEAD_BYTES: usize = 16 * 1024;
/// A request's body is no longer than this.
const BODY_BYTES: usize = 1024 * 1024;
/// The header that carries a request's own id.
pub(super) const ID_HEADER: &str = "uptimer-id";
/// The path that is answered late.
pub(super) const SLOW_PATH: &str = "/slow";
/// What the line of a received POST begins with in the log; the id follows.
pub(super) const RECEIVED: &str = "received ";

/// The application's settings.
#[derive(Debug, Clone, Copy)]
pub struct Uptimer {
    /// Its version.
    pub version: u32,
    /// How long it answers 503 after its start.
    pub load: Duration,
    /// How late the slow path answers.
    pub slow: Duration,
}

impl Uptimer {
    /// Serves until it is dropped. A POST is in `log` before it is answered, so that an end loses none.
    ///
    /// # Errors
    /// Where the address can't be listened on.
    pub async fn serve(self, address: SocketAddr, log: impl Fn(&str)) -> io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        let started = Instant::now();
        let mut clients = FuturesUnordered::new();
        loop {
            tokio::select! {
                // What fails for one client, or for want of a descriptor, is over with the next.
                Ok((stream, _)) = listener.accept() => clients.push(self.answer(stream, started, &log)),
                Some(answered) = clients.next() => {
                    if let Err(error) = answered {
                        log(&format!("a client went away: {error}"));
                    }
                }
                else => tokio::task::yield_now().await,
            }
        }
    }

    async fn answer(self, mut stream: TcpStream, started: Instant, log: &impl Fn(&str)) -> io::Result<()> {
        let Some(request) = Request::read(&mut stream).await? else { return Ok(()) };
        let up = started.elapsed();
        let answer = if up < self.load {
            log("503: still loading");
            reply("503 Service Unavailable", &format!("Uptimer v{}.0 is loading.\n", self.version))
        } else if request.method == "POST" {
            log(&format!("{RECEIVED}{}", request.id));
            reply("200 OK", &echo(self.version, &request.id, &request.body))
        } else {
            if request.path == SLOW_PATH {
                tokio::time::sleep(self.slow).await;
            }
            reply("200 OK", &format!("Uptimer v{}.0 is running for {} seconds.\n", self.version, up.as_secs()))
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    }
}

/// As Python's `http.server` does it: HTTP/1.0, one answer a connection, which ends with the body.
fn reply(status: &str, body: &str) -> String {
    format!("HTTP/1.0 {status}\r\nContent-Type: text/plain\r\n\r\n{body}")
}

/// Returns what a POST is answered: enough to tell that every byte came through.
pub(super) fn echo(version: u32, id: &str, body: &[u8]) -> String {
    format!("Uptimer v{version}.0 received {} bytes as {id}, sum {:08x}.\n", body.len(), sum(body))
}

/// FNV-1a: a changed or a missing byte changes it.
fn sum(body: &[u8]) -> u32 {
    body.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

struct Request {
    method: String,
    path: String,
    id: String,
    body: Vec<u8>,
}

impl Request {
    /// Reads a whole request; `None` where the client said nothing, as a probe of the port does.
    async fn read(stream: &mut TcpStream) -> io::Result<Option<Self>> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if bytes.len() > HEAD_BYTES {
                return Err(bad("the head is too long"));
            }
            match stream.read_buf(&mut bytes).await? {
                0 if bytes.is_empty() => return Ok(None),
                0 => return Err(bad("the head is cut short")),
                _ => {}
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let field = |name: &str| {
            let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let length = match field("content-length") {
            None => 0,
            Some(text) => text.parse().ok().filter(|length| *length <= BODY_BYTES).ok_or_else(|| bad("bad length"))?,
        };
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let mut body = bytes.split_off(end + 4);
        while body.len() < length {
            if stream.read_buf(&mut body).await? == 0 {
                return Err(bad("the body is cut short"));
            }
        }
        Ok(Some(Self {
            method: words.next().unwrap_or_default().to_owned(),
            path: words.next().unwrap_or_default().to_owned(),
            id: field(ID_HEADER).unwrap_or("nobody").to_owned(),
            body,
        }))
    }
}
