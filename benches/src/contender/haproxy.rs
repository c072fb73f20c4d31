//! `HAProxy`, switched on its runtime API: by another address of its server, or by the states of two servers.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Call, ask, free_address, serves};
use crate::child::Child;
use crate::error::Error;

const PROGRAM: &str = "haproxy";

/// What a switch does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Gives the one server another address.
    Address,
    /// Makes one of two servers ready and puts the other into maintenance.
    States,
}

/// A running `HAProxy` with one thread.
#[derive(Debug)]
pub(super) struct Haproxy {
    way: Way,
    backends: [SocketAddr; 2],
    address: SocketAddr,
    socket: PathBuf,
    _child: Child,
}

impl Haproxy {
    pub(super) async fn start(
        way: Way,
        program: &Path,
        folder: &Path,
        backends: [SocketAddr; 2],
    ) -> Result<Self, Error> {
        let (address, socket, file) = (free_address()?, folder.join("haproxy.sock"), folder.join("haproxy.cfg"));
        let [old, new] = backends;
        let servers = match way {
            Way::Address => format!("    server app {old}\n"),
            Way::States => format!("    server app0 {old}\n    server app1 {new} disabled\n"),
        };
        let text = config(address, &servers, &socket);
        fs::write(&file, text).map_err(Error::io("write haproxy.cfg"))?;
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(&file);
        let mut child = Child::start(&mut command, PROGRAM, folder)?;
        child.until(async || serves(address).await).await?;
        Ok(Self { way, backends, address, socket, _child: child })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends requests to the application at `to` from now on.
    pub(super) async fn switch(&self, to: usize) -> Result<Call, Error> {
        let (backend, from) = (self.backends[to], 1 - to);
        let words = match self.way {
            Way::Address => format!("set server be/app addr {} port {}\n", backend.ip(), backend.port()),
            Way::States => format!("set server be/app{to} state ready; set server be/app{from} state maint\n"),
        };
        let (call, answer) = ask(&self.socket, &words).await?;
        let done = match self.way {
            Way::Address => answer.contains("port changed from"),
            // It says nothing when all went well.
            Way::States => answer.trim().is_empty(),
        };
        if done { Ok(call) } else { Err(Error::Refused { program: PROGRAM, call: words, answer }) }
    }
}

/// Connections are kept on both sides, and an idle one to the application serves any client.
fn config(listen: SocketAddr, servers: &str, socket: &Path) -> String {
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
{servers}",
        socket.display()
    )
}
