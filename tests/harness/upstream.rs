//! A fake application on raw sockets, which behaves and misbehaves as the test asks.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::message::{self, Kind, Message};

/// What the fake does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers 200 with its version: a target `/slow/MS` that many milliseconds later, a target `/stream/PIECES/MS` so
    /// many times over, in pieces that far apart.
    Answer,
    /// Answers with that status.
    Status(u16),
    /// Answers with that status each so many requests, else with 200.
    Sometimes {
        /// The status.
        status: u16,
        /// One in how many.
        one_in: usize,
    },
    /// Sends elsewhere with a 302.
    Redirect(&'static str),
    /// Answers 200 with the request's body.
    Echo,
    /// Answers 200 with so many bytes.
    Large(usize),
    /// Answers as `HTTP/1.0` without a length, and closes.
    Http10,
    /// Answers 200 with its version that much later.
    Late(Duration),
    /// Sends its answer in pieces, with a pause before each.
    Slow {
        /// How many pieces.
        pieces: usize,
        /// The pause.
        pause: Duration,
    },
    /// Promises more of a body than it sends, and closes.
    Cut,
    /// Answers with these bytes, and closes.
    Raw(&'static str),
    /// Answers with that status before it has read a request's body, and closes.
    Early(u16),
    /// Answers `100 Continue` before it reads a request's body, and then 200.
    Continue,
    /// Reads the request and never answers.
    Hang,
    /// Reads the request and closes.
    Close,
    /// Answers the first request of a connection, reads the second and closes, as if it had timed the connection out.
    Once,
    /// Reads the request and resets the connection.
    Reset,
}

/// A request that arrived whole.
#[derive(Debug, Clone)]
pub struct Seen {
    /// As in `GET /path HTTP/1.1`.
    pub first_line: String,
    /// The first line and all fields.
    pub head: String,
    /// Its `X-Load-Id`, where it has one.
    pub id: Option<String>,
    /// How long its body was.
    pub body_bytes: usize,
    /// When it had arrived whole.
    pub at: std::time::Instant,
}

/// A fake application; it ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    version: String,
    behaviour: Mutex<Behaviour>,
    /// What it does with requests for one target.
    special: Mutex<Option<(String, Behaviour)>>,
    seen: Mutex<Vec<Seen>>,
    ledger: Mutex<Option<File>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    /// Requests that arrived whole and whose answers' last bytes are not yet being written.
    unanswered: AtomicUsize,
}

/// Starts a fake application that answers with its version, on a free port.
pub async fn upstream(version: &str) -> Upstream {
    upstream_at((Ipv4Addr::LOCALHOST, 0).into(), version).await
}

/// Starts a fake application at an address.
pub async fn upstream_at(address: SocketAddr, version: &str) -> Upstream {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(State {
        version: version.to_owned(),
        behaviour: Mutex::new(Behaviour::Answer),
        special: Mutex::default(),
        seen: Mutex::default(),
        ledger: Mutex::default(),
        connections: AtomicUsize::new(0),
        open: AtomicUsize::new(0),
        unanswered: AtomicUsize::new(0),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let state = state.clone();
        async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                state.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(socket, state.clone()));
            }
        }
    });
    Upstream { address, state, _tasks: tasks }
}

impl Upstream {
    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Notes the id and the method of each request whose head has come, a line each, at the end of a file that outlives it.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn keep_ledger(&self, path: &Path) -> std::io::Result<()> {
        *self.state.ledger.lock().unwrap() = Some(OpenOptions::new().create(true).append(true).open(path)?);
        Ok(())
    }

    /// Changes what it does with requests from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    /// Changes what it does with requests for one target.
    pub fn behave_for(&self, target: &str, behaviour: Behaviour) {
        *self.state.special.lock().unwrap() = Some((target.to_owned(), behaviour));
    }

