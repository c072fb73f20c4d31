//! A fake application on raw sockets, which behaves and misbehaves as the test asks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::message::{self, Kind, Message};

/// What the fake does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers 200 with its version; a target `/slow/MS` that many milliseconds later.
    Answer,
    /// Answers with that status.
    Status(u16),
    /// Answers 200 with the request's body.
    Echo,
    /// Answers as `HTTP/1.0` without a length, and closes.
    Http10,
    /// Sends its answer in pieces, with a pause before each.
    Slow {
        /// How many pieces.
        pieces: usize,
        /// The pause.
        pause: Duration,
    },
    /// Promises more of a body than it sends, and closes.
    Cut,
    /// Reads the request and never answers.
    Hang,
    /// Reads the request and closes.
    Close,
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
    seen: Mutex<Vec<Seen>>,
}

/// Starts a fake application that answers with its version.
pub async fn upstream(version: &str) -> Upstream {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(State {
        version: version.to_owned(),
        behaviour: Mutex::new(Behaviour::Answer),
        seen: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let state = state.clone();
        async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
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

    /// Changes what it does with requests from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    /// Returns every request that arrived whole, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }
}

async fn serve(mut socket: TcpStream, state: Arc<State>) {
    let mut buffer = Vec::new();
    // What the other side does to the connection is for the test's client to judge.
    while let Ok(Some(request)) = message::read(&mut socket, &mut buffer, Kind::Request).await {
        let behaviour = state.behaviour.lock().unwrap().clone();
        state.seen.lock().unwrap().push(Seen {
            first_line: request.first_line().to_owned(),
            head: request.head.clone(),
            id: request.field("x-load-id").map(str::to_owned),
            body_bytes: request.body.len(),
            at: std::time::Instant::now(),
        });
        let goes_on = answer(&mut socket, &state.version, &request, behaviour).await;
        if !goes_on.unwrap_or(false) || request.has_token("connection", "close") {
            return;
        }
    }
}

/// Answers one request; false where the connection ends with it.
async fn answer(
    socket: &mut TcpStream,
    version: &str,
    request: &Message,
    behaviour: Behaviour,
) -> std::io::Result<bool> {
    let id = request.field("x-load-id").unwrap_or("none");
    let fields = format!("X-Version: {version}\r\nX-Load-Id: {id}\r\nX-Body-Bytes: {}\r\n", request.body.len());
    let whole = |status: u16, body: &[u8]| {
        let head = format!("HTTP/1.1 {status} Fake\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    match behaviour {
        Behaviour::Answer => {
            let target = request.first_line().split(' ').nth(1).unwrap_or_default();
            if let Some(Ok(millis)) = target.strip_prefix("/slow/").map(str::parse) {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            socket.write_all(&whole(200, version.as_bytes())).await?;
        }
        Behaviour::Status(status) => socket.write_all(&whole(status, version.as_bytes())).await?,
        Behaviour::Echo => socket.write_all(&whole(200, &request.body)).await?,
        Behaviour::Http10 => {
            socket.write_all(format!("HTTP/1.0 200 OK\r\n{fields}\r\n{version}").as_bytes()).await?;
            return Ok(false);
        }
        Behaviour::Slow { pieces, pause } => {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n");
            socket.write_all(head.as_bytes()).await?;
            for _ in 0..pieces {
                tokio::time::sleep(pause).await;
                socket.write_all(format!("{:x}\r\n{version}\r\n", version.len()).as_bytes()).await?;
            }
            socket.write_all(b"0\r\n\r\n").await?;
        }
        Behaviour::Cut => {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", version.len() + 100);
            socket.write_all(format!("{head}{version}").as_bytes()).await?;
            return Ok(false);
        }
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Close => return Ok(false),
        Behaviour::Reset => {
            socket.set_zero_linger()?;
            return Ok(false);
        }
    }
    Ok(true)
}
