//! The proxies that are compared, and how each is told to send requests to the other application.

mod bluegreen;
mod haproxy;
mod nginx;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use self::bluegreen::Bluegreen;
use self::haproxy::{Haproxy, Way};
use self::nginx::Nginx;
use crate::error::Error;
use crate::visitor::HOST;

/// A proxy's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours: a flip by the admin call.
    Bluegreen,
    /// nginx: another upstream in its file, then `nginx -s reload`.
    Nginx,
    /// `HAProxy`, told another address of its server.
    HaproxyAddress,
    /// `HAProxy` with two servers, told which of them is in maintenance.
    HaproxyStates,
}

/// A proxy that can be run.
#[derive(Debug, Clone)]
pub struct Installed {
    /// What it is.
    pub kind: Kind,
    /// Its program.
    pub program: PathBuf,
    /// What it says of its version.
    pub version: String,
}

/// When a call was made and when it had returned.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Just before it was written, or its process started.
    pub began: Instant,
    /// Its answer was read, or its process had ended.
    pub returned: Instant,
}

/// A running proxy with one upstream; it ends when dropped.
#[derive(Debug)]
pub struct Proxy(Which);

#[derive(Debug)]
enum Which {
    Bluegreen(Bluegreen),
    Nginx(Nginx),
    Haproxy(Haproxy),
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bluegreen, Self::Nginx, Self::HaproxyAddress, Self::HaproxyStates];

    /// Returns the name of its program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Bluegreen => "bgproxy",
            Self::Nginx => "nginx",
            Self::HaproxyAddress | Self::HaproxyStates => "haproxy",
        }
    }

    /// Returns the call that is measured, in words.
    pub fn call(self) -> &'static str {
        match self {
            Self::Bluegreen => "POST flip",
            Self::Nginx => "nginx -s reload",
            Self::HaproxyAddress => "set server addr",
            Self::HaproxyStates => "set server state",
        }
    }

    /// Looks for its program in PATH and where system programs stand; `None`: it is not installed.
    pub fn find(self) -> Option<Installed> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        folders
            .map(|folder| folder.join(self.program()))
            .find(|file| file.is_file())
            .map(|program| self.installed(program))
    }

    /// Asks a program for its version.
    pub fn installed(self, program: PathBuf) -> Installed {
        let flag = if self == Self::Bluegreen { "--version" } else { "-v" };
        let said = Command::new(&program).arg(flag).output();
        let said = said.map_or_else(|error| error.to_string().into_bytes(), |said| [said.stdout, said.stderr].concat());
        let version = String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned();
        Installed { kind: self, program, version }
    }
}

impl Proxy {
    /// Starts a proxy in an empty folder, in front of the first of two applications, and waits until it serves.
    ///
    /// # Errors
    /// Where it doesn't.
    pub async fn start(installed: &Installed, folder: &Path, backends: [SocketAddr; 2]) -> Result<Self, Error> {
        let program = &installed.program;
        let haproxy = |way| Haproxy::start(way, program, folder, backends);
        Ok(Self(match installed.kind {
            Kind::Bluegreen => Which::Bluegreen(Bluegreen::start(program, folder, backends[0]).await?),
            Kind::Nginx => Which::Nginx(Nginx::start(program, folder, backends[0]).await?),
            Kind::HaproxyAddress => Which::Haproxy(haproxy(Way::Address).await?),
            Kind::HaproxyStates => Which::Haproxy(haproxy(Way::States).await?),
        }))
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        match &self.0 {
            Which::Bluegreen(proxy) => proxy.address(),
            Which::Nginx(proxy) => proxy.address(),
            Which::Haproxy(proxy) => proxy.address(),
        }
    }

    /// Does what comes before the measured call.
    ///
    /// # Errors
    /// Where the proxy or the disk refuses.
    pub async fn prepare(&self, to: SocketAddr) -> Result<(), Error> {
        match &self.0 {
            Which::Bluegreen(proxy) => proxy.stage(to).await,
            Which::Nginx(proxy) => proxy.write_config(to),
            Which::Haproxy(_) => Ok(()),
        }
    }

    /// Makes the measured call: from now on requests go to one of the two applications, the one it was prepared for.
    ///
    /// # Errors
    /// Where the proxy refuses.
    pub async fn switch(&self, to: usize) -> Result<Call, Error> {
        match &self.0 {
            Which::Bluegreen(proxy) => proxy.flip().await,
            Which::Nginx(proxy) => proxy.reload().await,
            Which::Haproxy(proxy) => proxy.switch(to).await,
        }
    }

    /// Waits until the proxy itself says that the old application is done with, where it can say so.
    ///
    /// # Errors
    /// Where it says something else.
    pub async fn drained(&self) -> Result<(), Error> {
        match &self.0 {
            Which::Bluegreen(proxy) => proxy.drained().await,
            Which::Nginx(_) | Which::Haproxy(_) => Ok(()),
        }
    }
}

/// Writes to a Unix socket and reads until the other end closes; connecting is not measured.
async fn ask(socket: &Path, words: &str) -> Result<(Call, String), Error> {
    let failed = || Error::io(format!("ask {}", socket.display()));
    let mut stream = UnixStream::connect(socket).await.map_err(failed())?;
    let began = Instant::now();
    stream.write_all(words.as_bytes()).await.map_err(failed())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(failed())?;
    Ok((Call { began, returned: Instant::now() }, answer))
}

/// Tells whether a proxy sends requests through to an application.
async fn serves(proxy: SocketAddr) -> bool {
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(proxy).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    exchange.await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

/// Returns an address that nobody listens on, for a program that can't choose its port itself.
fn free_address() -> Result<SocketAddr, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(Error::io("find a port"))
}