    /// Returns every request that arrived whole, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen_from(0)
    }

    /// Returns the requests that arrived whole, without the first so many.
    pub fn seen_from(&self, first: usize) -> Vec<Seen> {
        self.state.seen.lock().unwrap()[first..].to_vec()
    }

    /// Returns how many requests arrived whole.
    pub fn seen_count(&self) -> usize {
        self.state.seen_count()
    }

    /// Returns how many connections it was sent.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Returns how many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Returns how many requests arrived whole and have not been sent the end of their answers.
    pub fn unanswered(&self) -> usize {
        self.state.unanswered.load(Ordering::SeqCst)
    }
}

/// A request without the end of its answer.
struct Unanswered<'a>(&'a AtomicUsize);

impl<'a> Unanswered<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }

    /// Writes the end of the answer. It counts as answered from before the first of these bytes, so that whoever has seen
    /// them never finds the request unanswered.
    async fn finish(self, socket: &mut OwnedWriteHalf, bytes: &[u8]) -> std::io::Result<()> {
        drop(self);
        socket.write_all(bytes).await
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection counts as open until one side has ended it.
struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(socket: TcpStream, state: Arc<State>) {
    state.open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(&state.open);
    let (mut reader, mut writer) = socket.into_split();
    serve_requests(&mut reader, &mut writer, &state).await;
    // Else the end of the connection would be said before its reset.
    writer.forget();
}

async fn serve_requests(reader: &mut OwnedReadHalf, writer: &mut OwnedWriteHalf, state: &State) {
    let mut buffer = Vec::new();
    let mut is_first = true;
    // What the other side does to the connection is for the test's client to judge.
    while let Ok(Some(mut request)) = message::read_head(reader, &mut buffer).await {
        state.write_ledger(&request);
        let target = request.first_line().split(' ').nth(1).unwrap_or_default();
        let special = state
            .special
            .lock()
            .unwrap()
            .clone()
            .filter(|(of, _)| of == target || target.split('?').next() == Some(of))
            .map(|(_, behaviour)| behaviour);
        let behaviour = match special.unwrap_or_else(|| state.behaviour.lock().unwrap().clone()) {
            Behaviour::Once if std::mem::take(&mut is_first) => Behaviour::Answer,
            Behaviour::Sometimes { status, one_in } if state.seen_count().is_multiple_of(one_in) => {
                Behaviour::Status(status)
            }
            behaviour => behaviour,
        };
        if let Behaviour::Early(status) = behaviour {
            state.note(&request);
            drop(answer_early(reader, writer, status).await);
            return;
        }
        if behaviour == Behaviour::Continue && writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
            return;
        }
        if message::read_body(reader, &mut buffer, Kind::Request, &mut request).await.is_err() {
            return;
        }
        let unanswered = Unanswered::new(&state.unanswered);
        state.note(&request);
        let goes_on = tokio::select! {
            goes_on = answer(writer, &state.version, &request, behaviour, unanswered) => goes_on.unwrap_or(false),
            // Whoever closes a connection does not want the answer on it.
            () = gone(reader) => false,
        };
        if !goes_on || request.has_token("connection", "close") {
            return;
        }
    }
}

