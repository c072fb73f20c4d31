//! F4 while moving over: `up --replace` is killed before each thing that it does, to the engine or to the proxy, and the next run
//! brings the site up with nothing lost.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tests::{Started, client, eventually, is_soak, measured};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::docker_host::{TestGateway, Uptimer, docker, gateway};
use crate::docker_moving::recipe_beside;
use crate::programs::PROGRAMS;

const ENGINE: &str = "/var/run/docker.sock";

/// A way to the engine that ends whoever uses it before its call number so-and-so that changes something; that call is not made.
struct Tollgate {
    folder: TempDir,
    calls: Arc<AtomicU32>,
    last: Arc<AtomicU32>,
    traveller: Arc<Mutex<Option<Pid>>>,
    /// What was asked for, for messages.
    ledger: Arc<Mutex<Vec<String>>>,
}

impl Tollgate {
    fn open() -> Self {
        let gate = Self {
            folder: tempfile::tempdir().unwrap(),
            calls: Arc::default(),
            last: Arc::default(),
            traveller: Arc::default(),
            ledger: Arc::default(),
        };
        let listener = UnixListener::bind(gate.socket()).unwrap();
        let (calls, last) = (Arc::clone(&gate.calls), Arc::clone(&gate.last));
        let (traveller, ledger) = (Arc::clone(&gate.traveller), Arc::clone(&gate.ledger));
        tokio::spawn(async move {
            while let Ok((own, _)) = listener.accept().await {
                let (calls, last) = (Arc::clone(&calls), Arc::clone(&last));
                let (traveller, ledger) = (Arc::clone(&traveller), Arc::clone(&ledger));
                let toll = move |bytes: &[u8]| {
                    let Some(line) = change(bytes) else { return true };
                    let number = calls.fetch_add(1, Ordering::SeqCst) + 1;
                    ledger.lock().unwrap().push(line);
                    if number < last.load(Ordering::SeqCst) {
                        return true;
                    }
                    if let Some(traveller) = traveller.lock().unwrap().take() {
                        kill_process(traveller, Signal::KILL).unwrap();
                    }
                    false
                };
                tokio::spawn(pass(own, toll));
            }
        });
        gate
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    /// Runs `up --replace` until its call of that number; returns whether it got there, and what it was about to ask for.
    async fn replace(&self, gateway: &TestGateway, last: u32) -> (bool, String) {
        self.calls.store(0, Ordering::SeqCst);
        self.last.store(last, Ordering::SeqCst);
        self.ledger.lock().unwrap().clear();
        let mut command = tokio::process::Command::new(PROGRAMS.bgctl);
        command.args(["--host", &format!("unix://{}", self.socket().display()), "--gateway", &gateway.name]);
        command.args(["--json", "--yes", "up", "--replace", "--proxy-binary"]).arg(&gateway.proxy_binary);
        command.current_dir(self.folder.path());
        let started = Started::spawn(command);
        *self.traveller.lock().unwrap() = Some(started.pid());
        let ended = started.end().await;
        *self.traveller.lock().unwrap() = None;
        assert!(matches!(ended.code, None | Some(0)), "{}", ended.talk);
        let about_to = self.ledger.lock().unwrap().last().cloned().unwrap_or_default();
        (ended.code.is_none(), about_to)
    }
}

/// Returns the first line of a request that changes something; an exec is the way to the proxy, whose own requests are looked at.
fn change(bytes: &[u8]) -> Option<String> {
    let is_one = [&b"POST /"[..], b"PUT /", b"DELETE /"].iter().any(|method| bytes.starts_with(method));
    let line = String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next()?).into_owned();
    (is_one && !line.contains("/exec")).then_some(line)
}

