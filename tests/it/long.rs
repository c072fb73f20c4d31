//! S6: WebSockets, event streams and downloads stay on the old slot until they end or the drain deadline, and end there as they
//! should.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tests::{Behaviour, Proxy, client, eventually, is_soak, measured, proxy, upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// An application of WebSockets that says its version to whatever it is told; with the codes that it was closed with.
async fn chat(version: &'static str) -> (SocketAddr, Arc<Mutex<Vec<u16>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let codes = Arc::new(Mutex::new(Vec::new()));
    let seen = codes.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    match message {
                        Message::Text(text) => {
                            let told = socket.send(Message::text(format!("{version}: {text}"))).await;
                            told.unwrap();
                        }
                        Message::Close(close) => {
                            seen.lock().unwrap().push(close.map_or(1005, |close| close.code.into()));
                        }
                        _ => {}
                    }
                }
            });
        }
    });
    (address, codes)
}

async fn stage_unprobed(proxy: &Proxy, address: SocketAddr) {
    let body = json!({
        "endpoints": [address], "health": { "enabled": false }, "settings": { "domains": ["shop.test"] },
    });
    assert_eq!(proxy.call("POST", "/v1/services/shop/stage", body).await.status, 200);
}

async fn serve_unprobed(proxy: &Proxy, address: SocketAddr, flip: Value) {
    stage_unprobed(proxy, address).await;
    assert_eq!(proxy.call("POST", "/v1/services/shop/flip", flip).await.status, 200);
}

async fn open(proxy: &Proxy) -> WebSocketStream<TcpStream> {
    let socket = TcpStream::connect(proxy.address()).await.unwrap();
    tokio_tungstenite::client_async("ws://shop.test/", socket).await.unwrap().0
}

async fn say(socket: &mut WebSocketStream<TcpStream>, word: &str) -> String {
    socket.send(Message::text(word)).await.unwrap();
    socket.next().await.unwrap().unwrap().into_text().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_stay_on_the_old_slot_to_the_deadline_and_are_closed_with_a_handshake_one_after_the_other() {
    let count = if is_soak() { 1_000 } else { 200 };
    let (blue, codes) = chat("blue").await;
    let (green, _) = chat("green").await;
    let proxy = proxy();
    serve_unprobed(&proxy, blue, json!({})).await;
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(open(&proxy).await);
    }
    serve_unprobed(&proxy, green, json!({ "drain": "1s" })).await;
    let flipped = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut socket in sockets {
        tasks.spawn(async move {
            assert_eq!(say(&mut socket, "hello").await, "blue: hello");
            // Answering it is what a client's library does by itself.
            let Some(Ok(Message::Close(Some(close)))) = socket.next().await else { panic!("no close") };
            let at = flipped.elapsed();
            assert_eq!(close.code, CloseCode::Restart);
            assert!(socket.next().await.is_none(), "something came after the close");
            at
        });
    }
    let status = proxy.call("GET", "/v1/services/shop", json!({})).await.lines.remove(0);
    assert_eq!(status["slots"]["blue"]["long_lived"]["count"], count, "{status}");
    assert_eq!(say(&mut open(&proxy).await, "hello").await, "green: hello");
    let drained = proxy.drain("shop").await;
    let counts = &drained["counts"];
    assert_eq!((&counts["closed"], &counts["cut"]), (&json!(count), &json!(0)), "{drained}");
    let mut closed: Vec<Duration> = tasks.join_all().await;
    closed.sort();
    let (first, last) = (closed[0], closed[closed.len() - 1]);
    assert!(first >= Duration::from_secs(1), "{first:?}");
    assert!(last - first > Duration::from_millis(500), "all at once: {first:?} to {last:?}");
    let told = async || (codes.lock().unwrap().iter().filter(|code| **code == 1001).count() == count).then_some(());
    eventually("the application is told of each", told).await;
    measured("tunnels_over_a_flip", &format!("{count} tunnels closed from {first:?} to {last:?} after the flip"));
}

