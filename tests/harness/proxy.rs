//! A real proxy in this process: on a free port, with a state folder and an admin socket of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use proxy::app::{App, Options, Running};
use serde_json::Value;
use tempfile::TempDir;

/// A running proxy; it ends when dropped.
pub struct Proxy {
    running: Option<Running>,
    address: SocketAddr,
    admin: PathBuf,
    _folder: TempDir,
}

/// An answer on the admin socket.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The lines of the body: one document, or one a line of a stream.
    pub lines: Vec<Value>,
}

/// Starts a proxy without services, with two workers.
pub fn proxy() -> Proxy {
    let folder = tempfile::tempdir().unwrap();
    let admin = folder.path().join("admin.sock");
    let options = Options {
        config: None,
        listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        admin: admin.clone(),
        state: folder.path().join("state"),
        workers: 2,
    };
    let running = App::bind(options).unwrap().start().unwrap();
    let address = running.addresses()[0];
    Proxy { running: Some(running), address, admin, _folder: folder }
}

impl Proxy {
    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes an admin call under `If-Match: *` and waits for the whole answer.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let (admin, body) = (self.admin.clone(), body.to_string());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: admin\r\nIf-Match: *\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        tokio::task::spawn_blocking(move || {
            let mut socket = UnixStream::connect(admin).unwrap();
            socket.write_all(request.as_bytes()).unwrap();
            let mut text = String::new();
            socket.read_to_string(&mut text).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            // What isn't JSON is the framing of a chunk.
            let lines = body.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object);
            Answer { status: head[9..12].parse().unwrap(), lines: lines.collect() }
        })
        .await
        .unwrap()
    }

    /// Stages an address in the idle slot and waits for the verdict: the last line.
    pub async fn stage(&self, service: &str, address: SocketAddr) -> Value {
        let body = serde_json::json!({
            "endpoints": [address], "deadline": "5s",
            "settings": { "domains": [format!("{service}.test")] },
            "health": { "interval": "10ms" },
        });
        let answer = self.call("POST", &format!("/v1/services/{service}/stage"), body).await;
        answer.lines.last().cloned().unwrap()
    }

    /// Flips to the idle slot.
    pub async fn flip(&self, service: &str) -> Answer {
        let body = serde_json::json!({ "drain": "10s" });
        self.call("POST", &format!("/v1/services/{service}/flip"), body).await
    }

    /// Waits until the old slot has drained and returns the last line.
    pub async fn drain(&self, service: &str) -> Value {
        let answer = self.call("POST", &format!("/v1/services/{service}/drain"), serde_json::json!({})).await;
        answer.lines.last().cloned().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown(Duration::ZERO);
        }
    }
}