/// Joins a connection to the engine for as long as its calls may pass.
async fn pass(own: UnixStream, may_pass: impl Fn(&[u8]) -> bool) {
    let Ok(engine) = UnixStream::connect(ENGINE).await else { return };
    let (mut from_own, mut to_own) = own.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let there = async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from_own.read(&mut buffer).await {
                Ok(count) if count > 0 && may_pass(&buffer[..count]) => {
                    if to_engine.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
                Ok(0) => return drop(to_engine.shutdown().await),
                _ => return,
            }
        }
    };
    // Each half is dropped at its end, so that the other side sees it.
    let back = async move { drop(tokio::io::copy(&mut from_engine, &mut to_own).await) };
    tokio::join!(there, back);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_that_is_killed_before_anything_that_it_does_is_finished_by_the_next_run() {
    const TEST: &str = "a_takeover_that_is_killed";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(v1) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    if !recipe_beside(TEST, &gateway, &v1) {
        return;
    }
    let gate = Tollgate::open();
    let app = gateway.inspect("uptimer_BLUE")["Id"].clone();
    let answers = async || {
        let answer = async { client(gateway.address()).await.ok()?.get("uptimer.test", "/").await.ok()? };
        answer.await.is_some_and(|answer| answer.status == 200)
    };
    let began = Instant::now();
    // All of them take minutes, so that usually it is some, others each time.
    let stride = if is_soak() { 1 } else { 4 };
    let mut number = 1 + std::process::id() % stride;
    let (mut killed, mut without) = (Vec::new(), Duration::ZERO);
    loop {
        let (was_killed, about_to) = gate.replace(&gateway, number).await;
        if !was_killed {
            break;
        }
        let told = format!("killed before its call {number}, {about_to}");
        let dark = Instant::now();
        let served = answers().await;
        let again = gateway.start_in(
            gate.folder.path(),
            &["up", "--replace", "--proxy-binary", gateway.proxy_binary.to_str().unwrap()],
        );
        let again = again.end().await;
        assert_eq!(again.code, Some(0), "{told}: {}", again.talk);
        eventually(&told, async || answers().await.then_some(())).await;
        without = without.max(if served { Duration::ZERO } else { dark.elapsed() });
        let expected = ["reverse-proxy", "reverse-proxy-ports", "reverse-proxy-ports_before", "reverse-proxy_before"];
        let names = gateway.containers();
        let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| *name != "uptimer_BLUE").collect();
        assert_eq!(names, expected, "{told}: {}", again.talk);
        let blue = gateway.inspect("uptimer_BLUE");
        let kept = (&blue["Id"], &blue["State"]["Running"], &blue["HostConfig"]["RestartPolicy"]["Name"]);
        assert_eq!(kept, (&app, &true.into(), &"always".into()), "{told}");
        for part in ["reverse-proxy", "reverse-proxy-ports"] {
            let policies = [part.to_owned(), format!("{part}_before")]
                .map(|name| gateway.inspect(&name)["HostConfig"]["RestartPolicy"]["Name"].clone());
            assert_eq!(policies, [Value::from("always"), "no".into()], "{told}: {part}");
        }
        let status = gateway.bgctl(&["status", "uptimer"]).await;
        let service = &status.events[0]["services"][0];
        assert_eq!((&service["live"], &service["lease"]), (&"blue".into(), &Value::Null), "{told}: {}", status.talk);
        // It is known as an instance: the next switch keeps what it runs with, and rollback finds it.
        let config = gateway.bgctl(&["config", "uptimer"]).await;
        assert!(config.events[0][0]["settings"]["port"] == 8080, "{told}: {config:?}");
        killed.push(about_to);
        go_back(&gateway).await;
        number += stride;
    }
    assert!(killed.len() >= 3, "{killed:?}");
    measured(
        TEST,
        &format!(
            "{} of {number} kills in {:?}; the longest time without an answer, until the next run was done: {without:?}",
            killed.len(),
            began.elapsed()
        ),
    );
    docker(&["rm", "-f", &gateway.named("uptimer_BLUE")]).unwrap();
}

/// Makes all as it was before anything was taken over.
async fn go_back(gateway: &TestGateway) {
    let down = gateway.bgctl(&["down", "--volumes"]).await;
    assert_eq!(down.code, Some(0), "{}", down.talk);
    for part in ["reverse-proxy-ports", "reverse-proxy"] {
        docker(&["rename", &gateway.named(&format!("{part}_before")), &gateway.named(part)]).unwrap();
        docker(&["update", "--restart", "always", &gateway.named(part)]).unwrap();
        docker(&["start", &gateway.named(part)]).unwrap();
    }
}
