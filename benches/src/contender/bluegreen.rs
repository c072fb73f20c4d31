//! `bgproxy`, as a user runs it, switched by its admin calls.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{Call, ask, serves};
use crate::child::Child;
use crate::error::Error;
use crate::visitor::HOST;

const PROGRAM: &str = "bgproxy";

/// A running `bgproxy` with one service.
#[derive(Debug)]
pub(super) struct Bluegreen {
    address: SocketAddr,
    admin: PathBuf,
    _child: Child,
}

impl Bluegreen {
    pub(super) async fn start(program: &Path, folder: &Path, backend: SocketAddr) -> Result<Self, Error> {
        let (admin, config) = (folder.join("admin.sock"), folder.join("bgproxy.toml"));
        // An empty one, so that the system's own has no say.
        fs::write(&config, "").map_err(Error::io("write bgproxy.toml"))?;
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0", "--workers", "1"]);
        command.arg("--config").arg(config).arg("--state").arg(folder.join("state")).arg("--admin").arg(&admin);
        let mut child = Child::start(&mut command, PROGRAM, folder)?;
        child.until(async || status(&admin).await.is_some()).await?;
        let address = status(&admin).await.ok_or_else(|| refused("GET /v1/status", "no address"))?;
        let proxy = Self { address, admin, _child: child };
        proxy.stage(backend).await?;
        proxy.flip().await?;
        if serves(address).await { Ok(proxy) } else { Err(refused("GET /", "no answer of the application")) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stages an application in the idle slot and waits until it is healthy.
    pub(super) async fn stage(&self, backend: SocketAddr) -> Result<(), Error> {
        let body = json!({
            "endpoints": [backend], "deadline": "5s",
            "settings": { "domains": [HOST] },
            "health": { "interval": "10ms" },
        });
        self.until("stage", &body, "healthy").await
    }

    pub(super) async fn flip(&self) -> Result<Call, Error> {
        let (call, answer) = self.post("flip", &json!({})).await?;
        if answer.starts_with("HTTP/1.1 200 ") { Ok(call) } else { Err(refused("flip", &answer)) }
    }

    /// Waits until nothing is in flight on the old slot.
    pub(super) async fn drained(&self) -> Result<(), Error> {
        self.until("drain", &json!({}), "drained").await
    }

    async fn until(&self, verb: &str, body: &Value, event: &str) -> Result<(), Error> {
        let (_, answer) = self.post(verb, body).await?;
        // What isn't JSON is the framing of a chunk.
        let last = answer.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).rfind(Value::is_object);
        if last.is_some_and(|last| last["event"] == event) { Ok(()) } else { Err(refused(verb, &answer)) }
    }

    async fn post(&self, verb: &str, body: &Value) -> Result<(Call, String), Error> {
        let body = body.to_string();
        let head = format!("POST /v1/services/bench/{verb} HTTP/1.1\r\nHost: admin\r\nIf-Match: *\r\n");
        let length = body.len();
        ask(&self.admin, &format!("{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}")).await
    }
}

/// Returns the address that it listens on, once it answers.
async fn status(admin: &Path) -> Option<SocketAddr> {
    let call = "GET /v1/status HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n";
    let (_, answer) = ask(admin, call).await.ok()?;
    let status: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    status["listeners"][0].as_str()?.parse().ok()
}

fn refused(call: &str, answer: &str) -> Error {
    Error::Refused { program: PROGRAM, call: call.to_owned(), answer: answer.to_owned() }
}
