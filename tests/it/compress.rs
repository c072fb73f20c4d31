//! Compressed answers: read back by real clients, never held back, and never where they must not be.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tests::{Client, Proxy, Response, client, eventually, proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Text that gets shorter, longer than any buffer on its way.
fn page() -> String {
    (0..20_000).map(|number| format!("<li>entry {number} of a long list\n")).collect()
}

/// An application whose answers are what each target says.
struct App {
    address: SocketAddr,
    /// Lets an answer in two pieces go on.
    go_on: Arc<Notify>,
    _task: JoinSet<()>,
}

async fn app() -> App {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, go_on) = (listener.local_addr().unwrap(), Arc::new(Notify::new()));
    let mut task = JoinSet::new();
    task.spawn({
        let go_on = Arc::clone(&go_on);
        async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, Arc::clone(&go_on)));
            }
        }
    });
    App { address, go_on, _task: task }
}

/// Answers the requests of one connection. A visitor that has gone is no fault.
async fn serve(mut socket: TcpStream, go_on: Arc<Notify>) {
    let mut read = Vec::new();
    loop {
        while !read.ends_with(b"\r\n\r\n") {
            match socket.read_buf(&mut read).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
        let head = String::from_utf8(std::mem::take(&mut read)).unwrap();
        if respond(&mut socket, &head, &go_on).await.is_err() {
            return;
        }
    }
}

async fn respond(socket: &mut TcpStream, head: &str, go_on: &Notify) -> std::io::Result<()> {
    let target = head.split(' ').nth(1).unwrap();
    let is_head = head.starts_with("HEAD ");
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let fields = match target {
        "/slow" | "/broken" => {
            let kind = "Content-Type: text/html\r\nTransfer-Encoding: chunked";
            socket.write_all(format!("HTTP/1.1 200 OK\r\n{kind}\r\n\r\n{}", chunk("first ")).as_bytes()).await?;
            go_on.notified().await;
            if target == "/broken" {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            return socket.write_all(format!("{}0\r\nX-Sum: 2\r\n\r\n", chunk("second")).as_bytes()).await;
        }
        "/events" => {
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\n").await?;
            go_on.notified().await;
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        "/coded" => "Content-Type: text/html\r\nContent-Encoding: gzip",
        "/image" => "Content-Type: image/png",
        "/as-it-is" => "Content-Type: text/html\r\nCache-Control: no-transform",
        "/part" => "Content-Type: text/html\r\nContent-Range: bytes 0-9/99",
        "/same" => {
            return socket.write_all(b"HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n").await;
        }
        _ => "Content-Type: text/html; charset=utf-8\r\nETag: \"v1\"\r\nAccept-Ranges: bytes",
    };
    let body = if target == "/short" { "short".to_owned() } else { page() };
    let status = if target == "/part" { "206 Partial Content" } else { "200 OK" };
    let length = body.len();
    socket.write_all(format!("HTTP/1.1 {status}\r\n{fields}\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await?;
    if is_head { Ok(()) } else { socket.write_all(body.as_bytes()).await }
}

async fn site(compress: Value) -> (Proxy, App) {
    let (app, proxy) = (app().await, proxy());
    proxy.serve("shop", app.address).await;
    proxy.set_options(&["shop.test"], json!({ "compress": compress })).await;
    (proxy, app)
}

async fn begin(proxy: &Proxy, method: &str, target: &str, accept: &str) -> Client {
    let mut visitor = client(proxy.address()).await.unwrap();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: shop.test\r\nAccept-Encoding: {accept}\r\n\r\n");
    visitor.send(head).await.unwrap();
    visitor
}

async fn ask(proxy: &Proxy, target: &str, accept: &str) -> Response {
    begin(proxy, "GET", target, accept).await.answer().await.unwrap().unwrap()
}

/// Decodes as much as can be read.
fn decode(coding: &str, bytes: &[u8]) -> String {
    let mut source: Box<dyn Read + '_> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
        "zstd" => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        other => panic!("{other} is none of ours"),
    };
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = source.read(&mut piece) {
        text.extend_from_slice(&piece[..read]);
    }
    String::from_utf8(text).unwrap()
}

/// What curl makes of it: the body as its user sees it, and the coding.
async fn curl(proxy: &Proxy, more: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let (head, body) = (folder.path().join("head"), folder.path().join("body"));
    let mut command = Command::new("curl");
    command.args(["-sS", "--fail", "-H", "Host: shop.test", "--max-time", "20"]).args(more);
    command.arg("-D").arg(&head).arg("-o").arg(&body).arg(format!("http://{}/page", proxy.address()));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
    let head = std::fs::read_to_string(&head).unwrap().to_ascii_lowercase();
    let coding = head.lines().find_map(|line| line.strip_prefix("content-encoding: ")).unwrap_or_default();
    (std::fs::read_to_string(&body).unwrap(), coding.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_reads_each_coding_over_every_version_of_http() {
    let (proxy, _app) = site(json!({})).await;
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
        for (accept, coding) in [("br", "br"), ("zstd", "zstd"), ("gzip, deflate", "gzip"), ("deflate", "")] {
            let accept = format!("Accept-Encoding: {accept}");
            let (body, got) = curl(&proxy, &["--compressed", version, "-H", &accept]).await;
            assert_eq!((got.as_str(), body == page()), (coding, true), "{version} {accept}");
        }
        let (body, got) = curl(&proxy, &["--compressed", version]).await;
        assert!(got == "br" && body == page(), "{version}: {got}");
        let (body, got) = curl(&proxy, &[version]).await;
        assert!(got.is_empty() && body == page(), "{version}: {got}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_says_what_the_body_is_and_head_the_same_as_get() {
    let (proxy, _app) = site(json!({ "algorithms": ["gzip"] })).await;
    // As browsers ask over TLS and without.
    for accept in ["gzip, deflate, br, zstd", "gzip, deflate"] {
        let got = ask(&proxy, "/page", accept).await;
        let fields = ["content-encoding", "vary", "etag", "content-length", "accept-ranges"];
        let of = |answer: &Response| fields.map(|name| answer.field(name).map(str::to_owned));
        let expected = [Some("gzip"), Some("Accept-Encoding"), Some("W/\"v1\""), None, None];
        assert_eq!(of(&got), expected.map(|value| value.map(str::to_owned)));
        assert!(decode("gzip", &got.body) == page() && got.body.len() * 5 < page().len(), "{}", got.body.len());
        let head = begin(&proxy, "HEAD", "/page", accept).await.head_answer().await.unwrap();
        assert_eq!((of(&head), head.body.len()), (of(&got), 0));
    }
    let same = ask(&proxy, "/same", "gzip").await;
    assert_eq!((same.status, same.field("etag"), same.field("vary")), (304, Some("W/\"v1\""), Some("Accept-Encoding")));
    let plain = ask(&proxy, "/page", "identity").await;
    assert_eq!((plain.field("content-encoding"), plain.field("vary")), (None, Some("Accept-Encoding")));
    assert!(plain.text() == page() && plain.field("etag") == Some("\"v1\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_coded_or_short_or_a_part_or_no_text_goes_as_it_is() {
    let (proxy, app) = site(json!({})).await;
    for target in ["/coded", "/image", "/as-it-is", "/part", "/short"] {
        let answer = ask(&proxy, target, "gzip, br").await;
        assert_eq!(answer.field("vary"), None, "{target}");
        let coding = (target == "/coded").then_some("gzip");
        assert_eq!(answer.field("content-encoding"), coding, "{target}");
        let body = if target == "/short" { "short".to_owned() } else { page() };
        assert!(answer.text() == body && answer.field("content-length").is_some(), "{target}");
    }
    // An event is there before the next.
    let mut visitor = begin(&proxy, "GET", "/events", "gzip, br").await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"data: a\n\n\r\n") {
        visitor.read_some(&mut seen).await.unwrap();
    }
    assert!(!String::from_utf8_lossy(&seen).to_ascii_lowercase().contains("content-encoding"));
    app.go_on.notify_one();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_answer_is_read_as_it_comes_and_a_broken_one_never_looks_whole() {
    let (proxy, app) = site(json!({})).await;
    for coding in ["br", "zstd", "gzip"] {
        for target in ["/slow", "/broken"] {
            let mut visitor = begin(&proxy, "GET", target, coding).await;
            // The application sends the rest when this much can be read.
            let mut seen = Vec::new();
            loop {
                visitor.read_some(&mut seen).await.unwrap();
                if decode(coding, &unchunked(&seen)).ends_with("first ") {
                    break;
                }
            }
            app.go_on.notify_one();
            // To its end, or to that of its connection.
            while !seen.ends_with(b"\r\n\r\n") || !contains(&seen, b"\r\n0\r\n") {
                if visitor.read_some(&mut seen).await.is_err() {
                    break;
                }
            }
            let is_whole = contains(&seen, b"\r\n0\r\n");
            let text = decode(coding, &unchunked(&seen));
            match target {
                "/broken" => assert!(!is_whole && text == "first ", "{coding}: {text}"),
                _ => assert!(is_whole && text == "first second", "{coding}: {text}"),
            }
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The body of an answer in chunks, as far as it has come.
fn unchunked(answer: &[u8]) -> Vec<u8> {
    let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Vec::new() };
    let (mut rest, mut body) = (&answer[at + 4..], Vec::new());
    while let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        let chunk = &rest[at + 2..];
        if length == 0 || chunk.len() < length + 2 {
            break;
        }
        body.extend_from_slice(&chunk[..length]);
        rest = &chunk[length + 2..];
    }
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_counted_is_what_was_sent_and_a_change_is_in_force_at_once() {
    let (proxy, app) = site(json!({})).await;
    let bytes = async || {
        let text = proxy.text("/metrics").await;
        let line =
            text.lines().find_map(|l| l.strip_prefix("bgproxy_response_bytes_total{service=\"shop\",slot=\"blue\"} "));
        line.unwrap().parse::<usize>().unwrap()
    };
    let before = bytes().await;
    let sent = ask(&proxy, "/page", "gzip").await.body.len();
    eventually("the bytes are counted", async || (bytes().await == before + sent).then_some(())).await;
    let settings = json!({ "domains": ["shop.test"], "options": {} });
    assert_eq!(proxy.call("PUT", "/v1/services/shop", settings).await.status, 200);
    assert!(ask(&proxy, "/page", "gzip").await.text() == page());
    drop(app);
}