/// Answers before the request's body was read, and then takes what still comes: a reset would take the answer away.
async fn answer_early(reader: &mut OwnedReadHalf, writer: &mut OwnedWriteHalf, status: u16) -> std::io::Result<()> {
    let answer = format!("HTTP/1.1 {status} Fake\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
    writer.write_all(answer.as_bytes()).await?;
    writer.shutdown().await?;
    tokio::io::copy(reader, &mut tokio::io::sink()).await.map(drop)
}

/// Ends when the other side has closed the connection.
async fn gone(reader: &OwnedReadHalf) {
    let mut byte = [0];
    loop {
        match reader.as_ref().peek(&mut byte).await {
            Ok(0) | Err(_) => return,
            // The next request is here already: then it is not gone.
            Ok(_) => std::future::pending().await,
        }
    }
}

impl State {
    fn seen_count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn write_ledger(&self, request: &Message) {
        let (ledger, id) = (self.ledger.lock().unwrap(), request.field("x-load-id"));
        if let (Some(mut ledger), Some(id)) = (ledger.as_ref(), id) {
            let method = request.first_line().split(' ').next().unwrap_or_default();
            // One write, so that lines of several applications don't mix.
            ledger.write_all(format!("{id} {method}\n").as_bytes()).unwrap();
        }
    }

    fn note(&self, request: &Message) {
        self.seen.lock().unwrap().push(Seen {
            first_line: request.first_line().to_owned(),
            head: request.head.clone(),
            id: request.field("x-load-id").map(str::to_owned),
            body_bytes: request.body.len(),
            at: std::time::Instant::now(),
        });
    }
}

/// Answers one request; false where the connection ends with it.
async fn answer(
    socket: &mut OwnedWriteHalf,
    version: &str,
    request: &Message,
    behaviour: Behaviour,
    unanswered: Unanswered<'_>,
) -> std::io::Result<bool> {
    let id = request.field("x-load-id").unwrap_or("none");
    let fields = format!("X-Version: {version}\r\nX-Load-Id: {id}\r\nX-Body-Bytes: {}\r\n", request.body.len());
    let whole = |status: u16, more: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status} Fake\r\n{fields}{more}Content-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let bytes = match asked(request, behaviour) {
        // Whose turn it is to fail was decided when the request came.
        Behaviour::Answer | Behaviour::Sometimes { .. } => whole(200, "", version.as_bytes()),
        Behaviour::Status(status) => whole(status, "", version.as_bytes()),
        Behaviour::Redirect(target) => whole(302, &format!("Location: {target}\r\n"), b""),
        Behaviour::Echo | Behaviour::Continue => whole(200, "", &request.body),
        Behaviour::Large(bytes) => whole(200, "", &vec![b'x'; bytes]),
        Behaviour::Late(pause) => {
            tokio::time::sleep(pause).await;
            whole(200, "", version.as_bytes())
        }
        Behaviour::Slow { pieces, pause } => {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n");
            socket.write_all(head.as_bytes()).await?;
            for _ in 0..pieces {
                tokio::time::sleep(pause).await;
                socket.write_all(format!("{:x}\r\n{version}\r\n", version.len()).as_bytes()).await?;
            }
            b"0\r\n\r\n".to_vec()
        }
        Behaviour::Http10 => {
            let answer = format!("HTTP/1.0 200 OK\r\n{fields}\r\n{version}");
            unanswered.finish(socket, answer.as_bytes()).await?;
            return Ok(false);
        }
        Behaviour::Cut => {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", version.len() + 100);
            unanswered.finish(socket, format!("{head}{version}").as_bytes()).await?;
            return Ok(false);
        }
        Behaviour::Raw(bytes) => {
            unanswered.finish(socket, bytes.as_bytes()).await?;
            return Ok(false);
        }
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Close | Behaviour::Once | Behaviour::Early(_) => return Ok(false),
        Behaviour::Reset => {
            socket.as_ref().set_zero_linger()?;
            return Ok(false);
        }
    };
    unanswered.finish(socket, &bytes).await?;
    Ok(true)
}

/// Returns what to do with a request: as the test said, or, where it only said to answer, as the target asks.
fn asked(request: &Message, behaviour: Behaviour) -> Behaviour {
    if behaviour != Behaviour::Answer {
        return behaviour;
    }
    let target = request.first_line().split(' ').nth(1).unwrap_or_default();
    let numbers: Vec<u64> = target.split('/').skip(2).filter_map(|number| number.parse().ok()).collect();
    match (target.split('/').nth(1), numbers.as_slice()) {
        (Some("slow"), [millis]) => Behaviour::Late(Duration::from_millis(*millis)),
        (Some("stream"), [pieces, millis]) => {
            let pieces = usize::try_from(*pieces).unwrap();
            Behaviour::Slow { pieces, pause: Duration::from_millis(*millis) }
        }
        _ => Behaviour::Answer,
    }
}
