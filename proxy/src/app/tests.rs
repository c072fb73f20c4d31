//! A whole proxy in this process: what it refuses to start on, what it leaves behind, and what a panic ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::*;
use crate::telemetry::panics;

fn options(folder: &Path) -> Options {
    Options {
        config: None,
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        listen_tls: Vec::new(),
        admin: folder.join("admin.sock"),
        state: folder.join("state"),
        workers: 2,
        takes_over: false,
        program: None,
    }
}

#[test]
fn a_second_proxy_on_the_same_state_is_refused_and_an_ended_one_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let running = App::bind(options(folder.path())).unwrap().start().unwrap();
    assert_ne!(running.addresses()[0].port(), 0);
    assert!(matches!(App::bind(options(folder.path())).err(), Some(StartError::StateTaken(_))));
    running.shutdown(Duration::from_secs(5));
    assert!(!folder.path().join("admin.sock").exists());
    App::bind(options(folder.path())).unwrap();
}

#[test]
fn a_port_in_use_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = Options { listen: vec![taken.local_addr().unwrap()], ..options(folder.path()) };
    assert!(matches!(App::bind(options).err(), Some(StartError::Listen { .. })));
}

/// Sends a request and returns all that comes until the other side closes.
fn ask(mut socket: impl Read + Write, request: &str) -> String {
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn control_and_workers_go_on_after_a_panic_in_the_midst_of_their_own_work() {
    panics::tell();
    let folder = tempfile::tempdir().unwrap();
    let running = App::bind(options(folder.path())).unwrap().start().unwrap();
    let put = |body: &str| {
        let length = body.len();
        let head = "PUT /v1/proxy HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\nConnection: close\r\nContent-Length: ";
        ask(UnixStream::connect(running.admin()).unwrap(), &format!("{head}{length}\r\n\r\n{body}"))
    };
    // Whoever asked is told, and the next order is obeyed.
    let failed = put(r#"{"log":{"access":"json","access_file":"/panics.log"}}"#);
    assert!(failed.starts_with("HTTP/1.1 500 ") && failed.contains("failed at this"), "{failed}");
    let unchanged = put("{}");
    assert!(unchanged.starts_with("HTTP/1.1 200 ") && unchanged.contains(r#""generation":1"#), "{unchanged}");
    // Every worker panics at this, again and again until it is taken back.
    let before = panics::count();
    assert!(put(r#"{"limits":{"connections":666666}}"#).starts_with("HTTP/1.1 200 "));
    let wait = Instant::now();
    while panics::count() < before + 2 {
        assert!(wait.elapsed() < Duration::from_secs(10), "no worker took it up");
        thread::yield_now();
    }
    assert!(put(r#"{"limits":{"idle_timeout":"100ms"}}"#).starts_with("HTTP/1.1 200 "));
    // Only who looks after clients ends one that is idle, and both do.
    for _ in 0..8 {
        let mut idle = TcpStream::connect(running.addresses()[0]).unwrap();
        idle.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let began = Instant::now();
        idle.read_to_end(&mut Vec::new()).unwrap();
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    running.shutdown(Duration::from_secs(5));
}

#[test]
fn a_panic_ends_its_request_alone_and_is_counted() {
    panics::tell();
    let folder = tempfile::tempdir().unwrap();
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = app.local_addr().unwrap();
    let running = App::bind(Options { workers: 1, ..options(folder.path()) }).unwrap().start().unwrap();
    let admin = |method: &str, path: &str, body: &str| {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        ask(UnixStream::connect(running.admin()).unwrap(), &(head + body))
    };
    for (name, endpoint) in [("shop", endpoint.to_string()), ("bad", "unix:/panics.sock".to_owned())] {
        let stage = format!(
            r#"{{"endpoints":["{endpoint}"],"health":{{"enabled":false}},"settings":{{"domains":["{name}.test"]}}}}"#
        );
        admin("POST", &format!("/v1/services/{name}/stage"), &stage);
        let flipped = admin("POST", &format!("/v1/services/{name}/flip"), "");
        assert!(flipped.starts_with("HTTP/1.1 200"), "{flipped}");
    }
    let visit = || TcpStream::connect(running.addresses()[0]).unwrap();
    let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}.test\r\nConnection: close\r\n\r\n");
    // A request of another connection of the same worker is under way meanwhile.
    let mut other = visit();
    other.write_all(get("shop").as_bytes()).unwrap();
    let (mut asked, _) = app.accept().unwrap();
    for count in 1..=2 {
        let answer = ask(visit(), &get("bad"));
        assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("connection: close"), "{answer}");
        let metrics = admin("GET", "/metrics", "");
        assert!(metrics.contains(&format!("\nbgproxy_panics_total {count}\n")), "{metrics}");
    }
    // Both are counted as answers of that version, by which it is judged.
    let metrics = admin("GET", "/metrics", "");
    let counted = "bgproxy_requests_total{service=\"bad\",slot=\"blue\",class=\"5xx\"} 2\n";
    assert!(metrics.contains(counted), "{metrics}");
    let status = |name: &str| admin("GET", &format!("/v1/services/{name}"), "");
    // Its claim was given back, and the other's is still there.
    assert!(!status("bad").contains("\"in_flight\":1"), "{}", status("bad"));
    assert!(status("shop").contains("\"in_flight\":1"), "{}", status("shop"));
    asked.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
    let answer = ask(other, "");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
    running.shutdown(Duration::from_secs(5));
}