/// An application on raw bytes: what it is to send comes from the test.
async fn raw(head: &'static str) -> (SocketAddr, tokio::sync::mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut read = String::new();
                while !read.ends_with("\r\n\r\n") {
                    read.push(char::from(socket.read_u8().await.unwrap()));
                }
                socket.write_all(head.as_bytes()).await.unwrap();
                sender.send(socket).await.unwrap();
            });
        }
    });
    (address, receiver)
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const ASK: &str = "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Opens a tunnel to a raw application: the visitor's end behind the answer's head, and the application's.
async fn open_raw(proxy: &Proxy, sockets: &mut tokio::sync::mpsc::Receiver<TcpStream>) -> (TcpStream, TcpStream) {
    let mut visitor = TcpStream::connect(proxy.address()).await.unwrap();
    visitor.write_all(ASK.as_bytes()).await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(visitor.read_u8().await.unwrap()));
    }
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    (visitor, sockets.recv().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_under_way_is_finished_before_the_close_and_a_client_that_does_not_answer_is_cut() {
    let (blue, mut sockets) = raw(SWITCH).await;
    let green = upstream("green").await;
    let proxy = proxy();
    serve_unprobed(&proxy, blue, json!({})).await;
    let (mut polite, mut application) = open_raw(&proxy, &mut sockets).await;
    let (mut mute, _other) = open_raw(&proxy, &mut sockets).await;
    // Half a frame, and the deadline comes.
    application.write_all(b"\x82\x0a12345").await.unwrap();
    serve_unprobed(&proxy, green.address(), json!({ "drain": "100ms" })).await;
    let mut half = [0; 7];
    polite.read_exact(&mut half).await.unwrap();
    let cutting = eventually("the deadline has come", async || {
        let mut frame = [0; 4];
        tokio::select! {
            read = mute.read_exact(&mut frame) => Some((read.unwrap(), frame)),
            () = tokio::time::sleep(Duration::from_millis(50)) => None,
        }
    });
    assert_eq!(cutting.await.1, *b"\x88\x02\x03\xf4");
    // What the client says meanwhile still arrives, and its Close does not: the application gets ours.
    polite.write_all(b"\x81\x81\0\0\0\0x").await.unwrap();
    application.write_all(b"67890").await.unwrap();
    let mut rest = [0; 9];
    polite.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"67890\x88\x02\x03\xf4");
    application.write_all(b"\x81\x05never").await.unwrap();
    polite.write_all(b"\x88\x82\0\0\0\0\x03\xf4").await.unwrap();
    let mut got = Vec::new();
    application.read_to_end(&mut got).await.unwrap();
    let (frame, close) = got.split_at(7);
    assert_eq!(frame, b"\x81\x81\0\0\0\0x");
    let unmasked: Vec<u8> = close[6..].iter().zip(&close[2..6]).map(|(byte, key)| byte ^ key).collect();
    assert_eq!((&close[..2], unmasked), (&b"\x88\x82"[..], vec![0x03, 0xe9]));
    assert_eq!(polite.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    let drained = proxy.drain("shop").await;
    let counts = &drained["counts"];
    assert_eq!((&counts["closed"], &counts["cut"]), (&json!(1), &json!(1)), "{drained}");
    assert!((5.0..9.0).contains(&drained["seconds"].as_f64().unwrap()), "{drained}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_ends_between_two_events_and_a_download_is_cut_at_a_deadline_of_its_own() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (blue, mut sockets) = raw(head).await;
    let green = upstream("green").await;
    let proxy = proxy();
    serve_unprobed(&proxy, blue, json!({})).await;
    let ask = async || {
        let mut visitor = client(proxy.address()).await.unwrap();
        visitor.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
        visitor
    };
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let mut idle = ask().await;
    let mut from_idle = sockets.recv().await.unwrap();
    from_idle.write_all(chunk("data: 1\n\n").as_bytes()).await.unwrap();
    let mut busy = ask().await;
    let mut from_busy = sockets.recv().await.unwrap();
    from_busy.write_all(chunk("data: 1\n\ndata: half").as_bytes()).await.unwrap();
    serve_unprobed(&proxy, green.address(), json!({ "drain": "100ms", "drain_tunnels": "400ms" })).await;
    let flipped = Instant::now();
    let answer = idle.answer().await.unwrap().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "data: 1\n\n"), "a whole answer");
    assert!(flipped.elapsed() >= Duration::from_millis(400), "{:?}", flipped.elapsed());
    // The event under way is finished first.
    from_busy.write_all(chunk(" an event\n\n").as_bytes()).await.unwrap();
    let answer = busy.answer().await.unwrap().unwrap();
    assert_eq!(answer.text(), "data: 1\n\ndata: half an event\n\n");
    let drained = proxy.drain("shop").await;
    assert_eq!((&drained["counts"]["closed"], &drained["counts"]["cut"]), (&json!(2), &json!(0)), "{drained}");
    // The connection goes on with the new version.
    let again = idle.get("shop.test", "/").await.unwrap().unwrap();
    assert_eq!(again.text(), "green");
    // A download has the deadline of requests.
    green.behave(Behaviour::Slow { pieces: 100, pause: Duration::from_millis(100) });
    let mut download = ask().await;
    eventually("it is under way", async || (green.unanswered() == 1).then_some(())).await;
    serve_unprobed(&proxy, blue, json!({ "drain": "200ms", "drain_tunnels": "1h" })).await;
    let drained = proxy.call("POST", "/v1/services/shop/drain", json!({ "slot": "green" })).await.lines;
    assert_eq!(drained.last().unwrap()["counts"]["cut"], 1, "{drained:?}");
    assert!(download.answer().await.is_err(), "a cut answer does not look like a whole one");
}

/// RFC 6455 section 7.1.1: a client is to close when the server has; one that doesn't keeps neither its tunnel nor its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_whose_application_has_gone_ends_though_its_client_stays() {
    let (blue, mut sockets) = raw(SWITCH).await;
    let proxy = proxy();
    serve_unprobed(&proxy, blue, json!({})).await;
    let (mut visitor, application) = open_raw(&proxy, &mut sockets).await;
    let in_flight =
        async || proxy.call("GET", "/v1/services/shop", json!({})).await.lines[0]["slots"]["blue"]["in_flight"].clone();
    assert_eq!(in_flight().await, 1);
    let began = Instant::now();
    drop(application);
    assert_eq!(visitor.read(&mut [0]).await.unwrap(), 0);
    // What it still says meanwhile is nobody's fault.
    visitor.write_all(b"\x81\x81\0\0\0\0x").await.unwrap();
    eventually("its place is free", async || (in_flight().await == 0).then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// Who has lost the network tells nobody; the kernel asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_client_of_a_tunnel_is_asked_whether_it_is_there() {
    let (blue, mut sockets) = raw(SWITCH).await;
    let proxy = proxy();
    serve_unprobed(&proxy, blue, json!({})).await;
    let (visitor, _application) = open_raw(&proxy, &mut sockets).await;
    let (own, other) = (proxy.address().port(), visitor.local_addr().unwrap().port());
    // Of the proxy's end of the connection, what its timer waits for: 02 is the next question (proc_net_tcp).
    let (own, other) = (format!(":{own:04X}"), format!(":{other:04X}"));
    eventually("the kernel is to ask", async || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row[1].ends_with(&own) && row[2].ends_with(&other))?;
        row[5].starts_with("02:").then_some(())
    })
    .await;
}
