//! HTTP/2 frame by frame: what no honest client sends, floods, and how connections end.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::{Behaviour, Proxy, Upstream, eventually, proxy_program, upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::programs::PROGRAMS;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PATIENCE: Duration = Duration::from_secs(15);

async fn site(config: &str) -> (Proxy, Upstream) {
    let app = upstream("v1").await;
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(config);
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    (proxy, app)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as HPACK literals that nobody remembers (RFC 7541 section 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn get(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let own = [(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", path)];
    block(&[&own[..], more].concat())
}

/// A connection whose preface and settings are sent.
async fn connect(proxy: &Proxy) -> TcpStream {
    let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    socket.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    socket
}

/// The next frame of that kind: its flags, its stream, its payload; none where the connection ends before.
async fn next(socket: &mut TcpStream, kind: u8) -> Option<(u8, u32, Vec<u8>)> {
    let read = async {
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            socket.read_exact(&mut payload).await.ok()?;
            if head[3] == kind {
                return Some((head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("no frame of kind {kind} came"))
}

async fn is_served(proxy: &Proxy) {
    let mut socket = connect(proxy).await;
    socket.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/", &[]))).await.unwrap();
    assert!(next(&mut socket, HEADERS).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_http_2_forbids_is_reset_and_the_connection_goes_on() {
    let (proxy, app) = site("").await;
    let before = app.seen_count();
    let mut socket = connect(&proxy).await;
    let own = |method, path| [(":method", method), (":scheme", "http"), (":authority", "shop.test"), (":path", path)];
    let forbidden: Vec<Vec<u8>> = vec![
        get("/1", &[("connection", "close")]),
        get("/2", &[("transfer-encoding", "chunked")]),
        get("/3", &[("upgrade", "h2c")]),
        get("/4", &[("te", "gzip")]),
        get("/6", &[(":path", "/twice")]),
        block(&[("x", "1"), (":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/7")]),
        block(&own("GET", "/8")[..3]),
    ];
    let count = u32::try_from(forbidden.len()).unwrap();
    for (number, fields) in forbidden.iter().enumerate() {
        let stream = u32::try_from(number).unwrap() * 2 + 1;
        socket.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, stream, fields)).await.unwrap();
        let (_, reset, reason) = next(&mut socket, RST_STREAM).await.unwrap_or_else(|| panic!("closed: {number}"));
        assert_eq!((reset, reason), (stream, vec![0, 0, 0, 1]), "a PROTOCOL_ERROR: {number}");
    }
    // A CONNECT that is no WebSocket is answered; it has no path.
    let connect = block(&[(":method", "CONNECT"), (":authority", "shop.test:443")]);
    socket.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * count + 1, &connect)).await.unwrap();
    assert!(next(&mut socket, HEADERS).await.is_some());
    socket.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * count + 3, &get("/good", &[]))).await.unwrap();
    assert!(next(&mut socket, HEADERS).await.is_some());
    // A name in upper case can't even be read: it costs the connection.
    let mut socket = self::connect(&proxy).await;
    let fields = get("/upper", &[("Upper", "case")]);
    socket.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields)).await.unwrap();
    assert!(next(&mut socket, GOAWAY).await.is_some());
    let seen: Vec<String> = app.seen_from(before).into_iter().map(|seen| seen.first_line).collect();
    assert_eq!(seen.iter().filter(|line| !line.starts_with("GET / ")).collect::<Vec<_>>(), ["GET /good HTTP/1.1"]);
}

/// A client that makes us reset one stream after the other means it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_faults_reset_many_streams_loses_its_connection() {
    let (proxy, _app) = site("").await;
    let mut socket = connect(&proxy).await;
    let wrong = get("/", &[("connection", "close")]);
    let mut resets = 0;
    for number in 0..200 {
        if socket.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, number * 2 + 1, &wrong)).await.is_err()
            || next(&mut socket, RST_STREAM).await.is_none()
        {
            break;
        }
        resets += 1;
    }
    assert!((120..=130).contains(&resets), "{resets} streams were reset");
    is_served(&proxy).await;
}

