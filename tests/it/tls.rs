//! TLS with certificates of the file: versions, protocols, what an application is told, and changes that touch no connection.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::Request;
use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use tests::{
    Authority, Issued, Load, Proxy, Upstream, authority, client, client_tls, connect_tls, eventually, load,
    proxy_program, upstream, version,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::programs::PROGRAMS;

const HOST: &str = "shop.test";
const CONFIG: &str = r#"listen_tls = ["127.0.0.1:0"]
[limits]
header_timeout = "2s"
[[certificates]]
cert = "cert.pem"
key = "key.pem"
"#;

fn put(proxy: &Proxy, Issued { cert, key }: &Issued) {
    proxy.write_beside("cert.pem", cert);
    proxy.write_beside("key.pem", key);
}

async fn site() -> (Proxy, Upstream, Authority) {
    let (authority, app) = (authority(), upstream("v1").await);
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(CONFIG);
    put(&proxy, &authority.issue(&[HOST]));
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    (proxy, app, authority)
}

/// The certificate that a new visitor is shown.
async fn shown(proxy: &Proxy, authority: &Authority) -> Option<Vec<u8>> {
    let stream = connect_tls(proxy.tls_address().await, HOST, &authority.trusted(&[])).await.ok()?;
    stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_is_told_of_https_in_both_versions_of_tls_and_of_http() {
    let (proxy, app, authority) = site().await;
    let address = proxy.tls_address().await;
    for (versions, wanted) in [(&[&TLS12], ProtocolVersion::TLSv1_2), (&[&TLS13], ProtocolVersion::TLSv1_3)] {
        let trusted = authority.trusted_with(&["http/1.1"], versions);
        assert_eq!(version(&connect_tls(address, HOST, &trusted).await.unwrap()), Some(wanted));
        let mut visitor = client_tls(address, HOST, &trusted).await.unwrap();
        for _ in 0..2 {
            assert_eq!(visitor.get(HOST, "/one").await.unwrap().unwrap().text(), "v1");
        }
        let trusted = authority.trusted_with(&["h2", "http/1.1"], versions);
        let stream = connect_tls(address, HOST, &trusted).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let _connection = tokio::spawn(connection);
        let request = Request::get("https://shop.test/two").body(()).unwrap();
        let answer = sender.ready().await.unwrap().send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let heads: Vec<String> = app.seen().iter().map(|seen| seen.head.to_lowercase()).collect();
    let visits: Vec<&String> = heads.iter().filter(|head| !head.contains("bgproxy-health")).collect();
    assert_eq!(visits.len(), 6);
    for head in visits {
        for line in ["\r\nx-forwarded-proto: https\r\n", "\r\nx-forwarded-port: 443\r\n", "\r\nhost: shop.test\r\n"] {
            assert_eq!(head.matches(line).count(), 1, "{line:?} in {head}");
        }
    }
    // And the other port is as it was.
    let mut visitor = client(proxy.address()).await.unwrap();
    assert_eq!(visitor.get(HOST, "/").await.unwrap().unwrap().status, 200);
    assert!(app.seen().last().unwrap().head.to_lowercase().contains("\r\nx-forwarded-proto: http\r\n"));
    let metrics = proxy.text("/metrics").await;
    assert!(metrics.contains("\nbgproxy_tls_handshakes_total 6\n"), "{metrics}");
    assert!(metrics.contains("\nbgproxy_certificate_not_after_seconds{certificate=\"shop.test\"} "), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_told_and_an_answer_that_broke_off_is_not_called_whole() {
    let (proxy, _app, authority) = site().await;
    let (address, trusted) = (proxy.tls_address().await, authority.trusted(&[]));
    let mut visitor = client_tls(address, HOST, &trusted).await.unwrap();
    visitor.send("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(visitor.answer().await.unwrap().unwrap().closes());
    // Without the word that it is the end this would be an error.
    assert_eq!(visitor.rest().await.unwrap(), b"");
    let mut visitor = client_tls(address, HOST, &trusted).await.unwrap();
    visitor.send("GET /slow/20000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    let flight = async || {
        let service = proxy.call("GET", "/v1/services/shop", json!({})).await;
        service.lines[0]["slots"]["blue"]["in_flight"].as_u64()
    };
    eventually("it is under way", async || (flight().await == Some(1)).then_some(())).await;
    // A client that leaves says so in a record of TLS, and its claim is given back.
    visitor.finish().await.unwrap();
    eventually("its claim is given back", async || (flight().await == Some(0)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_shake_hands_is_let_go_in_time_and_counted() {
    let (proxy, _app, authority) = site().await;
    let address = proxy.tls_address().await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut plain = client(address).await.unwrap();
    plain.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    assert!(!plain.rest().await.unwrap_or_default().starts_with(b"HTTP"));
    assert!(connect_tls(address, HOST, &tests::authority().trusted(&[])).await.is_err());
    let ended = tokio::time::timeout(Duration::from_secs(5), silent.read(&mut [0; 1])).await.unwrap();
    assert_eq!(ended.unwrap_or(0), 0);
    assert!(shown(&proxy, &authority).await.is_some());
    let metrics = proxy.text("/metrics").await;
    assert!(metrics.contains("\nbgproxy_tls_handshakes_failed_total 2\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_shown_without_touching_a_connection_and_a_wrong_one_never() {
    let (proxy, _app, authority) = site().await;
    let trusted = authority.trusted(&[]);
    let mut visitor = client_tls(proxy.tls_address().await, HOST, &trusted).await.unwrap();
    assert_eq!(visitor.get(HOST, "/").await.unwrap().unwrap().status, 200);
    let first = shown(&proxy, &authority).await.unwrap();
    // The certificate alone is new: its key is not there yet.
    let renewed = authority.issue_until(&[HOST], 2090);
    proxy.write_beside("cert.pem", &renewed.cert);
    let warned = async || {
        let status = proxy.call("GET", "/v1/status", json!({})).await.lines.remove(0);
        status["warnings"].to_string().contains("the key is not that of the certificate").then_some(())
    };
    eventually("the mismatch is told", warned).await;
    assert_eq!(shown(&proxy, &authority).await.unwrap(), first);
    proxy.write_beside("key.pem", &renewed.key);
    let is_new = async || shown(&proxy, &authority).await.filter(|shown| *shown != first).map(|_| ());
    eventually("the new one is shown", is_new).await;
    let status = proxy.call("GET", "/v1/status", json!({})).await.lines.remove(0);
    assert_eq!(status["warnings"], json!([]), "{status}");
    let certificate = &status["certificates"][0];
    assert_eq!((&certificate["names"], &certificate["not_after"]), (&json!([HOST]), &json!("2090-01-01T00:00:00Z")));
    assert_eq!(status["certificates"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(visitor.get(HOST, "/").await.unwrap().unwrap().status, 200);
    // One that has expired is better than none, and is told of.
    put(&proxy, &authority.issue_until(&[HOST], 2020));
    let expired = async || {
        let status = proxy.call("GET", "/v1/status", json!({})).await.lines.remove(0);
        status["warnings"].to_string().contains("the certificate for shop.test: it expired at").then_some(())
    };
    eventually("the end is told", expired).await;
    assert_eq!(visitor.get(HOST, "/").await.unwrap().unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_certificate_opens_the_port() {
    let authority = authority();
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    let status = proxy.call("GET", "/v1/status", json!({})).await.lines.remove(0);
    assert!(status["tls_listeners"].is_null(), "{status}");
    put(&proxy, &authority.issue(&[HOST]));
    proxy.rewrite_config(CONFIG);
    let is_open = async || {
        let status = proxy.call("GET", "/v1/status", json!({})).await.lines.remove(0);
        status["tls_listeners"][0].is_string().then_some(())
    };
    eventually("the port is open", is_open).await;
    // Each worker has its socket: the kernel shares connections out among them.
    for _ in 0..20 {
        assert!(shown(&proxy, &authority).await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_flips_under_load_over_tls_fail_no_request() {
    let (proxy, blue, authority) = site().await;
    let green = upstream("v2").await;
    let tls = Some(authority.trusted(&["http/1.1"]));
    let visitors = Load { keep_alive: 8, fresh: 2, posts: 4, slow: 2, streams: 2, tls, ..Load::default() };
    let running = load(proxy.tls_address().await, visitors);
    for flip in 1..=20 {
        let done = running.so_far().total;
        eventually("traffic", async || (running.so_far().total >= done + 100).then_some(())).await;
        if flip % 5 == 0 {
            put(&proxy, &authority.issue(&[HOST]));
        }
        proxy.serve("shop", if flip % 2 == 1 { green.address() } else { blue.address() }).await;
    }
    let verdict = running.stop().await;
    verdict.assert_none_failed();
    assert!(verdict.versions["v1"] > 100 && verdict.versions["v2"] > 100, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_over_tls_talks_and_is_closed_as_it_should_be() {
    let (proxy, _app, authority) = site().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _chat = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    let serve = async |address| {
        let body = json!({
            "endpoints": [address], "health": { "enabled": false }, "settings": { "domains": ["chat.test"] },
        });
        proxy.call("POST", "/v1/services/chat/stage", body).await;
        let flipped = proxy.call("POST", "/v1/services/chat/flip", json!({ "drain": "500ms" })).await;
        assert_eq!(flipped.status, 200);
    };
    serve(address).await;
    let stream = connect_tls(proxy.tls_address().await, HOST, &authority.trusted(&["http/1.1"])).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://chat.test/", stream).await.unwrap();
    for text in ["a".to_owned(), "b".repeat(200_000)] {
        socket.send(Message::text(text.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), text);
    }
    // The next version is another; at the drain deadline this one's sockets are told to come back.
    serve(address).await;
    let Some(Ok(Message::Close(Some(close)))) = socket.next().await else { panic!("no close") };
    assert_eq!(close.code, CloseCode::Restart);
    assert!(socket.next().await.is_none());
}

/// A program's output; panics where it is not there or fails.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("\n");
    assert!(output.status.success(), "{program} {args:?}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_openssl_and_h2load_are_served() {
    let is_there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !(is_there("curl") && is_there("openssl") && is_there("h2load")) {
        let required = std::env::var_os("BG_REQUIRE_CLIENTS").is_some_and(|value| value == "1");
        assert!(!required, "curl, openssl and h2load are wanted by BG_REQUIRE_CLIENTS");
        return tests::skipped("curl_openssl_and_h2load_are_served", "curl, openssl or h2load is not installed");
    }
    let (proxy, _app, authority) = site().await;
    let (address, roots) = (proxy.tls_address().await.to_string(), proxy.admin().with_file_name("roots.pem"));
    std::fs::write(&roots, authority.pem()).unwrap();
    let (roots, port) = (roots.to_str().unwrap(), address.rsplit_once(':').unwrap().1);
    let (url, resolve) = (format!("https://{HOST}:{port}/"), format!("{HOST}:{port}:127.0.0.1"));
    let curl = ["-sS", "--fail", "--cacert", roots, "--resolve", &resolve, "-o", "/dev/null", "-w"];
    for (args, wanted) in [
        (&["--tlsv1.2", "--tls-max", "1.2", "--http1.1"][..], "1.1 200 1"),
        (&["--tlsv1.3", "--http1.1"], "1.1 200 1"),
        (&["--tlsv1.2", "--tls-max", "1.2", "--http2"], "2 200 1"),
        (&["--tlsv1.3", "--http2"], "2 200 1"),
    ] {
        let form = "%{http_version} %{http_code} %{num_connects}";
        let said = run("curl", &[&curl[..], &[form], args, &[&url]].concat());
        assert_eq!(said.trim(), wanted, "{args:?}");
    }
    let session = proxy.admin().with_file_name("session");
    let session = session.to_str().unwrap();
    let s_client = |version: &str, which: &str| {
        let sends = format!(
            "printf 'GET / HTTP/1.1\\r\\nHost: {HOST}\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -ign_eof -connect {address} -servername {HOST} -CAfile {roots} -verify_return_error {version} {which} {session}"
        );
        run("sh", &["-c", &sends])
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(version, "-sess_out");
        assert!(said.contains("\nNew, ") && said.contains("HTTP/1.1 200 OK"), "{said}");
        // Sessions outlive a change of certificates.
        let first = shown(&proxy, &authority).await.unwrap();
        put(&proxy, &authority.issue(&[HOST]));
        let is_new = async || shown(&proxy, &authority).await.filter(|shown| *shown != first).map(|_| ());
        eventually("another one is shown", is_new).await;
        let said = s_client(version, "-sess_in");
        assert!(said.contains("\nReused, ") && said.contains("HTTP/1.1 200 OK"), "{said}");
    }
    let to = format!("--connect-to={address}");
    for version in [&["-m", "8"][..], &["--h1"]] {
        let usual = ["-n", "5000", "-c", "16", "-t", "1", &to];
        let said = run("h2load", &[&usual, version, &[&url]].concat());
        assert!(said.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"), "{version:?}: {said}");
        assert!(said.contains("status codes: 5000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{version:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_checks_tell_what_is_wrong_with_a_certificate() {
    let (authority, folder) = (authority(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    write("bgproxy.toml", CONFIG);
    let checked = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap();
        (output.status.code(), [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).join(""))
    };
    let (good, other) = (authority.issue(&[HOST]), authority.issue(&[HOST]));
    let mut turned: Vec<String> = good.cert.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect();
    turned.reverse();
    for (cert, key, wanted) in [
        (good.cert.clone(), good.key.clone(), None),
        (good.cert.clone(), other.key, Some(":6:7: `key.pem`: the key is not that of the certificate")),
        (turned.concat(), good.key.clone(), Some(":5:8: `cert.pem`: the key is that of certificate 2")),
        (good.key.clone(), good.key, Some(":5:8: `cert.pem`: it holds no certificate in PEM")),
    ] {
        write("cert.pem", &cert);
        write("key.pem", &key);
        let file = path("bgproxy.toml");
        let by_proxy = checked(PROGRAMS.bgproxy, &["--check", "--config", &file]);
        let by_bgctl = checked(PROGRAMS.bgctl, &["check", &file]);
        for (code, said) in [by_proxy, by_bgctl] {
            assert_eq!(code, Some(i32::from(wanted.is_some())), "{said}");
            let told = wanted.unwrap_or_default().split_once(": ").map_or("", |(_, told)| told);
            assert!(said.contains(told), "{told} in {said}");
        }
    }
    let expired = authority.issue_until(&[HOST], 2020);
    write("cert.pem", &expired.cert);
    write("key.pem", &expired.key);
    let (code, said) = checked(PROGRAMS.bgproxy, &["--check", "--config", &path("bgproxy.toml")]);
    assert!(code == Some(1) && said.contains("`cert.pem`: it expired at 2020-01-01T00:00:00Z"), "{said}");
    assert!(Path::new(&path("key.pem")).exists());
}
