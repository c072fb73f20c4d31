//! Ten minutes of everything at once (BG_SOAK=1; a quarter of a minute else): no error, and memory that stays where it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request};
use serde_json::json;
use tests::{Load, Proxy, client, eventually, is_soak, load, measured, proxy_program, upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::programs::PROGRAMS;

/// What the visitors beside the usual load share.
struct Crowd {
    proxy: std::net::SocketAddr,
    stop: AtomicBool,
    streams: AtomicU64,
    messages: AtomicU64,
    left: AtomicU64,
}

impl Crowd {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Requests on streams of one connection of HTTP/2 after the other.
async fn http2_visitor(crowd: Arc<Crowd>) -> Result<(), String> {
    let words = |error: h2::Error| error.to_string();
    while crowd.goes_on() {
        let socket = TcpStream::connect(crowd.proxy).await.map_err(|error| error.to_string())?;
        let (sender, connection) = h2::client::handshake(socket).await.map_err(words)?;
        let driver = tokio::spawn(connection);
        for number in 0..200 {
            let request = Request::builder().method(if number % 4 == 0 { Method::POST } else { Method::GET });
            let request = request.uri("http://shop.test/").body(()).unwrap();
            let mut ready = sender.clone().ready().await.map_err(words)?;
            let (answer, mut stream) = ready.send_request(request, number % 4 != 0).map_err(words)?;
            if number % 4 == 0 {
                stream.send_data(Bytes::from(vec![b'x'; 30_000]), true).map_err(words)?;
            }
            if number % 50 == 49 {
                // Now and then one is given up.
                stream.send_reset(h2::Reason::CANCEL);
                continue;
            }
            let mut answer = answer.await.map_err(words)?;
            while let Some(data) = answer.body_mut().data().await {
                let data = data.map_err(words)?;
                answer.body_mut().flow_control().release_capacity(data.len()).map_err(words)?;
            }
            if answer.status() != 200 {
                return Err(answer.status().to_string());
            }
            crowd.streams.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        driver.abort();
    }
    Ok(())
}

/// WebSockets, each of which says a hundred things.
async fn talker(crowd: Arc<Crowd>) -> Result<(), String> {
    while crowd.goes_on() {
        let socket = TcpStream::connect(crowd.proxy).await.map_err(|error| error.to_string())?;
        let opened = tokio_tungstenite::client_async("ws://chat.test/", socket).await;
        let (mut socket, _) = opened.map_err(|error| error.to_string())?;
        for number in 0..100 {
            let said = Message::text(format!("{number}"));
            socket.send(said.clone()).await.map_err(|error| error.to_string())?;
            let heard = socket.next().await.ok_or("closed")?.map_err(|error| error.to_string())?;
            if heard != said {
                return Err(format!("{heard} in the place of {said}"));
            }
            crowd.messages.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        socket.close(None).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Clients that leave in the middle: of a head, of a body, of an answer.
async fn leaver(crowd: Arc<Crowd>) -> Result<(), String> {
    let halves = [
        "GET / HTTP/1.1\r\nHost: sh",
        "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 50000\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "GET /stream/50/20 HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        "GET /slow/2000 HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        "GARBAGE\r\n\r\n",
    ];
    for half in halves.iter().cycle() {
        if !crowd.goes_on() {
            break;
        }
        let mut socket = TcpStream::connect(crowd.proxy).await.map_err(|error| error.to_string())?;
        socket.write_all(half.as_bytes()).await.map_err(|error| error.to_string())?;
        tokio::time::sleep(Duration::from_millis(30)).await;
        // Half of them with a reset.
        if crowd.left.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            socket.set_zero_linger().map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// A WebSocket server that sends back what it gets, and answers probes.
async fn chat() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut start = [0; 1024];
                let length = socket.peek(&mut start).await?;
                if start[..length].windows(14).any(|words| words == b"bgproxy-health") {
                    _ = socket.read(&mut start).await?;
                    return socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                }
                if let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await {
                    while let Some(Ok(message)) = socket.next().await {
                        if !message.is_text() || socket.send(message).await.is_err() {
                            break;
                        }
                    }
                }
                Ok(())
            });
        }
    });
    address
}

fn median(sizes: &[usize]) -> usize {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    sizes[sizes.len() / 2]
}

async fn start(folder: &std::path::Path) -> Proxy {
    let log = folder.join("access.log");
    let config = format!("[log]\naccess = \"json\"\naccess_file = \"{}\"\n", log.display());
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(&config);
    proxy.start().await;
    proxy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_traffic_with_flips_ends_without_an_error_and_with_flat_memory() {
    let (whole, every) = if is_soak() { (600, 10) } else { (15, 3) };
    let (whole, every) = (Duration::from_secs(whole), Duration::from_secs(every));
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(folder.path()).await;
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    proxy.serve("shop", blue.address()).await;
    proxy.serve("chat", chat().await).await;
    let pause = Duration::from_millis(40);
    let visitors = Load { keep_alive: 16, fresh: 8, posts: 8, slow: 4, streams: 4, pause, ..Load::default() };
    let running = load(proxy.address(), visitors);
    let crowd = Arc::new(Crowd {
        proxy: proxy.address(),
        stop: AtomicBool::new(false),
        streams: AtomicU64::new(0),
        messages: AtomicU64::new(0),
        left: AtomicU64::new(0),
    });
    let mut others = JoinSet::new();
    for _ in 0..4 {
        others.spawn(http2_visitor(Arc::clone(&crowd)));
        others.spawn(talker(Arc::clone(&crowd)));
        others.spawn(leaver(Arc::clone(&crowd)));
    }
    let (began, mut flips, mut sizes) = (Instant::now(), 0, Vec::new());
    while began.elapsed() < whole {
        let until = Instant::now() + every;
        let new = if flips % 2 == 0 { &green } else { &blue };
        let staged = proxy.stage("shop", new.address()).await;
        assert_eq!(staged["event"], "healthy", "{staged}");
        assert_eq!(proxy.flip("shop").await.status, 200);
        flips += 1;
        while Instant::now() < until {
            sizes.push(proxy.resident_bytes());
            let so_far = running.so_far();
            assert_eq!(so_far.failed, 0, "{:?}", so_far.failures);
            if let Some(ended) = others.try_join_next() {
                panic!("a visitor ended: {:?}", ended.unwrap());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
    let verdict = running.stop().await;
    crowd.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = others.join_next().await {
        ended.unwrap().unwrap();
    }
    verdict.assert_none_failed();
    // The first fifth is for pools, pages and connections to come to their size.
    let fifth = sizes.len() / 5;
    let (early, late) = (median(&sizes[fifth..2 * fifth]), median(&sizes[4 * fifth..]));
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (streams, messages, left) = (load(&crowd.streams), load(&crowd.messages), load(&crowd.left));
    measured(
        "soak",
        &format!(
            "{} s, {flips} flips: {} requests, {streams} streams of HTTP/2, {messages} WebSocket messages, {left} clients \
             that left, no error; {} KiB, then {} KiB",
            began.elapsed().as_secs(),
            verdict.total,
            early >> 10,
            late >> 10
        ),
    );
    assert!(streams > 100 && messages > 100 && left > 100, "{streams} streams, {messages} messages, {left} left");
    let allowed = early / 10 + (2 << 20);
    assert!(late <= early + allowed, "memory grew from {early} to {late} bytes");
    // Nothing is left behind by whoever left.
    eventually("nothing is in flight", async || {
        let status = proxy.call("GET", "/v1/services/shop", json!({})).await;
        let slots = &status.lines[0]["slots"];
        let in_flight = |slot: &str| slots[slot]["in_flight"].as_u64().unwrap();
        (in_flight("blue") + in_flight("green") == 0).then_some(())
    })
    .await;
    let mut visitor = client(proxy.address()).await.unwrap();
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
}
