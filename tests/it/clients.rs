//! Programs that people really use, through the proxy: curl, wget, h2load, slowhttptest, Python's clients, a browser.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Proxy, client, eventually, measured, proxy, proxy_program, skipped};

use crate::programs::PROGRAMS;

/// Python with what `tests/clients/requirements.txt` names.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/clients/bin/python");
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

/// Tells whether a program is there; where it is not the test is skipped, or fails where it must not be.
fn has(test: &str, program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !is_there {
        let required = std::env::var_os("BG_REQUIRE_CLIENTS").is_some_and(|value| value == "1");
        assert!(!required, "{program} is not installed, and BG_REQUIRE_CLIENTS wants it");
        skipped(test, &format!("{program} is not installed (`make clients`)"));
    }
    is_there
}

/// A program that runs beside the test, and ends with it.
struct Beside {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Beside {
    fn start(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.current_dir(SCRIPTS).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it ended without a word");
        line.trim().to_owned()
    }

    /// Waits until it has ended well, and returns its last line.
    async fn end(mut self) -> String {
        tokio::task::spawn_blocking(move || {
            let last = self.lines.by_ref().lines().map(Result::unwrap).last();
            let status = self.child.wait().unwrap();
            assert!(status.success(), "{status}");
            last.unwrap_or_default()
        })
        .await
        .unwrap()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server in Python, which prints its port when it listens.
fn server(script: &str, args: &[&str]) -> (Beside, SocketAddr) {
    let mut server = Beside::start(PYTHON, &[&[script], args].concat());
    let port: u16 = server.line().parse().unwrap();
    (server, ([127, 0, 0, 1], port).into())
}

fn app(version: &str, http: &str) -> (Beside, SocketAddr) {
    server("app.py", &[version, http, "/dev/null"])
}

/// Runs a program to its end; panics with what it said where it fails.
async fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.current_dir(SCRIPTS).args(args).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {}: {}\n{said}", args.join(" "), output.status);
    output
}

/// Puts an application behind every host, or behind the hosts and paths that are named.
async fn serve(proxy: &Proxy, service: &str, address: SocketAddr, settings: Value) {
    let body = json!({ "endpoints": [address], "settings": settings, "health": { "enabled": false } });
    let staged = proxy.call("POST", &format!("/v1/services/{service}/stage"), body).await;
    assert_eq!(staged.lines.last().unwrap()["event"], "healthy", "{staged:?}");
    assert_eq!(proxy.flip(service).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_and_wget_get_and_send_what_they_asked_for() {
    const NAME: &str = "curl_and_wget_get_and_send_what_they_asked_for";
    if !(has(NAME, "curl") && has(NAME, "wget") && has(NAME, PYTHON)) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let upload = folder.path().join("upload");
    std::fs::write(&upload, (0..2_000_000_u32).flat_map(u32::to_le_bytes).take(2 << 20).collect::<Vec<_>>()).unwrap();
    let upload_from = format!("@{}", upload.display());
    for http in ["HTTP/1.1", "HTTP/1.0"] {
        let (_app, address) = app("one", http);
        let proxy = proxy();
        serve(&proxy, "shop", address, json!({})).await;
        let url = format!("http://{}", proxy.address());
        let at = |path: &str| format!("{url}{path}");
        let (hello, echo, big) = (at("/hello"), at("/echo"), at("/big"));
        for version in ["--http1.1", "--http1.0", "--http2-prior-knowledge"] {
            // One at a time: curl 7.88 can't use a connection of prior knowledge again, with nginx neither.
            let said = run("curl", &["-sS", "--fail", version, &hello]).await.stdout;
            assert_eq!(said, b"hello from one", "{http} {version}");
            let sent = run("curl", &["-sS", "--fail", version, "--data-binary", &upload_from, &echo]).await.stdout;
            assert!(sent == std::fs::read(&upload).unwrap(), "{http} {version}");
            assert_eq!(run("curl", &["-sS", "--fail", version, &big]).await.stdout.len(), 5_120_000);
        }
        // Both on one connection, whatever the application does with its own.
        let counted = run(
            "curl",
            &[
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{num_connects}",
                &hello,
                "--next",
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{num_connects}",
                &hello,
            ],
        )
        .await;
        assert_eq!(counted.stdout, b"10", "{http}");
        let chunked = ["-sS", "--fail", "-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"];
        let sent = run("curl", &[&chunked[..], &["--data-binary", &upload_from, &echo]].concat()).await.stdout;
        assert!(sent == std::fs::read(&upload).unwrap(), "{http}");
        let head = String::from_utf8(run("curl", &["-sS", "--head", &big]).await.stdout).unwrap();
        assert!(head.to_lowercase().contains("content-length: 5120000"), "{head}");
        // wget follows links on kept-alive connections.
        let crawled = folder.path().join(http.replace('/', "-"));
        let into = crawled.to_str().unwrap();
        run("wget", &["-q", "--recursive", "--level=1", "-nH", "-P", into, &at("/index")]).await;
        assert_eq!(std::fs::read(crawled.join("hello")).unwrap(), b"hello from one");
        assert_eq!(std::fs::metadata(crawled.join("big")).unwrap().len(), 5_120_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_fails_no_request_in_either_version() {
    const NAME: &str = "h2load_fails_no_request_in_either_version";
    if !has(NAME, "h2load") {
        return;
    }
    let (app, proxy) = (tests::upstream("v1").await, proxy());
    serve(&proxy, "shop", app.address(), json!({})).await;
    let url = format!("http://{}/", proxy.address());
    for version in [&["-m", "16"][..], &["--h1"]] {
        let args = [&["-n", "20000", "-c", "32", "-t", "1"], version, &[&url]].concat();
        let said = String::from_utf8(run("h2load", &args).await.stdout).unwrap();
        assert!(said.contains("20000 succeeded, 0 failed, 0 errored, 0 timeout"), "{version:?}: {said}");
        assert!(said.contains("status codes: 20000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{version:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowhttptest_takes_nobody_elses_time() {
    const NAME: &str = "slowhttptest_takes_nobody_elses_time";
    if Command::new("slowhttptest").arg("-h").output().is_err() && !has(NAME, "slowhttptest") {
        return;
    }
    let app = tests::upstream("v1").await;
    let limits = "[limits]\nheader_timeout = \"2s\"\nbody_idle_timeout = \"2s\"\n";
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(limits);
    proxy.start().await;
    serve(&proxy, "shop", app.address(), json!({})).await;
    let url = format!("http://{}/", proxy.address());
    // Slow heads, slow bodies, and answers that are read byte by byte.
    for attack in [
        &["-H", "-i", "1", "-x", "24"][..],
        &["-B", "-i", "5", "-s", "8192"],
        &["-X", "-w", "1", "-y", "1", "-n", "5", "-z", "1"],
    ] {
        let args = [&["-c", "300", "-r", "300", "-l", "6", "-p", "3", "-u", &url], attack].concat();
        let mut attacker = Beside::start("slowhttptest", &args);
        let mut slowest = Duration::ZERO;
        let mut count = 0;
        while attacker.child.try_wait().unwrap().is_none() {
            let began = Instant::now();
            let mut visitor = client(proxy.address()).await.unwrap();
            assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
            slowest = slowest.max(began.elapsed());
            count += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(count > 20 && slowest < Duration::from_secs(1), "{attack:?}: {slowest:?} of {count}");
        measured("slowhttptest", &format!("{}: the slowest of {count} other requests took {slowest:?}", attack[0]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_requests_and_websockets_work_and_live_through_flips() {
    const NAME: &str = "python_requests_and_websockets_work_and_live_through_flips";
    if !has(NAME, PYTHON) {
        return;
    }
    let (_one, one) = app("one", "HTTP/1.1");
    let (_two, two) = app("two", "HTTP/1.0");
    let (_blue, blue) = server("socket_app.py", &["blue"]);
    let (_green, green) = server("socket_app.py", &["green"]);
    let proxy = proxy();
    serve(&proxy, "shop", one, json!({})).await;
    serve(&proxy, "chat", blue, json!({ "paths": ["/socket"] })).await;
    let (url, socket) = (format!("http://{}", proxy.address()), format!("ws://{}/socket", proxy.address()));
    run(PYTHON, &["requests_client.py", &url]).await;
    run(PYTHON, &["socket_client.py", &socket]).await;
    let mut asking = Beside::start(PYTHON, &["requests_client.py", &url, "3"]);
    let mut talking = Beside::start(PYTHON, &["socket_client.py", &socket, "3"]);
    assert_eq!((asking.line(), talking.line()), ("began".to_owned(), "began".to_owned()));
    for flip in 0..6 {
        let (shop, chat) = if flip % 2 == 0 { (two, green) } else { (one, blue) };
        serve(&proxy, "shop", shop, json!({})).await;
        serve(&proxy, "chat", chat, json!({ "paths": ["/socket"] })).await;
    }
    let (asked, talked) = (asking.end().await, talking.end().await);
    assert!(asked.contains("'one'"), "{asked}");
    // The one connection stays with the version that it began with.
    assert!(talked.starts_with("blue "), "{talked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_works_in_all_four_kinds_of_call() {
    const NAME: &str = "grpc_works_in_all_four_kinds_of_call";
    if !has(NAME, PYTHON) {
        return;
    }
    let (mut app, address) = server("grpc_app.py", &[]);
    let proxy = proxy();
    let body = json!({
        "endpoints": [address], "settings": { "domains": ["grpc.test"] },
        "health": { "path": "/grpc.health.v1.Health/Check", "interval": "50ms" },
    });
    let staged = proxy.call("POST", "/v1/services/grpc/stage", body).await;
    assert_eq!(staged.lines.last().unwrap()["event"], "healthy", "{staged:?}");
    assert_eq!(proxy.flip("grpc").await.status, 200);
    let said = run(PYTHON, &["grpc_client.py", &proxy.address().to_string()]).await.stdout;
    assert_eq!(String::from_utf8(said).unwrap().trim(), "all kinds");
    // The call that its client gave up ended at the application too.
    assert_eq!(app.line(), "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_sees_events_as_they_come_and_has_its_websocket() {
    const NAME: &str = "a_browser_sees_events_as_they_come_and_has_its_websocket";
    if !(has(NAME, "chromium") && has(NAME, PYTHON)) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let (_app, address) = server("app.py", &["one", "HTTP/1.1", report.to_str().unwrap()]);
    let (_socket, socket) = server("socket_app.py", &["hello from the socket"]);
    let proxy = proxy();
    serve(&proxy, "shop", address, json!({})).await;
    serve(&proxy, "chat", socket, json!({ "paths": ["/socket"] })).await;
    let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
    let page = format!("http://{}/page", proxy.address());
    let quiet = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
    let _browser = Beside::start("chromium", &[&quiet[..], &[&profile, "--remote-debugging-port=0", &page]].concat());
    let report = wait_for(&report).await;
    assert_eq!(report["fetched"], json!(["hello from one", "hello from one", "hello from one"]));
    assert_eq!(report["said"], "hello from the socket");
    let times: Vec<f64> =
        report["events"].as_array().unwrap().iter().map(|event| event["at"].as_f64().unwrap()).collect();
    // Sent a tenth of a second apart; kept back they would come at once.
    assert!(times.len() == 5 && times[4] - times[0] > 250.0, "{times:?}");
}

/// The page starts within ten seconds or twenty on a busy machine.
async fn wait_for(report: &Path) -> Value {
    let report = PathBuf::from(report);
    for _ in 0..5 {
        let read = async || std::fs::read(&report).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Ok(found) = tokio::time::timeout(Duration::from_secs(9), eventually("the browser reports", read)).await {
            return found;
        }
    }
    panic!("the browser said nothing");
}
