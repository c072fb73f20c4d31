//! A hand-over to a successor under load: no connection is refused and no request fails, whichever of the two processes dies.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Request;
use serde_json::{Value, json};
use tests::{Load, Upstream, authority, client, eventually, load, upstream};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::programs::PROGRAMS;

/// A proxy that runs as a program, and those that come after it.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    pub(crate) address: std::net::SocketAddr,
    app: Upstream,
    /// The one that this test started; those that follow are known by their ids.
    first: Option<Child>,
}

impl Site {
    pub(crate) async fn new(config: &str) -> Self {
        Self::with(config, &[]).await
    }

    async fn with(config: &str, environment: &[(&str, &Path)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut site = Self { folder, address, app: upstream("v1").await, first: None };
        site.write("bgproxy.toml", config);
        let mut command = site.command(PROGRAMS.bgproxy.as_ref());
        command.envs(environment.iter().copied());
        site.first = Some(command.spawn().unwrap());
        eventually("it answers", async || site.try_call("GET", "/v1/version", &json!({})).ok()).await;
        let stage = json!({ "endpoints": [site.app.address()], "settings": { "domains": ["shop.test"] },
            "health": { "interval": "10ms" } });
        let staged = site.call("POST", "/v1/services/shop/stage", &stage);
        assert!(staged.contains("\"healthy\""), "{staged}");
        let chat = json!({ "endpoints": [echo().await], "settings": { "domains": ["chat.test"] },
            "health": { "enabled": false } });
        site.call("POST", "/v1/services/chat/stage", &chat);
        for service in ["shop", "chat"] {
            let flipped = site.call("POST", &format!("/v1/services/{service}/flip"), &json!({ "bake": "0s" }));
            assert!(flipped.starts_with("HTTP/1.1 200"), "{flipped}");
        }
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(["--workers", "2", "--listen", &self.address.to_string()]);
        command.arg("--config").arg(self.path("bgproxy.toml"));
        command.arg("--admin").arg(self.path("admin.sock")).arg("--state").arg(self.path("state"));
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        command.stdin(Stdio::null()).stderr(log);
        command
    }

    /// Asks for a successor; returns the exit code and what was said.
    pub(crate) async fn upgrade(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = tokio::process::Command::new(PROGRAMS.bgproxy);
        command.arg("upgrade").arg("--admin").arg(self.path("admin.sock")).args(arguments);
        let output = command.output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: &Value) -> String {
        self.try_call(method, path, body).unwrap()
    }

    fn try_call(&self, method: &str, path: &str, body: &Value) -> std::io::Result<String> {
        let body = body.to_string();
        let mut socket = std::os::unix::net::UnixStream::connect(self.path("admin.sock"))?;
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\nConnection: close\r\nContent-Length: ");
        write!(socket, "{head}{}\r\n\r\n{body}", body.len())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Returns the process that answers admin calls.
    pub(crate) fn pid(&self) -> u32 {
        let answer = self.call("GET", "/v1/version", &json!({}));
        let document: Value = serde_json::from_str(&answer[answer.find('{').unwrap()..]).unwrap();
        u32::try_from(document["pid"].as_u64().unwrap()).unwrap()
    }

    async fn visit(&self) -> u16 {
        let mut visitor = client(self.address).await.unwrap();
        visitor.get("shop.test", "/").await.unwrap().unwrap().status
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Asks for a successor that is another program.
    fn upgrade_to(&self, program: &str) -> String {
        self.call("POST", "/v1/upgrade", &json!({ "program": program }))
    }

    /// Starts a second proxy on the same state that takes over.
    pub(crate) fn take_over(&self) -> Child {
        self.command(PROGRAMS.bgproxy.as_ref()).arg("--take-over").spawn().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Ok(answer) = self.try_call("GET", "/v1/version", &json!({}))
            && let Some(pid) =
                answer.split("\"pid\":").nth(1).and_then(|rest| rest.split([',', '}']).next()?.parse().ok())
        {
            kill(pid);
        }
        if let Some(mut first) = self.first.take() {
            _ = first.kill();
            _ = first.wait();
        }
    }
}

fn kill(pid: i32) {
    _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL);
}

/// Tells whether a process has ended, or waits for its parent to notice.
pub(crate) fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// Counts what goes on beside the load of HTTP/1.1.
#[derive(Default)]
struct Beside {
    stop: AtomicBool,
    asked: AtomicU64,
    sockets: AtomicU64,
}

/// Starts an application that speaks WebSocket, and says everything back.
async fn echo() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Asks over HTTP/2 again and again; a connection that says that it ends is left for a new one, and no request may fail by it.
async fn ask_http2(address: std::net::SocketAddr, beside: Arc<Beside>) {
    while !beside.stop.load(Ordering::Relaxed) {
        let socket = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        let connection = tokio::spawn(connection);
        while let Ok(mut ready) = sender.clone().ready().await {
            if beside.stop.load(Ordering::Relaxed) {
                break;
            }
            let request = Request::builder().uri("http://shop.test/").body(()).unwrap();
            // Refused here, it was not sent: the connection had said so.
            let Ok((answer, _)) = ready.send_request(request, true) else { break };
            let answer = match answer.await {
                Ok(answer) => answer,
                // What GOAWAY says was not taken is to be sent anew (RFC 9113 section 6.8).
                Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => break,
                Err(error) => panic!("a request of HTTP/2 failed: {error}"),
            };
            assert_eq!(answer.status(), 200);
            let mut body = answer.into_body();
            let mut bytes = Bytes::new();
            while let Some(data) = body.data().await {
                bytes = data.unwrap();
            }
            assert_eq!(bytes, "v1");
            beside.asked.fetch_add(1, Ordering::Relaxed);
        }
        drop(sender);
        _ = connection.await;
    }
}

/// Opens a WebSocket, says something in it and hears it back, again and again.
async fn talk(address: std::net::SocketAddr, beside: Arc<Beside>) {
    while !beside.stop.load(Ordering::Relaxed) {
        let socket = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async("ws://chat.test/", socket).await.unwrap();
        for turn in 0..5 {
            socket.send(Message::text(format!("{turn}"))).await.unwrap();
            let heard = socket.next().await.unwrap().unwrap();
            assert_eq!(heard, Message::text(format!("{turn}")));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
        beside.sockets.fetch_add(1, Ordering::Relaxed);
    }
}

fn tls_config(site_folder: &Path, port: u16, authority: &tests::Authority) -> String {
    let issued = authority.issue(&["shop.test"]);
    std::fs::write(site_folder.join("chain.pem"), &issued.cert).unwrap();
    std::fs::write(site_folder.join("key.pem"), &issued.key).unwrap();
    let folder = site_folder.display();
    format!(
        "listen_tls = [\"127.0.0.1:{port}\"]\n[[certificates]]\ncert = \"{folder}/chain.pem\"\nkey = \"{folder}/key.pem\"\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_upgrades_under_load_fail_no_request_and_refuse_no_connection() {
    let authority = authority();
    let secrets = tempfile::tempdir().unwrap();
    let tls_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut site = Site::new(&tls_config(secrets.path(), tls_port, &authority)).await;
    let loads = [
        load(site.address, Load { keep_alive: 6, fresh: 3, posts: 3, slow: 2, streams: 2, ..Load::default() }),
        // Connections that are idle most of the time: an end that is not announced would meet one of their requests.
        load(
            site.address,
            Load { keep_alive: 20, fresh: 0, posts: 0, slow: 0, pause: Duration::from_millis(7), ..Load::default() },
        ),
        load(
            ([127, 0, 0, 1], tls_port).into(),
            Load {
                keep_alive: 2,
                fresh: 1,
                posts: 1,
                slow: 1,
                tls: Some(authority.trusted(&["http/1.1"])),
                pause: Duration::from_millis(2),
                ..Load::default()
            },
        ),
    ];
    let beside = Arc::new(Beside::default());
    let others = [
        tokio::spawn(ask_http2(site.address, Arc::clone(&beside))),
        tokio::spawn(talk(site.address, Arc::clone(&beside))),
    ];
    let mut pids = vec![site.pid()];
    for _ in 0..10 {
        let (code, said) = site.upgrade(&[]).await;
        assert_eq!(code, Some(0), "{said}");
        let pid = site.pid();
        assert!(!pids.contains(&pid) && said.contains(&pid.to_string()), "{said}");
        pids.push(pid);
        // A change is obeyed by whoever serves now.
        let changed = site.call("POST", "/v1/services/shop/maintenance", &json!({ "on": false }));
        assert!(changed.starts_with("HTTP/1.1 200"), "{changed}");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    beside.stop.store(true, Ordering::Relaxed);
    for other in others {
        other.await.unwrap();
    }
    for load in loads {
        let verdict = load.stop().await;
        verdict.assert_none_failed();
        assert!(verdict.closed > 0, "connections were told of their end");
    }
    assert!(beside.asked.load(Ordering::Relaxed) > 100 && beside.sockets.load(Ordering::Relaxed) > 2);
    // Nobody uses the old ones any more, so they end long before the deadline; the first one's exit code is known.
    let first = site.first.take().unwrap();
    let ended = tokio::task::spawn_blocking(move || first.wait_with_output().unwrap().status.code()).await.unwrap();
    assert_eq!(ended, Some(0));
    for pid in &pids[..10] {
        eventually("it has ended", async || has_ended(*pid).then_some(())).await;
    }
    assert_eq!(site.visit().await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_stays_for_one_more_answer_which_says_that_it_is_the_last() {
    let site = Site::new("").await;
    let mut visitor = client(site.address).await.unwrap();
    let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
    assert!(!answer.closes());
    let old = site.pid();
    assert_eq!(site.upgrade(&[]).await.0, Some(0));
    assert_ne!(site.pid(), old);
    // One may come before the old one has told its workers.
    eventually("an answer says that it is the last", async || {
        let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
        assert_eq!(answer.status, 200);
        answer.closes().then_some(())
    })
    .await;
    assert!(visitor.rest().await.unwrap().is_empty());
    eventually("the old one has ended", async || has_ended(old).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_after_the_upgrade_waits_for_the_old_process_and_ends_who_is_idle_there() {
    let site = Site::new("").await;
    let next = upstream("v2").await;
    let mut slow = client(site.address).await.unwrap();
    slow.send("GET /slow/1500 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("the application has it", async || (site.app.unanswered() == 1).then_some(())).await;
    let mut idle = client(site.address).await.unwrap();
    idle.get("shop.test", "/").await.unwrap().unwrap();
    let old = site.pid();
    assert_eq!(site.upgrade(&[]).await.0, Some(0));
    let stage = json!({ "endpoints": [next.address()], "health": { "interval": "10ms" } });
    assert!(site.call("POST", "/v1/services/shop/stage", &stage).contains("\"healthy\""));
    let flipped = site.call("POST", "/v1/services/shop/flip", &json!({ "bake": "0s" }));
    assert!(flipped.starts_with("HTTP/1.1 200"), "{flipped}");
    // Nobody may be sent to the version that was left: an idle connection of the old process ends now.
    assert!(idle.rest().await.unwrap().is_empty());
    assert_eq!(site.app.unanswered(), 1, "long before the request under way has its answer");
    let drained = site.call("POST", "/v1/services/shop/drain", &json!({}));
    assert!(drained.contains("\"drained\""), "{drained}");
    assert_eq!(site.app.unanswered(), 0, "only then may the old version be stopped");
    assert_eq!(slow.answer().await.unwrap().unwrap().field("x-version"), Some("v1"));
    eventually("the old one has ended", async || has_ended(old).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_saved_goes_over_and_a_changed_file_and_other_addresses_are_taken_up() {
    let site = Site::new("").await;
    let before = site.call("GET", "/v1/services/shop", &json!({}));
    site.call("POST", "/v1/services/shop/maintenance", &json!({ "on": true, "message": "soon" }));
    let more = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = site.path("bgproxy.toml").display().to_string();
    let state = site.path("state").display().to_string();
    let (here, more_text) = (site.address.to_string(), more.to_string());
    let arguments =
        ["--config", &config, "--state", &state, "--listen", &here, "--listen", &more_text, "--workers", "5"];
    let (code, said) = site.upgrade(&arguments).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(client(more).await.unwrap().get("shop.test", "/").await.unwrap().unwrap().status, 503);
    site.call("POST", "/v1/services/shop/maintenance", &json!({ "on": false }));
    let after = site.call("GET", "/v1/services/shop", &json!({}));
    let live = |text: &str| text.split("\"live\":").nth(1).unwrap()[..7].to_owned();
    assert_eq!(live(&before), live(&after));
    // Fewer workers than sockets: each of them is accepted from.
    let (code, said) =
        site.upgrade(&["--config", &config, "--state", &state, "--listen", &here, "--workers", "1"]).await;
    assert_eq!(code, Some(0), "{said}");
    for _ in 0..100 {
        assert_eq!(site.visit().await, 200);
    }
    eventually("what is not listened on any more is closed", async || client(more).await.err()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_can_not_start_leaves_the_old_one_serving_and_says_why() {
    let site = Site::new("").await;
    let pid = site.pid();
    let running = load(site.address, Load::default());
    // Its file is refused.
    site.write("bgproxy.toml", "listne = []\n");
    let (code, said) = site.upgrade(&[]).await;
    assert!(code == Some(1) && said.contains("listne") && said.contains("serves on"), "{code:?} {said}");
    site.write("bgproxy.toml", "");
    // It is of a version that can't read the state.
    let saved = site.path("state/services/shop.json");
    let text = std::fs::read_to_string(&saved).unwrap();
    std::fs::write(&saved, text.replacen("bluegreen-state 1", "bluegreen-state 99", 1)).unwrap();
    let (code, said) = site.upgrade(&[]).await;
    assert!(code == Some(1) && said.contains("newer version"), "{code:?} {said}");
    std::fs::write(&saved, text).unwrap();
    // An address is someone else's.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = site.path("bgproxy.toml").display().to_string();
    let state = site.path("state").display().to_string();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = site.upgrade(&["--config", &config, "--state", &state, "--listen", &address]).await;
    assert!(code == Some(1) && said.contains(&address), "{code:?} {said}");
    // What it wants last of all is someone else's, when it has everything else: the admin socket stays where it is.
    site.write("bgproxy.toml", &format!("metrics = \"{address}\"\n"));
    let (code, said) = site.upgrade(&[]).await;
    assert!(code == Some(1) && said.contains(&address), "{code:?} {said}");
    site.write("bgproxy.toml", "");
    // It is no program.
    let answer = site.upgrade_to("/nowhere/bgproxy");
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("can't be started"), "{answer}");
    assert_eq!(site.pid(), pid);
    running.stop().await.assert_none_failed();
    // Nothing of it is in the way of one that can.
    assert_eq!(site.upgrade(&[]).await.0, Some(0));
    assert_ne!(site.pid(), pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_successor_could_not_take_up_is_waited_for() {
    let site = Site::new("").await;
    let next = upstream("v2").await;
    let pid = site.pid();
    let refused = async |word: &str| {
        let (code, said) = site.upgrade(&[]).await;
        assert!(code == Some(1) && said.contains(word) && said.contains("hint: "), "{code:?} {said}");
        assert_eq!(site.pid(), pid);
    };
    let stage = json!({ "endpoints": [next.address()], "health": { "interval": "10ms" } });
    site.call("POST", "/v1/services/shop/stage", &stage);
    refused("waits for its flip").await;
    site.call("POST", "/v1/services/shop/flip", &json!({ "bake": "60s" }));
    refused("is watched").await;
    site.call("POST", "/v1/services/shop/flip", &json!({ "bake": "0s" }));
    let mut slow = client(site.address).await.unwrap();
    slow.send("GET /slow/20000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("the application has it", async || (site.app.unanswered() == 1).then_some(())).await;
    site.call("POST", "/v1/services/shop/flip", &json!({ "bake": "0s", "drain": "30s" }));
    refused("drains").await;
    drop(slow);
    eventually("it has drained", async || {
        (!site.call("GET", "/v1/services/shop", &json!({})).contains("draining")).then_some(())
    })
    .await;
    site.call("POST", "/v1/services/shop/pause", &json!({ "drain": "0s" }));
    refused("is paused").await;
    site.call("POST", "/v1/services/shop/resume", &json!({}));
    let lease = json!({ "action": "acquire", "who": "ann@desk", "what": "switch" });
    let lease = site.call("POST", "/v1/services/shop/lease", &lease);
    assert!(lease.starts_with("HTTP/1.1 200"), "{lease}");
    refused("ann@desk").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_is_killed_at_any_instant_before_it_serves_costs_nothing() {
    let site = Site::new("").await;
    let running = load(site.address, Load::default());
    let mut taken_over = 0;
    for delay in 0..40 {
        let pid = site.pid();
        let mut next = site.take_over();
        tokio::time::sleep(Duration::from_micros(delay * 700)).await;
        next.kill().unwrap();
        next.wait().unwrap();
        let now = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                // Killed when it served, there is nobody: what was handed over is gone with it.
                match site.try_call("GET", "/v1/version", &json!({})) {
                    Ok(answer) if answer.starts_with("HTTP/1.1 200") => return Some(site.pid()),
                    _ if has_ended(pid) || site.log().contains("a successor serves") => return None,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        match now.await.unwrap() {
            Some(now) => assert_eq!(now, pid, "after {delay}"),
            None => {
                taken_over = delay;
                break;
            }
        }
        // The state is its own again.
        let changed = eventually("it changes things again", async || {
            let answer = site.call("POST", "/v1/services/shop/maintenance", &json!({ "on": false }));
            (!answer.starts_with("HTTP/1.1 503")).then_some(answer)
        });
        assert!(changed.await.starts_with("HTTP/1.1 200"));
    }
    let verdict = running.stop().await;
    if taken_over == 0 {
        verdict.assert_none_failed();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_one_killed_while_the_successor_starts_leaves_a_successor_that_serves() {
    let mut site = Site::new("").await;
    let mut next = site.command(PROGRAMS.bgproxy.as_ref()).arg("--take-over").spawn();
    // Without a way to stop it half-way, many instants are tried.
    for delay in [0u64, 1, 2, 4, 8, 12, 16, 24] {
        let mut taker = match next {
            Ok(child) => child,
            Err(error) => panic!("{error}"),
        };
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let mut first = site.first.take().unwrap();
        first.kill().unwrap();
        first.wait().unwrap();
        let began = Instant::now();
        let serves = loop {
            if let Ok(mut visitor) = client(site.address).await
                && let Ok(Some(answer)) = visitor.get("shop.test", "/").await
            {
                break answer.status == 200;
            }
            // Killed before it had given anything, it left a plain start, or one that says why not.
            if taker.try_wait().unwrap().is_some() {
                break false;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "nobody serves after {delay} ms");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        if !serves {
            _ = taker.wait();
            taker = site.command(PROGRAMS.bgproxy.as_ref()).arg("--take-over").spawn().unwrap();
            eventually("it starts anew", async || client(site.address).await.ok()).await;
        }
        assert_eq!(site.visit().await, 200, "after {delay} ms");
        eventually("it answers admin calls", async || site.try_call("GET", "/v1/version", &json!({})).ok()).await;
        site.first = Some(taker);
        next = site.command(PROGRAMS.bgproxy.as_ref()).arg("--take-over").spawn();
    }
    if let Ok(mut taker) = next {
        _ = taker.kill();
        _ = taker.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_takes_over_where_nobody_runs_just_starts_and_a_silent_one_is_not_waited_for_by_visitors() {
    let mut site = Site::new("").await;
    let mut first = site.first.take().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    site.first = Some(site.take_over());
    eventually("it answers", async || client(site.address).await.ok()).await;
    assert_eq!(site.visit().await, 200);
    // Whoever asks and then says nothing holds nobody up.
    let silent = std::os::unix::net::UnixStream::connect(site.path("state/handover.sock")).unwrap();
    assert_eq!(site.visit().await, 200);
    let (code, said) = site.upgrade(&[]).await;
    assert_eq!(code, Some(0), "{said}");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_wait_for_a_successor_and_one_that_falls_silent_is_given_up() {
    let site = Site::new("").await;
    let hello = |protocol: u32| {
        let mut socket = std::os::unix::net::UnixStream::connect(site.path("state/handover.sock")).unwrap();
        let text = json!({ "word": "hello", "protocol": protocol, "version": "test" }).to_string();
        socket.write_all(&u32::try_from(text.len()).unwrap().to_be_bytes()).unwrap();
        socket.write_all(text.as_bytes()).unwrap();
        socket
    };
    let change = || site.call("POST", "/v1/services/shop/maintenance", &json!({ "on": false }));
    // One of another kind is told so, and holds nothing up.
    let mut said = String::new();
    let mut other = hello(7);
    other.read_exact(&mut [0; 4]).unwrap();
    other.read_to_string(&mut said).unwrap();
    assert!(said.contains("another hand-over"), "{said}");
    assert!(change().starts_with("HTTP/1.1 200"));
    for is_gone in [true, false] {
        let silent = hello(1);
        let refused = eventually("no change is let in", async || {
            let answer = change();
            answer.starts_with("HTTP/1.1 503").then_some(answer)
        })
        .await;
        assert!(refused.contains("handing_over") && refused.contains("again in a moment"), "{refused}");
        assert_eq!(site.visit().await, 200);
        // What is asked is answered, and a second successor is not.
        assert!(site.call("GET", "/v1/services/shop", &json!({})).starts_with("HTTP/1.1 200"));
        assert_eq!(site.upgrade(&[]).await.0, Some(1));
        let mut silent = Some(silent);
        if is_gone {
            silent.take();
        }
        let began = Instant::now();
        while !change().starts_with("HTTP/1.1 200") {
            assert!(began.elapsed() < Duration::from_secs(40), "it is waited for without an end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(began.elapsed() > Duration::from_secs(25), !is_gone);
    }
    assert_eq!(site.upgrade(&[]).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_supervisor_is_told_which_process_is_the_one_to_look_after() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let length = notify.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let site = Site::with("", &[("NOTIFY_SOCKET", &path)]).await;
    assert_eq!(told(), format!("MAINPID={}\nREADY=1\n", site.pid()));
    assert_eq!(site.upgrade(&[]).await.0, Some(0));
    let expected = format!("MAINPID={}\nREADY=1\n", site.pid());
    // By itself, and by the one before it, which alone is believed.
    assert_eq!((told(), told()), (expected.clone(), expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_outlives_the_upgrade_and_is_closed_with_a_handshake_at_the_deadline() {
    let site = Site::new("[limits]\nshutdown_timeout = \"1s\"\n").await;
    let socket = TcpStream::connect(site.address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://chat.test/", socket).await.unwrap();
    let old = site.pid();
    assert_eq!(site.upgrade(&[]).await.0, Some(0));
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("still here"));
    let last = socket.next().await.unwrap().unwrap();
    assert!(last.is_close(), "{last:?}");
    while let Some(Ok(_)) = socket.next().await {}
    eventually("the old one has ended", async || has_ended(old).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_upgrade_of_plain_processes_hands_over_and_down_finds_the_successor() {
    let site = tests::Site::new(PROGRAMS);
    let image = site.version("v1", Duration::ZERO);
    site.up().await;
    let switched = site.switch(&image, &[]).end().await;
    assert_eq!(switched.code, Some(0), "{}", switched.talk);
    let running = load(site.address(), Load { posts: 0, slow: 0, ..Load::default() });
    let other = tempfile::tempdir().unwrap();
    let binary = other.path().join("bgproxy");
    std::fs::copy(PROGRAMS.bgproxy, &binary).unwrap();
    let up = site.bgctl(&["up", "--upgrade", "--proxy-binary", binary.to_str().unwrap()]).await;
    assert!(up.code == Some(0) && up.talk.contains("handed over"), "{}", up.talk);
    assert_eq!(site.shop().await["live"], "blue");
    let successor = site.processes().iter().find(|(_, line)| line.contains("--take-over")).unwrap().0;
    running.stop().await.assert_none_failed();
    let down = site.bgctl(&["down", "--volumes", "--yes"]).await;
    assert_eq!(down.code, Some(0), "{}", down.talk);
    let pid = u32::try_from(successor.as_raw_nonzero().get()).unwrap();
    eventually("the successor has ended", async || has_ended(pid).then_some(())).await;
}
