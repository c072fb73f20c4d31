//! `bgctl demo` by the real binary, where its parts fail: told by the exit code, and nothing is left behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_demo_without_a_proxy_ends_with_two_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let proxy = home.path().join("bgproxy");
    fs::write(&proxy, "#!/bin/sh\necho no port for me >&2\nexit 1\n").unwrap();
    fs::set_permissions(&proxy, fs::Permissions::from_mode(0o755)).unwrap();
    let state = home.path().join("state");
    let output = Command::new(env!("CARGO_BIN_EXE_bgctl"))
        .args(["demo", "--fast", "--proxy-binary"])
        .arg(&proxy)
        .env("XDG_STATE_HOME", &state)
        .env("TMPDIR", home.path())
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{talk}");
    assert!(talk.contains("no port for me"), "{talk}");
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "the state is gone");
    let left = fs::read_dir(home.path()).unwrap().flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("bgctl-demo")));
}

#[test]
fn the_demos_application_loads_answers_in_http_1_0_and_logs_the_ids() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    // Not a pipe: it tells of each request, and stands still where nobody empties that.
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut application = Command::new(env!("CARGO_BIN_EXE_bgctl"))
        .args(["demo-uptimer", "--release", "3", "--load", "300ms"])
        .env("PORT", port.to_string())
        .stdout(Stdio::from(log.reopen().unwrap()))
        .spawn()
        .unwrap();
    let ask = |request: &str| {
        let mut answer = String::new();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        // While nobody listens a connection may happen to be given the very port, and then it talks to itself.
        if stream.local_addr().ok()? == stream.peer_addr().ok()? {
            return None;
        }
        stream.write_all(request.as_bytes()).ok()?;
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut was_loading = false;
    loop {
        assert!(Instant::now() < deadline);
        match ask("GET / HTTP/1.0\r\n\r\n") {
            Some(answer) if answer.starts_with("HTTP/1.0 503 ") => was_loading = true,
            Some(answer) => {
                assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
                assert!(answer.ends_with("\r\n\r\nUptimer v3.0 is running for 0 seconds.\n"), "{answer}");
                break;
            }
            None => std::thread::yield_now(),
        }
    }
    assert!(was_loading);
    let answer = ask("POST / HTTP/1.1\r\nUptimer-Id: a-1\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    assert!(answer.contains("Uptimer v3.0 received 2 bytes as a-1"), "{answer}");
    application.kill().unwrap();
    application.wait().unwrap();
    assert!(fs::read_to_string(log.path()).unwrap().contains("received a-1\n"));
}
