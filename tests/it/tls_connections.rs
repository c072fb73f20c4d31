//! What goes on behind a handshake: parked connections, flips over HTTP/2, sessions that are taken up again, load balancers in
//! front, keys of RSA.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};
use serde_json::json;
use socket2::SockRef;
use tests::{
    Authority, Load, Proxy, Upstream, authority, client_tls, connect_tls, eventually, is_soak, load, measured,
    proxy_program, shake_hands, skipped, upstream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::programs::PROGRAMS;

const HOST: &str = "shop.test";
const CONFIG: &str = "listen_tls = [\"127.0.0.1:0\"]\n[[certificates]]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";

fn put(proxy: &Proxy, authority: &Authority) {
    let issued = authority.issue(&[HOST]);
    proxy.write_beside("cert.pem", &issued.cert);
    proxy.write_beside("key.pem", &issued.key);
}

async fn site() -> (Proxy, Upstream, Authority) {
    let (authority, app) = (authority(), upstream("v1").await);
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(CONFIG);
    put(&proxy, &authority);
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    (proxy, app, authority)
}

/// Puts another certificate in the place of the one that is shown, and waits until it is.
async fn renew(proxy: &Proxy, authority: &Authority, address: SocketAddr) {
    let shown = async || {
        let stream = connect_tls(address, HOST, &authority.trusted(&[])).await.ok()?;
        stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec())
    };
    let before = shown().await.unwrap();
    put(proxy, authority);
    eventually("another certificate is shown", async || shown().await.filter(|now| *now != before).map(drop)).await;
}

/// Of a connection that is idle for five seconds only the socket and the session stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_connection_is_served_again_as_if_nothing_had_been() {
    let (proxy, app, authority) = site().await;
    let address = proxy.tls_address().await;
    let request = format!("GET /parked HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let visit = async |version: &'static SupportedProtocolVersion, begun: usize| {
        let trusted = authority.trusted_with(&["http/1.1"], &[version]);
        let mut visitor = client_tls(address, HOST, &trusted).await.unwrap();
        let (begun, rest) = request.split_at(begun);
        // What was said of the next request before must not be lost.
        visitor.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n{begun}")).await.unwrap();
        assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
        tokio::time::sleep(Duration::from_secs(8)).await;
        visitor.send(rest).await.unwrap();
        assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
        visitor.finish().await.unwrap();
        assert_eq!(visitor.rest().await.unwrap(), b"", "it ends as it should");
    };
    tokio::join!(visit(&TLS12, 0), visit(&TLS13, 0), visit(&TLS12, 20), visit(&TLS13, 20));
    assert_eq!(app.seen().iter().filter(|seen| seen.head.starts_with("GET /parked HTTP/1.1\r\n")).count(), 4);
    // One of which the client says that it ends while it is parked.
    let mut leaver = client_tls(address, HOST, &authority.trusted(&[])).await.unwrap();
    assert_eq!(leaver.get(HOST, "/").await.unwrap().unwrap().status, 200);
    tokio::time::sleep(Duration::from_secs(6)).await;
    leaver.finish().await.unwrap();
    assert_eq!(leaver.rest().await.unwrap(), b"");
    let gone = async || {
        let status = proxy.call("GET", "/v1/status", json!({})).await;
        (status.lines[0]["connections"] == 0).then_some(())
    };
    eventually("nothing is left of them", gone).await;
}

