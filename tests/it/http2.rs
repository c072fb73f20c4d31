//! HTTP/2 by prior knowledge, on real sockets: the same answers, the same flips, and each stream for itself.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response};
use serde_json::json;
use tests::{Behaviour, Proxy, Upstream, client, eventually, proxy, upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn site() -> (Proxy, Upstream) {
    let (app, proxy) = (upstream("v1").await, proxy());
    proxy.serve("shop", app.address()).await;
    (proxy, app)
}

/// Connects; the connection is driven by a task of its own, which ends with it.
async fn connect(proxy: &Proxy) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let socket = TcpStream::connect(proxy.address()).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://shop.test{path}")).body(()).unwrap()
}

async fn send(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
    body: Option<Bytes>,
) -> Result<Response<RecvStream>, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let (answer, mut stream) = sender.send_request(request, body.is_none())?;
    if let Some(body) = body {
        stream.send_data(body, true)?;
    }
    answer.await
}

async fn body(answer: &mut Response<RecvStream>) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = answer.body_mut().data().await {
        let data = data?;
        answer.body_mut().flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

async fn get(sender: &SendRequest<Bytes>, path: &str) -> (u16, String) {
    let mut answer = send(sender, request(Method::GET, path), None).await.unwrap();
    let text = String::from_utf8(body(&mut answer).await.unwrap()).unwrap();
    (answer.status().as_u16(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_reaches_the_application_as_http_1_with_its_host_and_one_cookie_field() {
    let (proxy, app) = site().await;
    let (sender, _connection) = connect(&proxy).await;
    let mut asked = request(Method::GET, "/a?b=c");
    for cookie in ["a=1", "b=2", "c=3"] {
        asked.headers_mut().append("cookie", cookie.parse().unwrap());
    }
    asked.headers_mut().insert("te", "trailers".parse().unwrap());
    let mut answer = send(&sender, asked, None).await.unwrap();
    assert_eq!((answer.status().as_u16(), body(&mut answer).await.unwrap()), (200, b"v1".to_vec()));
    for field in ["connection", "keep-alive", "transfer-encoding"] {
        assert!(!answer.headers().contains_key(field), "{field}");
    }
    let head = app.seen().last().unwrap().head.clone();
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\nHost: shop.test\r\n"), "{head}");
    let lower = head.to_lowercase();
    for line in
        ["\r\ncookie: a=1; b=2; c=3\r\n", "\r\nx-forwarded-proto: http\r\n", "\r\nx-forwarded-for: 127.0.0.1\r\n"]
    {
        assert_eq!(lower.matches(line).count(), 1, "{line:?} in {head}");
    }
    assert_eq!(lower.matches("cookie:").count(), 1, "{head}");
    // And HTTP/1 on the same port.
    let mut visitor = client(proxy.address()).await.unwrap();
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
    assert_eq!(get(&sender, "/").await.0, 200);
    let unknown = Request::builder().uri("http://nobody.test/").body(()).unwrap();
    assert_eq!(send(&sender, unknown, None).await.unwrap().status(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_both_ways_with_and_without_a_length() {
    let (proxy, app) = site().await;
    app.behave(Behaviour::Echo);
    let (sender, _connection) = connect(&proxy).await;
    let sent: Vec<u8> = (0..10_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
    for with_length in [true, false] {
        let mut asked = request(Method::POST, "/");
        if with_length {
            asked.headers_mut().insert("content-length", sent.len().into());
        }
        let mut ready = sender.clone().ready().await.unwrap();
        let (answer, mut stream) = ready.send_request(asked, false).unwrap();
        let mut rest = Bytes::from(sent.clone());
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
            let piece = rest.split_to(room.min(rest.len()));
            stream.send_data(piece, rest.is_empty()).unwrap();
        }
        let mut answer = answer.await.unwrap();
        let echoed = body(&mut answer).await.unwrap();
        assert!(echoed == sent, "{} of {} bytes came back", echoed.len(), sent.len());
        let head = app.seen().last().unwrap().head.to_lowercase();
        assert_eq!(head.contains("transfer-encoding: chunked"), !with_length, "{head}");
    }
}

/// S1, S2, S5 for HTTP/2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flips_fail_no_stream_and_close_no_connection() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let (sender, connection) = connect(&proxy).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let visitors: Vec<_> = (0..16)
        .map(|visitor| {
            let (sender, stop) = (sender.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut count, mut failures) = (0, Vec::new());
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let outcome = match visitor % 4 {
                        0 => send(&sender, request(Method::POST, "/"), Some(Bytes::from(vec![b'x'; 20_000]))).await,
                        1 => send(&sender, request(Method::GET, "/stream/5/10"), None).await,
                        _ => send(&sender, request(Method::GET, "/"), None).await,
                    };
                    let outcome = match outcome {
                        Ok(mut answer) if answer.status() == 200 => {
                            body(&mut answer).await.map(drop).map_err(|e| e.to_string())
                        }
                        Ok(answer) => Err(answer.status().to_string()),
                        Err(error) => Err(error.to_string()),
                    };
                    count += 1;
                    failures.extend(outcome.err());
                }
                (count, failures)
            })
        })
        .collect();
    for flip in 1..=20 {
        let new = if flip % 2 == 1 { &green } else { &blue };
        proxy.serve("shop", new.address()).await;
        let drained = proxy.drain("shop").await;
        assert_eq!((&drained["event"], &drained["counts"]["failed"]), (&json!("drained"), &json!(0)), "{drained}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut total = 0;
    for visitor in visitors {
        let (count, failures) = visitor.await.unwrap();
        assert_eq!(failures, Vec::<String>::new());
        total += count;
    }
    assert!(total > 500, "only {total} requests");
    assert!(!connection.is_finished(), "the connection lived through all flips");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_drain_deadline_a_stream_of_the_old_slot_is_cut_and_the_others_go_on() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let (sender, _connection) = connect(&proxy).await;
    let mut old = send(&sender, request(Method::GET, "/stream/1000/50"), None).await.unwrap();
    proxy.stage("shop", green.address()).await;
    let flipped = proxy.call("POST", "/v1/services/shop/flip", json!({ "drain": "300ms" })).await;
    assert_eq!(flipped.lines[0]["in_flight"], 1, "{flipped:?}");
    let drained = proxy.drain("shop").await;
    assert_eq!((&drained["event"], &drained["counts"]["cut"]), (&json!("drained"), &json!(1)), "{drained}");
    assert!(drained["seconds"].as_f64().unwrap() < 1.5, "{drained}");
    assert!(body(&mut old).await.is_err(), "what is cut does not end as if it were whole");
    assert_eq!(get(&sender, "/").await, (200, "green".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_its_client_resets_ends_at_the_application_too() {
    let (proxy, app) = site().await;
    let (sender, _connection) = connect(&proxy).await;
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, mut stream) = ready.send_request(request(Method::GET, "/slow/60000"), true).unwrap();
    let waiting = tokio::spawn(answer);
    eventually("it is under way", async || (app.unanswered() == 1).then_some(())).await;
    let open = app.open_connections();
    let began = Instant::now();
    stream.send_reset(Reason::CANCEL);
    eventually("the application is told", async || (app.open_connections() < open).then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(waiting.await.unwrap().is_err());
    assert_eq!(get(&sender, "/").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_a_reset_stream_and_a_broken_head_a_502() {
    let (proxy, app) = site().await;
    let (sender, _connection) = connect(&proxy).await;
    app.behave(Behaviour::Cut);
    let mut answer = send(&sender, request(Method::GET, "/"), None).await.unwrap();
    assert!(body(&mut answer).await.is_err());
    app.behave(Behaviour::Raw("nonsense\r\n\r\n"));
    assert_eq!(send(&sender, request(Method::GET, "/"), None).await.unwrap().status(), 502);
}

/// A flood of streams that are reset at once ends its own connection and nothing else (CVE-2023-44487).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_of_the_application_end_here() {
    let (proxy, app) = site().await;
    let (sender, _connection) = connect(&proxy).await;
    app.behave(Behaviour::Raw(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ));
    for _ in 0..2 {
        assert_eq!(get(&sender, "/").await, (200, "ok".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_resets_ends_its_own_connection_alone() {
    let (proxy, _app) = site().await;
    let (good, _connection) = connect(&proxy).await;
    let (flood, connection) = connect(&proxy).await;
    let flooding = async {
        for _ in 0..10_000 {
            let Ok(mut ready) = flood.clone().ready().await else { return };
            let Ok((answer, mut stream)) = ready.send_request(request(Method::GET, "/slow/1000"), true) else { return };
            stream.send_reset(Reason::CANCEL);
            drop(answer);
        }
    };
    let others = async {
        for _ in 0..200 {
            assert_eq!(get(&good, "/").await.0, 200);
        }
    };
    tokio::join!(flooding, others);
    let mut ended = connection;
    let outcome = tokio::time::timeout(Duration::from_secs(10), &mut ended).await;
    assert!(matches!(outcome, Ok(Ok(Err(_)))), "the flood goes on: {outcome:?}");
    assert_eq!(get(&good, "/").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_preface_may_come_byte_by_byte_and_what_only_begins_like_it_is_http_1() {
    let (proxy, _app) = site().await;
    let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
    socket.set_nodelay(true).unwrap();
    // The preface, and an empty SETTINGS frame.
    let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    for byte in begin {
        socket.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut frame = [0; 9];
    socket.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "the first frame of the other side is SETTINGS: {frame:?}");
    for request in ["PRIVATE / HTTP/1.1\r\nHost: shop.test\r\n\r\n", "P / HTTP/1.1\r\nHost: shop.test\r\n\r\n"] {
        let mut visitor = client(proxy.address()).await.unwrap();
        for byte in request.bytes() {
            visitor.send([byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200, "{request:?}");
    }
}

/// A client that gives an answer no window keeps no slot: at the drain deadline its stream is reset, and counted as cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_client_takes_nothing_is_reset_at_the_drain_deadline() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    blue.behave(Behaviour::Large(8 << 20));
    let (sender, _connection) = connect(&proxy).await;
    // Its window is never given back.
    let mut stuck = send(&sender, request(Method::GET, "/"), None).await.unwrap();
    let staged = proxy.stage("shop", green.address()).await;
    assert_eq!(staged["event"], "healthy", "{staged}");
    let flipped = proxy.call("POST", "/v1/services/shop/flip", json!({ "drain": "300ms" })).await;
    assert_eq!(flipped.lines[0]["in_flight"], 1, "{flipped:?}");
    let drained = proxy.drain("shop").await;
    assert_eq!((&drained["event"], &drained["counts"]["cut"]), (&json!("drained"), &json!(1)), "{drained}");
    let status = proxy.call("GET", "/v1/services/shop", json!({})).await;
    assert_eq!(status.lines[0]["slots"]["blue"]["in_flight"], 0, "{status:?}");
    assert!(body(&mut stuck).await.is_err());
    // What it had taken filled the window of the whole connection.
    drop(stuck);
    assert_eq!(get(&sender, "/").await, (200, "green".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_fields_are_refused_and_the_preface_begins_only_a_connection() {
    let (proxy, app) = site().await;
    let (sender, _connection) = connect(&proxy).await;
    let mut asked = request(Method::GET, "/");
    for number in 0..250 {
        asked.headers_mut().insert(http::HeaderName::try_from(format!("x-{number}")).unwrap(), "1".parse().unwrap());
    }
    let before = app.seen_count();
    assert_eq!(send(&sender, asked, None).await.unwrap().status(), 431);
    assert_eq!(app.seen()[before..].iter().filter(|seen| seen.head.contains("x-1:")).count(), 0);
    let mut visitor = client(proxy.address()).await.unwrap();
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
    visitor.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert_eq!(visitor.rest().await.unwrap(), b"", "it is closed, and no SETTINGS frame comes");
}

/// An application that switches to a WebSocket and sends back what it gets; `/refuse` and `/plain` do not switch.
async fn echo_socket() -> (std::net::SocketAddr, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    head.push(char::from(socket.read_u8().await?));
                }
                let answer = match head.split(' ').nth(1) {
                    Some("/refuse") => "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
                    Some("/plain") => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
                    _ => {
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                          Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n\u{1}\u{8}welcome;"
                    }
                };
                seen.lock().unwrap().push(head);
                socket.write_all(answer.as_bytes()).await?;
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    (address, heads)
}

fn websocket(path: &str) -> Request<()> {
    let request = Request::builder().method(Method::CONNECT).uri(format!("http://shop.test{path}"));
    let protocol = h2::ext::Protocol::from_static("websocket");
    request.header("sec-websocket-version", "13").extension(protocol).body(()).unwrap()
}

async fn serve_unprobed(proxy: &Proxy, address: std::net::SocketAddr) {
    let body = json!({
        "endpoints": [address], "health": { "enabled": false }, "settings": { "domains": ["shop.test"] },
    });
    proxy.call("POST", "/v1/services/shop/stage", body).await;
    assert_eq!(proxy.call("POST", "/v1/services/shop/flip", json!({ "drain": "300ms" })).await.status, 200);
}

/// RFC 8441.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_on_a_stream_is_one_at_the_application_and_ends_with_its_drain() {
    let (address, heads) = echo_socket().await;
    let proxy = proxy();
    serve_unprobed(&proxy, address).await;
    let (mut sender, _connection) = connect(&proxy).await;
    // Said in the settings, before the first request may ask for it.
    eventually("the settings have come", async || sender.is_extended_connect_protocol_enabled().then_some(())).await;
    let open = async |sender: &mut SendRequest<Bytes>, path: &str| {
        let (answer, stream) = sender.clone().ready().await.unwrap().send_request(websocket(path), false).unwrap();
        (answer.await.unwrap(), stream)
    };
    let (mut answer, mut stream) = open(&mut sender, "/chat?room=1").await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["sec-websocket-protocol"]),
        (200, &"chat".parse().unwrap())
    );
    for field in ["upgrade", "connection", "sec-websocket-accept", "content-length"] {
        assert!(!answer.headers().contains_key(field), "{field}");
    }
    let mut said = Vec::new();
    // Frames without masks, as a raw echo knows no better.
    stream.send_data("\u{1}\u{5}hello".into(), false).unwrap();
    while said.len() < "..welcome;..hello".len() {
        said.extend_from_slice(&answer.body_mut().data().await.unwrap().unwrap());
    }
    assert_eq!(said, b"\x01\x08welcome;\x01\x05hello");
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\nHost: shop.test\r\n"), "{head}");
    let lower = head.to_lowercase();
    for line in ["\r\nconnection: upgrade\r\n", "\r\nupgrade: websocket\r\n", "\r\nsec-websocket-version: 13\r\n"] {
        assert_eq!(lower.matches(line).count(), 1, "{head}");
    }
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    assert!(key.len() == 24 && key.ends_with("==") && !lower.contains("content-length"), "{head}");
    assert!(!lower.contains("transfer-encoding"), "{head}");
    // What is no switch is no tunnel.
    let (refused, _) = open(&mut sender, "/refuse").await;
    assert_eq!(refused.status(), 403);
    let (plain, _) = open(&mut sender, "/plain").await;
    assert_eq!(plain.status(), 502);
    let metrics = proxy.text("/metrics").await;
    assert!(metrics.contains("bgproxy_requests_failed_total{service=\"shop\",slot=\"blue\"} 1\n"), "{metrics}");
    let another = Request::builder().method(Method::CONNECT).uri("http://shop.test/").body(());
    let mut another = another.unwrap();
    another.extensions_mut().insert(h2::ext::Protocol::from_static("chat"));
    let (other, _) = sender.clone().ready().await.unwrap().send_request(another, false).unwrap();
    assert_eq!(other.await.unwrap().status(), 501);
    // It is in flight until it ends; at the drain deadline it is closed with a handshake, and the connection goes on.
    let green = upstream("v2").await;
    serve_unprobed(&proxy, green.address()).await;
    assert_eq!(get(&sender, "/").await, (200, "v2".to_owned()));
    let closed = async {
        assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), Bytes::from_static(b"\x88\x02\x03\xf4"));
        stream.send_data(Bytes::from_static(b"\x88\x82\0\0\0\0\x03\xf4"), false).unwrap();
        while let Some(Ok(data)) = answer.body_mut().data().await {
            assert_eq!(data, "", "something came after the close");
        }
    };
    let (drained, ()) = tokio::join!(proxy.drain("shop"), closed);
    let counts = &drained["counts"];
    assert_eq!((&drained["event"], &counts["closed"], &counts["cut"]), (&json!("drained"), &json!(1), &json!(0)));
    assert_eq!(get(&sender, "/").await.0, 200);
}
