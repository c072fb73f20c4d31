//! `HAProxy`, switched by `set server addr` on its runtime API.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Call, ask, free_address, serves};
use crate::child::Child;
use crate::error::Error;

const PROGRAM: &str = "haproxy";

/// A running `HAProxy` with one thread.
#[derive(Debug)]
pub(super) struct Haproxy {
    address: SocketAddr,
    socket: PathBuf,
    _child: Child,
}

impl Haproxy {
    pub(super) async fn start(program: &Path, folder: &Path, backend: SocketAddr) -> Result<Self, Error> {
        let (address, socket, file) = (free_address()?, folder.join("haproxy.sock"), folder.join("haproxy.cfg"));
        fs::write(&file, config(address, backend, &socket)).map_err(Error::io("write haproxy.cfg"))?;
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(&file);
        let mut child = Child::start(&mut command, PROGRAM, folder)?;
        child.until(async || serves(address).await).await?;
        Ok(Self { address, socket, _child: child })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn set_address(&self, backend: SocketAddr) -> Result<Call, Error> {
        let words = format!("set server be/app addr {} port {}\n", backend.ip(), backend.port());
        let (call, answer) = ask(&self.socket, &words).await?;
        if answer.contains("port changed from") {
            return Ok(call);
        }
        Err(Error::Refused { program: PROGRAM, call: words, answer })
    }
}

/// Connections are kept on both sides, and an idle one to the application serves any client.
fn config(listen: SocketAddr, backend: SocketAddr, socket: &Path) -> String {
    format!(
        "global
    stats socket {} mode 600 level admin
    nbthread 1
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend fe
    bind {listen}
    default_backend be
backend be
    server app {backend}
",
        socket.display()
    )
}