/// S1 and S5, over TLS and HTTP/2, with certificates that change meanwhile; beside them visitors of HTTP/1.1, who keep their
/// connections or open one for each request. 200 flips in the long form.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flips_under_load_over_http_2_fail_no_stream_and_close_no_connection() {
    let (proxy, blue, authority) = site().await;
    let (green, address) = (upstream("v2").await, proxy.tls_address().await);
    let trusted = authority.trusted(&["h2"]);
    let tls = Some(authority.trusted(&["http/1.1"]));
    let beside =
        Load { keep_alive: 2, fresh: 2, posts: 1, slow: 1, pause: Duration::from_millis(5), tls, ..Load::default() };
    let beside = load(address, beside);
    let stop = Arc::new(AtomicBool::new(false));
    let (mut connections, mut visitors) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let stream = connect_tls(address, HOST, &trusted).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        connections.push((sender.clone(), tokio::spawn(connection)));
        for visitor in 0..4 {
            let (sender, stop) = (sender.clone(), Arc::clone(&stop));
            let ask = async move || -> Result<String, h2::Error> {
                let (method, path) = [("POST", "/"), ("GET", "/stream/5/10"), ("GET", "/"), ("GET", "/")][visitor];
                let request = Request::builder().method(method).uri(format!("https://{HOST}{path}"));
                let (answer, mut body) =
                    sender.clone().ready().await?.send_request(request.body(()).unwrap(), method == "GET")?;
                if method == "POST" {
                    body.send_data(vec![b'x'; 20_000].into(), true)?;
                }
                let mut answer = answer.await?;
                assert_eq!(answer.status(), 200);
                let mut text = String::new();
                while let Some(data) = answer.body_mut().data().await {
                    let data = data?;
                    answer.body_mut().flow_control().release_capacity(data.len())?;
                    text.push_str(std::str::from_utf8(&data).unwrap());
                }
                Ok(text)
            };
            visitors.push(tokio::spawn(async move {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    seen.push(ask().await);
                }
                seen
            }));
        }
    }
    let (flips, began) = (if is_soak() { 200 } else { 20 }, Instant::now());
    for flip in 1..=flips {
        if flip % 5 == 0 {
            put(&proxy, &authority);
        }
        proxy.serve("shop", if flip % 2 == 1 { green.address() } else { blue.address() }).await;
        let drained = proxy.drain("shop").await;
        assert_eq!((&drained["event"], &drained["counts"]["failed"]), (&json!("drained"), &json!(0)), "{drained}");
    }
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for visitor in visitors {
        for answer in visitor.await.unwrap() {
            let text = answer.unwrap();
            assert!(["v1", "v2"].map(|version| text.replace(version, "")).contains(&String::new()), "{text}");
            total += 1;
        }
    }
    let beside = beside.stop().await;
    beside.assert_none_failed();
    measured(
        "flips_over_tls",
        &format!(
            "{flips} flips in {took:?}: {total} streams of HTTP/2, {} requests of HTTP/1.1, none failed",
            beside.total
        ),
    );
    assert!(total > 500 && beside.total > 100 && beside.closed == 0, "only {total} requests; {beside:?}");
    assert!(connections.iter().all(|(_, connection)| !connection.is_finished()), "a connection ended");
}

