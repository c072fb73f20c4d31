//! Limits of `docs/limits.md` that no other test is about: towards applications, of TLS and of HTTP/2, and at the end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tests::{
    Behaviour, Client, Proxy, Response, Upstream, authority, client, connect_tls, eventually, is_soak, measured, proxy,
    proxy_program, upstream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::programs::PROGRAMS;

async fn site(options: Value) -> (Proxy, Upstream) {
    let (app, proxy) = (upstream("v1").await, proxy());
    proxy.serve("shop", app.address()).await;
    let body = json!({ "domains": ["shop.test"], "options": options });
    assert_eq!(proxy.call("PUT", "/v1/services/shop", body).await.status, 200);
    (proxy, app)
}

async fn program(config: &str) -> (Proxy, Upstream) {
    let app = upstream("v1").await;
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(config);
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    (proxy, app)
}

async fn get(proxy: &Proxy) -> std::io::Result<Option<Response>> {
    client(proxy.address()).await.unwrap().get("shop.test", "/").await
}

/// An address where nobody takes a connection and nobody refuses one: its queue is full.
struct Mute {
    address: SocketAddr,
    _listener: Socket,
    _queued: Vec<Socket>,
}

fn mute() -> Mute {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.connect_timeout(&address, Duration::from_millis(200)).map(|()| socket)
    };
    let queued: Vec<Socket> = std::iter::from_fn(|| connect().ok()).take(16).collect();
    assert!(queued.len() < 16, "the queue has no end");
    Mute { address: address.as_socket().unwrap(), _listener: listener, _queued: queued }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_does_not_take_a_connection_is_given_up_in_time_and_the_next_is_tried() {
    let (mute, app, proxy) = (tokio::task::spawn_blocking(mute).await.unwrap(), upstream("v1").await, proxy());
    let serve = async |options: Value| {
        let body = json!({
            "endpoints": [mute.address, app.address()], "health": { "enabled": false },
            "settings": { "domains": ["shop.test"], "options": options },
        });
        proxy.call("POST", "/v1/services/shop/stage", body).await;
        assert_eq!(proxy.flip("shop").await.status, 200);
    };
    // The slowest of some answers: which endpoint is asked first is not said, and one that is ejected is not for a while.
    let slowest = async || {
        let mut slowest = Duration::ZERO;
        for _ in 0..6 {
            let began = Instant::now();
            assert_eq!(get(&proxy).await.unwrap().unwrap().status, 200);
            slowest = slowest.max(began.elapsed());
        }
        slowest
    };
    serve(json!({ "connect_timeout": "300ms" })).await;
    let took = slowest().await;
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(2), "the service's own: {took:?}");
    let limits = json!({ "limits": { "connect_timeout": "700ms" } });
    assert_eq!(proxy.call("PUT", "/v1/proxy", limits).await.status, 200);
    serve(json!({})).await;
    let took = slowest().await;
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(3), "the proxy's: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_stops_in_its_middle_breaks_off_and_never_looks_whole() {
    let (proxy, app) = site(json!({ "body_idle_timeout": "300ms" })).await;
    app.behave(Behaviour::Slow { pieces: 5, pause: Duration::from_millis(50) });
    assert_eq!(get(&proxy).await.unwrap().unwrap().text(), "v1".repeat(5), "one that goes on may take longer");
    app.behave(Behaviour::Slow { pieces: 2, pause: Duration::from_secs(20) });
    let began = Instant::now();
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.get("shop.test", "/").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_of_an_answer_has_the_limits_of_a_requests() {
    let (proxy, app) = site(json!({})).await;
    let fields = |count: usize| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let large = |bytes: usize| format!("X: {}\r\n", "x".repeat(bytes));
    for (status, fields) in [(200, fields(199)), (502, fields(201)), (200, large(63 * 1024)), (502, large(65 * 1024))] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
        let length = answer.len();
        app.behave(Behaviour::Raw(answer.leak()));
        assert_eq!(get(&proxy).await.unwrap().unwrap().status, status, "{length} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_line_and_trailers_of_an_answer_have_an_end() {
    let (proxy, app) = site(json!({})).await;
    let fields = |count: usize| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let chunked = |extension: usize, trailers: String| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}2;{}\r\nok\r\n0\r\n{trailers}\r\n", "x".repeat(extension))
    };
    let large = |bytes: usize| format!("X: {}\r\n", "x".repeat(bytes));
    for (is_whole, answer) in [
        (true, chunked(4000, fields(32))),
        (false, chunked(4200, String::new())),
        (false, chunked(0, fields(33))),
        (true, chunked(0, large(15 * 1024))),
        (false, chunked(0, large(17 * 1024))),
    ] {
        let length = answer.len();
        app.behave(Behaviour::Raw(answer.leak()));
        let answer = get(&proxy).await;
        assert_eq!(answer.is_ok_and(|answer| answer.unwrap().text() == "ok"), is_whole, "{length} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_to_an_application_is_used_again_in_its_time_and_closed_after_it() {
    let (proxy, app) = program("[limits]\nupstream_idle = \"1s\"\n").await;
    let body = json!({ "domains": ["shop.test"], "health": { "enabled": false } });
    proxy.call("PUT", "/v1/services/shop", body).await;
    let mut visitor = client(proxy.address()).await.unwrap();
    let mine = |app: &Upstream| app.seen().iter().filter(|seen| !seen.head.contains("bgproxy-health")).count();
    for _ in 0..5 {
        assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
    }
    assert_eq!(mine(&app), 5);
    // Its probes close theirs.
    let kept = eventually("one is kept", async || Some(app.open_connections()).filter(|open| *open == 1)).await;
    let idle = Instant::now();
    eventually("it is closed", async || (app.open_connections() < kept).then_some(())).await;
    let took = idle.elapsed();
    assert!(took > Duration::from_millis(700) && took < Duration::from_secs(3), "{took:?}");
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_idle_connections_are_kept_than_allowed() {
    let (proxy, app) = program("[limits]\nupstream_idle = \"1m\"\nupstream_idle_connections = 2\n").await;
    let mut visitors = Vec::new();
    for _ in 0..20 {
        let mut visitor = client(proxy.address()).await.unwrap();
        visitor.send("GET /slow/300 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
        visitors.push(visitor);
    }
    eventually("all are under way", async || (app.unanswered() == 20).then_some(())).await;
    assert!(app.open_connections() >= 20);
    for visitor in &mut visitors {
        assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    }
    // Two of each of the two workers, and perhaps one of a probe.
    eventually("the others are closed", async || (app.open_connections() <= 5).then_some(())).await;
    assert!(app.open_connections() >= 2);
}

/// A disk has an end, and may refuse: either is told, and nothing of the request reaches the application.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_taken_whole_is_bounded_and_told_where_the_disk_refuses_it() {
    let (proxy, app) = site(json!({ "buffer_requests": true })).await;
    let post = |length: usize, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let ask = async |request: String| {
        let mut visitor: Client = client(proxy.address()).await.unwrap();
        visitor.send(request).await.unwrap();
        visitor.answer().await.unwrap().unwrap()
    };
    let began = Instant::now();
    let answer = ask(post((1 << 30) + 1, "begun")).await;
    assert_eq!((answer.status, answer.closes()), (413, true));
    assert!(began.elapsed() < Duration::from_secs(2), "its length was told: {:?}", began.elapsed());
    std::fs::remove_dir_all(proxy.state()).unwrap();
    let body = "x".repeat(100_000);
    let answer = ask(post(body.len(), &body)).await;
    assert_eq!((answer.status, answer.closes()), (503, true));
    // What needs no disk is served all the same.
    assert_eq!(ask(post(3, "abc")).await.status, 200);
    assert_eq!(app.seen().iter().filter(|seen| seen.first_line.starts_with("POST")).count(), 1);
}

/// A client that still sends after its answer is listened to, so that no reset takes the answer away, and not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_still_sent_of_a_request_that_was_answered_is_taken_for_two_seconds() {
    let (proxy, app) = site(json!({})).await;
    app.behave(Behaviour::Early(413));
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000000\r\n\r\nbegun").await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 413);
    let answered = Instant::now();
    while visitor.send("x").await.is_ok() {
        assert!(answered.elapsed() < Duration::from_secs(10), "it is still listened to");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = answered.elapsed();
    assert!(took >= Duration::from_millis(1800) && took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_outlasts_the_shutdown_timeout_is_ended_and_one_that_does_not_is_answered() {
    let (mut proxy, app) = program("[limits]\nshutdown_timeout = \"1s\"\n").await;
    let ask = async |millis: u64| {
        let mut visitor = client(proxy.address()).await.unwrap();
        visitor.send(format!("GET /slow/{millis} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await.unwrap();
        visitor
    };
    let (mut short, mut long) = (ask(600).await, ask(60_000).await);
    eventually("both are under way", async || (app.unanswered() == 2).then_some(())).await;
    let told = Instant::now();
    proxy.signal(Signal::TERM);
    assert_eq!(short.answer().await.unwrap().unwrap().status, 200);
    assert!(!matches!(long.answer().await, Ok(Some(_))), "it outlasted the deadline");
    assert_eq!(proxy.ended().await, Some(0));
    let took = told.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
}

/// What hyper is told for HTTP/2, as a client sees it (RFC 9113 sections 6.5.2 and 6.9).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_and_windows_of_http_2_are_those_of_the_table() {
    let (proxy, _app) = site(json!({})).await;
    let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let (mut streams, mut window, mut connection) = (None, None, 65_535);
    while streams.is_none() || connection == 65_535 {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[2]) + 256 * usize::from(head[1])];
        socket.read_exact(&mut payload).await.unwrap();
        let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        match head[3] {
            4 => {
                let settings = payload.chunks(6).map(|setting| (number(&setting[..2]), number(&setting[2..])));
                for (name, value) in settings {
                    match name {
                        3 => streams = Some(value),
                        4 => window = Some(value),
                        _ => {}
                    }
                }
            }
            8 => connection += number(&payload),
            _ => {}
        }
    }
    assert_eq!((streams, window, connection), (Some(128), Some(256 * 1024), 1024 * 1024));
}

/// A phone that left its network says nothing: it is asked after 30 s, and ended 10 s later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_http_2_that_is_silent_with_a_request_under_way_is_ended() {
    if !is_soak() {
        let test = "a_client_of_http_2_that_is_silent_with_a_request_under_way_is_ended";
        return tests::skipped(test, "it takes 40 s; BG_SOAK=1 runs it");
    }
    let (proxy, app) = site(json!({})).await;
    let socket = TcpStream::connect(proxy.address()).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    let mut driver = Box::pin(connection);
    let request = http::Request::get("http://shop.test/slow/120000").body(()).unwrap();
    let (mut sender, mut asked) = (sender, None);
    let under_way = async || (app.unanswered() == 1).then_some(());
    tokio::select! {
        ended = &mut driver => panic!("{ended:?}"),
        () = async {
            sender = sender.clone().ready().await.unwrap();
            asked = Some(sender.send_request(request, true).unwrap().0);
            eventually("it is under way", under_way).await;
        } => {}
    }
    // Nobody drives the connection any more, so it neither reads nor writes; its socket stays open.
    let silent = Instant::now();
    while app.unanswered() == 1 {
        assert!(silent.elapsed() < Duration::from_secs(60), "it is still there");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    measured("a_silent_client_of_http_2", &format!("ended after {:?}", silent.elapsed()));
    assert!(silent.elapsed() > Duration::from_secs(30), "{:?}", silent.elapsed());
    drop((driver, asked));
}

/// So many handshakes are under way at once; those who connected and say nothing take no place among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_beyond_the_most_that_are_under_way_waits_its_turn() {
    const MOST: usize = 1024;
    let authority = authority();
    let config = "listen_tls = [\"127.0.0.1:0\"]\n[limits]\nheader_timeout = \"1m\"\n\
        [[certificates]]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(config);
    let issued = authority.issue(&["shop.test"]);
    proxy.write_beside("cert.pem", &issued.cert);
    proxy.write_beside("key.pem", &issued.key);
    proxy.start().await;
    let address = proxy.tls_address().await;
    let trusted = authority.trusted(&[]);
    let mut hello = Vec::new();
    let mut shaking = ClientConnection::new(trusted.clone(), ServerName::try_from("shop.test").unwrap()).unwrap();
    shaking.write_tls(&mut hello).unwrap();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(connect_tls(address, "shop.test", &trusted).await.is_ok());
    let mut half = Vec::new();
    for _ in 0..MOST {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&hello).await.unwrap();
        // Once the other side has answered, its place is taken.
        socket.read_exact(&mut [0; 5]).await.unwrap();
        half.push(socket);
    }
    let mut next = std::pin::pin!(connect_tls(address, "shop.test", &trusted));
    tokio::select! {
        shaken = &mut next => panic!("there was no place: {shaken:?}"),
        () = tokio::time::sleep(Duration::from_millis(300)) => {}
    }
    half.pop();
    assert!(tokio::time::timeout(Duration::from_secs(10), next).await.unwrap().is_ok());
}
