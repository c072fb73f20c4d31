//! Files of folders beside the application, read by real clients: whole, in parts, again, and never what is outside.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Proxy, Response, Upstream, client, eventually, proxy, proxy_program, upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::programs::PROGRAMS;

const CSS: &str = "body { color: black }\n";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write("app.css", CSS.as_bytes());
    write("index.html", b"<h1>home");
    write("docs/index.html", b"<h1>docs");
    write(".env", b"SECRET=1");
    write("long.js", "let x = 1;\n".repeat(10_000).as_bytes());
    write("video.mp4", &(0..3_000_000_u32).map(|number| (number % 251) as u8).collect::<Vec<_>>());
    folder
}

async fn set(proxy: &Proxy, options: Value) {
    proxy.set_options(&["shop.test"], options).await;
}

async fn site(folder: &Path, more: Value) -> (Proxy, Upstream) {
    let (app, proxy) = (upstream("v1").await, proxy());
    proxy.serve("shop", app.address()).await;
    let mut files = json!({ "path": "/static", "folder": folder });
    files.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    set(&proxy, json!({ "static": [files] })).await;
    (proxy, app)
}

async fn send(proxy: &Proxy, method: &str, target: &str, fields: &str) -> Response {
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send(format!("{method} {target} HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n")).await.unwrap();
    if method == "HEAD" { visitor.head_answer().await.unwrap() } else { visitor.answer().await.unwrap().unwrap() }
}