/// A session's ticket is good whatever certificate is shown by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_taken_up_again_after_the_certificate_has_changed() {
    let (proxy, _app, authority) = site().await;
    let address = proxy.tls_address().await;
    for versions in [&[&TLS12], &[&TLS13]] {
        let trusted = authority.trusted_with(&["http/1.1"], versions);
        let visit = async || {
            let mut stream = connect_tls(address, HOST, &trusted).await.unwrap();
            let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            // To the end: tickets of 1.3 come with the first answer.
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            stream.get_ref().1.handshake_kind()
        };
        assert_eq!(visit().await, Some(HandshakeKind::Full), "{versions:?}");
        for _ in 0..2 {
            renew(&proxy, &authority, address).await;
            assert_eq!(visit().await, Some(HandshakeKind::Resumed), "{versions:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_balancer_speaks_before_the_handshake() {
    let (proxy, app, authority) = site().await;
    let (address, trusted) = (proxy.tls_address().await, authority.trusted(&["http/1.1"]));
    proxy.rewrite_config(&format!("proxy_protocol = [\"127.0.0.0/8\"]\n{CONFIG}"));
    // Without its word there is no handshake.
    let refused = async || connect_tls(address, HOST, &trusted).await.is_err().then_some(());
    eventually("who says nothing is refused", refused).await;
    let version2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x02\x0a\0\0\x01\x12\x67\0\x50";
    for (header, from) in [(&b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n"[..], "192.0.2.1"), (version2, "192.0.2.2")] {
        for is_one_packet in [true, false] {
            let mut socket = TcpStream::connect(address).await.unwrap();
            SockRef::from(&socket).set_tcp_cork(is_one_packet).unwrap();
            socket.write_all(header).await.unwrap();
            let mut stream = shake_hands(socket, HOST, &trusted).await.unwrap();
            SockRef::from(stream.get_ref().0).set_tcp_cork(false).unwrap();
            let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            let seen = app.seen().into_iter().rev().find(|seen| !seen.head.contains("bgproxy-health"));
            let head = seen.unwrap().head.to_lowercase();
            assert!(head.contains(&format!("\r\nx-forwarded-for: {from}\r\n")), "{head}");
            assert!(head.contains("\r\nx-forwarded-proto: https\r\n"), "{head}");
        }
    }
    // Nor with a word that is none.
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"PROXY TCP4 nonsense\r\n").await.unwrap();
    assert!(shake_hands(socket, HOST, &trusted).await.is_err());
}

/// RFC 8441 behind ALPN: the frames of a WebSocket in a stream's data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_on_a_stream_of_http_2_talks_over_tls() {
    let (proxy, _app, authority) = site().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let body = json!({
        "endpoints": [listener.local_addr().unwrap()], "health": { "enabled": false },
        "settings": { "domains": ["chat.test"] },
    });
    proxy.call("POST", "/v1/services/chat/stage", body).await;
    assert_eq!(proxy.flip("chat").await.status, 200);
    let _chat = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(socket).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let stream = connect_tls(proxy.tls_address().await, HOST, &authority.trusted(&["h2"])).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let _connection = tokio::spawn(connection);
    eventually("the other side knows extended CONNECT", async || {
        sender.clone().ready().await.unwrap().is_extended_connect_protocol_enabled().then_some(())
    })
    .await;
    sender = sender.ready().await.unwrap();
    let request = Request::connect("https://chat.test/")
        .extension(h2::ext::Protocol::from("websocket"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    let (answer, mut out) = sender.send_request(request, false).unwrap();
    let mut answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    // A codec of the library on a pipe of ours, whose other end is the stream.
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut from_client, mut to_client) = tokio::io::split(far);
    tokio::spawn(async move {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = from_client.read(&mut piece).await {
            out.send_data(Bytes::copy_from_slice(&piece[..length]), false).unwrap();
        }
    });
    tokio::spawn(async move {
        while let Some(Ok(data)) = answer.body_mut().data().await {
            answer.body_mut().flow_control().release_capacity(data.len()).unwrap();
            to_client.write_all(&data).await.unwrap();
        }
    });
    let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(near, Role::Client, None).await;
    for text in ["a".to_owned(), "b".repeat(20_000)] {
        socket.send(Message::text(text.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), text);
    }
}

/// A program's stdout and stderr, or nothing where it is not there.
fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    Some([output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("\n"))
}

/// A key of RSA alone, and beside one of ECDSA for those who can't check that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_with_a_key_of_rsa_is_served_alone_and_to_those_who_need_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let key = file("rsa.pem");
    let bits = "rsa_keygen_bits:2048";
    if run("openssl", &["genpkey", "-algorithm", "RSA", "-pkeyopt", bits, "-out", &key]).is_none() {
        let required = std::env::var_os("BG_REQUIRE_CLIENTS").is_some_and(|value| value == "1");
        assert!(!required, "openssl is wanted by BG_REQUIRE_CLIENTS");
        let test = "a_certificate_with_a_key_of_rsa_is_served_alone_and_to_those_who_need_it";
        return skipped(test, "openssl is not installed, which makes the key");
    }
    let (authority, app) = (authority(), upstream("v1").await);
    let rsa = authority.issue_for_key(&std::fs::read_to_string(&key).unwrap(), &[HOST]);
    let ecdsa = authority.issue(&[HOST]);
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(CONFIG);
    for (name, text) in
        [("cert.pem", &rsa.cert), ("key.pem", &rsa.key), ("ec.pem", &ecdsa.cert), ("ec.key", &ecdsa.key)]
    {
        proxy.write_beside(name, text);
    }
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let address = proxy.tls_address().await;
    for versions in [&[&TLS12], &[&TLS13]] {
        let mut visitor = client_tls(address, HOST, &authority.trusted_with(&[], versions)).await.unwrap();
        assert_eq!(visitor.get(HOST, "/").await.unwrap().unwrap().text(), "v1", "{versions:?}");
    }
    let (roots, address) = (file("roots.pem"), address.to_string());
    std::fs::write(&roots, authority.pem()).unwrap();
    let shown = |version: &str, kinds: &str| {
        let usual = ["s_client", "-connect", &address, "-servername", HOST, "-CAfile", &roots, "-verify_return_error"];
        run("openssl", &[&usual[..], &[version, "-sigalgs", kinds]].concat()).unwrap()
    };
    proxy.rewrite_config(&format!("{CONFIG}[[certificates]]\ncert = \"ec.pem\"\nkey = \"ec.key\"\n"));
    let both = "ECDSA+SHA256:RSA-PSS+SHA256:RSA+SHA256";
    eventually("ECDSA is preferred", async || {
        shown("-tls1_3", both).contains("Peer signature type: ECDSA").then_some(())
    })
    .await;
    for version in ["-tls1_2", "-tls1_3"] {
        let said = shown(version, both);
        assert!(said.contains("Peer signature type: ECDSA") && said.contains("Verification: OK"), "{version}: {said}");
        let said = shown(version, "RSA-PSS+SHA256:RSA+SHA256");
        assert!(said.contains("Peer signature type: RSA") && said.contains("Verification: OK"), "{version}: {said}");
    }
}