/// RFC 9113 section 10.5: each kind of flood is held back or ended, and costs others nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_cost_little_memory_and_nobody_else_anything() {
    let (proxy, _app) = site("").await;
    is_served(&proxy).await;
    let before = proxy.resident_bytes();
    let long_block = frame(CONTINUATION, 0, 1, &[0; 16 * 1024]);
    let floods: [(&str, Vec<u8>, Vec<u8>); 5] = [
        ("CONTINUATION", frame(HEADERS, END_STREAM, 1, &get("/", &[])), long_block),
        ("empty CONTINUATION", frame(HEADERS, END_STREAM, 1, &get("/", &[])), frame(CONTINUATION, 0, 1, &[])),
        ("SETTINGS", Vec::new(), frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("PING", Vec::new(), frame(PING, 0, 0, &[7; 8])),
        ("unknown frames", Vec::new(), frame(0x42, 0, 0, &[0; 1024])),
    ];
    for (name, begin, flood) in floods {
        let mut socket = connect(&proxy).await;
        socket.write_all(&begin).await.unwrap();
        let piece = flood.repeat(64 * 1024 / flood.len() + 1);
        // It reads nothing: either the connection is ended, or it is held back.
        let flooding = async {
            let mut sent = 0;
            while sent < 64 << 20 && socket.write_all(&piece).await.is_ok() {
                sent += piece.len();
            }
            sent
        };
        let sent = timeout(Duration::from_secs(2), flooding).await;
        is_served(&proxy).await;
        let grown = proxy.resident_bytes().saturating_sub(before);
        assert!(grown < 8 << 20, "{name}: {grown} bytes more after {sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_list_beyond_the_limit_is_431_or_the_end_and_never_forwarded() {
    let (proxy, app) = site("").await;
    let before = app.seen_count();
    let mut socket = connect(&proxy).await;
    let value = "x".repeat(120);
    // 1,000 fields of 120 bytes, by HPACK's reckoning 160 each: beyond 64 KiB.
    let fields = get("/large", &vec![("a", value.as_str()); 1000]);
    let mut pieces = fields.chunks(16 * 1024).peekable();
    let mut kind = HEADERS;
    while let Some(piece) = pieces.next() {
        let ends = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        let flags = if kind == HEADERS { ends | END_STREAM } else { ends };
        if socket.write_all(&frame(kind, flags, 1, piece)).await.is_err() {
            break;
        }
        kind = CONTINUATION;
    }
    if let Some((_, _, answer)) = next(&mut socket, HEADERS).await {
        // `:status` as a literal after the indexed name 8, or in Huffman's code: 431 is in no static table.
        assert!(answer.first() != Some(&0x88), "200: {answer:?}");
    }
    assert_eq!(app.seen_from(before).iter().filter(|seen| seen.head.contains("/large")).count(), 0);
    is_served(&proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_told_before_it_ends_and_pings_keep_it_no_longer() {
    let (proxy, _app) = site("[limits]\nidle_timeout = \"1s\"\n").await;
    let mut socket = connect(&proxy).await;
    socket.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/", &[]))).await.unwrap();
    assert!(next(&mut socket, HEADERS).await.is_some());
    let began = Instant::now();
    let (mut read, mut write) = socket.split();
    let pings = async {
        while write.write_all(&frame(PING, 0, 0, &[7; 8])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let told = async {
        let mut kinds = Vec::new();
        let mut head = [0; 9];
        while read.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; usize::from(head[2])];
            read.read_exact(&mut payload).await.unwrap();
            kinds.push(head[3]);
        }
        kinds
    };
    let kinds = tokio::select! {
        kinds = timeout(PATIENCE, told) => kinds.unwrap(),
        () = async { pings.await; std::future::pending().await } => unreachable!(),
    };
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_ends_its_stream_though_the_client_pings() {
    let (proxy, app) = site("[limits]\nbody_idle_timeout = \"1s\"\n").await;
    app.behave(Behaviour::Echo);
    let mut socket = connect(&proxy).await;
    let post = [(":method", "POST"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/slow")];
    socket.write_all(&frame(HEADERS, END_HEADERS, 1, &block(&post))).await.unwrap();
    let began = Instant::now();
    let (mut read, mut write) = socket.split();
    let pings = async {
        while write.write_all(&frame(PING, 0, 0, &[7; 8])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ended = async {
        let mut head = [0; 9];
        loop {
            read.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[2])];
            read.read_exact(&mut payload).await.unwrap();
            if head[3] == RST_STREAM || head[3] == HEADERS {
                return head[3];
            }
        }
    };
    tokio::select! {
        ended = timeout(PATIENCE, ended) => drop(ended.unwrap()),
        () = async { pings.await; std::future::pending().await } => unreachable!(),
    }
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    is_served(&proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_of_the_process_a_stream_under_way_is_finished_and_the_client_told() {
    let (mut proxy, app) = site("").await;
    let mut socket = connect(&proxy).await;
    socket.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/slow/500", &[]))).await.unwrap();
    eventually("it is under way", async || (app.unanswered() == 1).then_some(())).await;
    proxy.signal(Signal::TERM);
    assert!(next(&mut socket, GOAWAY).await.is_some());
    // The answer to our ping lets the server close; the stream is answered before.
    let (_, stream, _) = next(&mut socket, HEADERS).await.unwrap();
    assert_eq!(stream, 1);
    drop(socket);
    assert_eq!(proxy.ended().await, Some(0));
}