async fn get(proxy: &Proxy, target: &str, fields: &str) -> Response {
    send(proxy, "GET", target, fields).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_served_beside_the_application_and_need_none() {
    let folder = folder();
    let (proxy, app) = site(folder.path(), json!({ "cache": "1h" })).await;
    let css = get(&proxy, "/static/app.css", "").await;
    assert_eq!((css.status, css.text().as_str()), (200, CSS));
    let length = CSS.len().to_string();
    for (name, value) in [
        ("content-type", "text/css; charset=utf-8"),
        ("content-length", &length),
        ("cache-control", "max-age=3600"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(css.field(name), Some(value), "{name}");
    }
    assert!(css.field("x-request-id").is_some() && css.field("date").is_some());
    let head = send(&proxy, "HEAD", "/static/app.css", "").await;
    for name in ["content-type", "content-length", "etag", "last-modified", "cache-control"] {
        assert_eq!(head.field(name), css.field(name), "{name}");
    }
    let page = get(&proxy, "/static/docs/", "").await;
    assert_eq!((page.text().as_str(), page.field("cache-control")), ("<h1>docs", Some("no-cache")));
    for (target, location) in [("/static", "/static/"), ("/static/docs?a=b", "/static/docs/?a=b")] {
        let moved = get(&proxy, target, "").await;
        assert_eq!((moved.status, moved.field("location")), (301, Some(location)));
    }
    let post = send(&proxy, "POST", "/static/app.css", "Content-Length: 0\r\n").await;
    assert_eq!((post.status, post.field("allow")), (405, Some("GET, HEAD")));
    assert_eq!(get(&proxy, "/static/none", "").await.status, 404);
    let is_for_file = |seen: &tests::Seen| seen.first_line.contains("/static");
    assert!(!app.seen().iter().any(is_for_file), "the application was asked for a file");
    // On segment boundaries; all else is the application's.
    assert_eq!(get(&proxy, "/statics", "").await.text(), "v1");
    eventually("all of them are counted", async || {
        let text = proxy.text("/metrics").await;
        text.contains("bgproxy_files_total{service=\"shop\"} 5\n").then_some(())
    })
    .await;
    // Before its first version a service has its files already.
    let settings =
        json!({ "domains": ["new.test"], "options": { "static": [{ "path": "/", "folder": folder.path() }] } });
    assert_eq!(proxy.call("PUT", "/v1/services/new", settings).await.status, 200);
    let mut visitor = client(proxy.address()).await.unwrap();
    assert_eq!(visitor.get("new.test", "/app.css").await.unwrap().unwrap().text(), CSS);
    assert_eq!(visitor.get("new.test", "/").await.unwrap().unwrap().text(), "<h1>home");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outside_and_nothing_hidden_is_served() {
    let (folder, outside) = (folder(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), folder.path().join("link")).unwrap();
    let name = outside.path().file_name().unwrap().to_str().unwrap();
    let (proxy, _app) = site(folder.path(), json!({ "path": "/static", "fallback": "/index.html" })).await;
    for target in [
        "/static/.env".to_owned(),
        "/static/%2eenv".to_owned(),
        format!("/static/../{name}/secret"),
        format!("/static/%2e%2e/{name}/secret"),
        format!("/static/docs/..%2f..%2f{name}/secret"),
        format!("/static/..%5c{name}%5csecret"),
        "/static/link/secret.txt".to_owned(),
        format!("/static//{}/secret", outside.path().display()),
        "/static/app.css%00.png".to_owned(),
    ] {
        let answer = get(&proxy, &target, "").await;
        let text = answer.text();
        assert!(!text.contains("secret") && !text.contains("SECRET"), "{target}: {text}");
        assert!(matches!(answer.status, 400 | 404) || text == "<h1>home", "{target}: {}", answer.status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_it_gets_nothing_and_one_that_has_some_the_rest() {
    let folder = folder();
    let (proxy, _app) = site(folder.path(), json!({})).await;
    let first = get(&proxy, "/static/video.mp4", "").await;
    let whole = fs::read(folder.path().join("video.mp4")).unwrap();
    assert!(first.body == whole);
    let (tag, date) = (first.field("etag").unwrap(), first.field("last-modified").unwrap());
    for fields in [format!("If-None-Match: {tag}\r\n"), format!("If-Modified-Since: {date}\r\n")] {
        let again = get(&proxy, "/static/video.mp4", &fields).await;
        assert_eq!((again.status, again.body.len(), again.field("etag")), (304, 0, Some(tag)), "{fields}");
    }
    for (range, from, to) in [("0-99", 0, 100), ("2999990-", 2_999_990, 3_000_000), ("-70000", 2_930_000, 3_000_000)] {
        let part = get(&proxy, "/static/video.mp4", &format!("Range: bytes={range}\r\nIf-Range: {tag}\r\n")).await;
        assert_eq!(part.status, 206);
        assert_eq!(part.field("content-range"), Some(format!("bytes {from}-{}/3000000", to - 1).as_str()));
        assert!(part.body == whole[from..to], "{range}");
    }
    let none = get(&proxy, "/static/video.mp4", "Range: bytes=3000000-\r\n").await;
    assert_eq!((none.status, none.field("content-range")), (416, Some("bytes */3000000")));
    // curl goes on with what it has of it, over both versions of HTTP.
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let file = folder.path().join("got");
        fs::write(&file, &whole[..1_234_567]).unwrap();
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", version, "-H", "Host: shop.test", "-C", "-", "-o"]).arg(&file);
        curl.arg(format!("http://{}/static/video.mp4", proxy.address()));
        let output = tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(fs::read(&file).unwrap() == whole, "{version}");
    }
    // A new one in its place is another, and a part of the old one is not mixed with it.
    fs::write(folder.path().join("new"), b"another").unwrap();
    fs::rename(folder.path().join("new"), folder.path().join("video.mp4")).unwrap();
    let other = get(&proxy, "/static/video.mp4", &format!("Range: bytes=2-\r\nIf-Range: {tag}\r\n")).await;
    assert_eq!((other.status, other.text().as_str()), (200, "another"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_file_is_a_page_or_the_applications_as_is_set() {
    let folder = folder();
    let (proxy, app) = site(folder.path(), json!({ "path": "/", "fallback": "/index.html" })).await;
    assert_eq!(get(&proxy, "/users/7", "").await.text(), "<h1>home");
    assert_eq!(get(&proxy, "/users/john.doe", "Accept: text/html,*/*;q=0.8\r\n").await.text(), "<h1>home");
    assert_eq!(get(&proxy, "/assets/gone.js", "Accept: */*\r\n").await.status, 404);
    set(&proxy, json!({ "static": [{ "path": "/", "folder": folder.path(), "fallthrough": true }] })).await;
    assert_eq!(get(&proxy, "/app.css", "").await.text(), CSS);
    assert_eq!(get(&proxy, "/users/7", "").await.text(), "v1");
    let before = app.seen_count();
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send("POST /app.css HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().text(), "v1");
    let post = app.seen_from(before).into_iter().find(|seen| seen.first_line.starts_with("POST")).unwrap();
    assert_eq!(post.body_bytes, 5);
    // A folder that is not there keeps nobody from the application.
    set(&proxy, json!({ "static": [{ "path": "/", "folder": "/none/at/all", "fallthrough": true }] })).await;
    assert_eq!(get(&proxy, "/app.css", "").await.text(), "v1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_fields_and_codings_are_those_of_the_service() {
    let folder = folder();
    let (proxy, _app) = site(folder.path(), json!({})).await;
    let files = |auth: bool| json!([{ "path": "/static", "folder": folder.path(), "auth": auth }]);
    // The hash of `secret`.
    let users = json!({ "a": "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a" });
    for (auth, status) in [(true, 401), (false, 200)] {
        let options = json!({ "static": files(auth), "basic_auth": [{ "users": users }], "security_headers": true });
        set(&proxy, options).await;
        let answer = get(&proxy, "/static/app.css", "").await;
        assert_eq!((answer.status, answer.field("x-content-type-options")), (status, Some("nosniff")));
    }
    set(&proxy, json!({ "static": files(true), "compress": {} })).await;
    let script = get(&proxy, "/static/long.js", "Accept-Encoding: gzip, br\r\n").await;
    assert_eq!((script.field("content-encoding"), script.field("content-length")), (Some("br"), None));
    let tag = script.field("etag").unwrap();
    assert!(tag.starts_with("W/") && script.body.len() < 5000, "{tag} {}", script.body.len());
    let again = get(&proxy, "/static/long.js", &format!("Accept-Encoding: gzip, br\r\nIf-None-Match: {tag}\r\n")).await;
    assert_eq!((again.status, again.field("etag")), (304, Some(tag)));
    let part = get(&proxy, "/static/long.js", "Accept-Encoding: br\r\nRange: bytes=0-3\r\n").await;
    assert_eq!((part.status, part.text().as_str(), part.field("content-encoding")), (206, "let ", None));
    let video = get(&proxy, "/static/video.mp4", "Accept-Encoding: br\r\n").await;
    assert_eq!(video.field("content-length"), Some("3000000"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_of_a_long_file_cost_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    // Sparse: it takes no room of the disk.
    fs::File::create(folder.path().join("long.bin")).unwrap().set_len(4 << 30).unwrap();
    let app = upstream("v1").await;
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    set(&proxy, json!({ "static": [{ "path": "/static", "folder": folder.path() }] })).await;
    let before = proxy.resident_bytes();
    let mut readers = Vec::new();
    for _ in 0..50 {
        let mut socket = tokio::net::TcpStream::connect(proxy.address()).await.unwrap();
        socket.write_all(b"GET /static/long.bin HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
        let mut bytes = vec![0; 1024];
        socket.read_exact(&mut bytes).await.unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains("4294967296"));
        readers.push(socket);
    }
    // The proxy goes on answering, and what it keeps for each reader is two pieces and what hyper holds.
    assert_eq!(get(&proxy, "/", "").await.text(), "v1");
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 50 * 1024 * 1024, "{grown} bytes for 50 readers");
}
