//! The proxies as they are compared: each with as many workers, before the same application.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{CORES, busy};
use crate::child::Child;
use crate::error::Error;

/// A proxy's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// nginx with keep-alive upstreams and stock buffers: what ratios are of.
    Nginx,
    /// nginx with the best buffers that we found for it.
    NginxPlus,
    /// `HAProxy`.
    Haproxy,
    /// Ours.
    Bluegreen,
}

/// A running proxy, or the application; it ends when dropped.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    http2: SocketAddr,
    /// The master of nginx works nothing: its only child does.
    has_worker: bool,
    child: Child,
}

impl Kind {
    /// All of them, in the order of a round.
    pub const ALL: [Self; 4] = [Self::Nginx, Self::NginxPlus, Self::Haproxy, Self::Bluegreen];

    /// Returns its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::NginxPlus => "nginx+",
            Self::Haproxy => "haproxy",
            Self::Bluegreen => "bgproxy",
        }
    }
}

impl Target {
    /// Starts a proxy in an empty folder, in front of the application.
    ///
    /// # Errors
    /// Where it does not serve.
    pub async fn start(
        kind: Kind,
        workers: usize,
        ours: &Path,
        folder: &Path,
        application: SocketAddr,
    ) -> Result<Self, Error> {
        let (address, http2) = (free()?, free()?);
        let cores = if workers > 1 { format!("{},{}", CORES.0, CORES.1) } else { CORES.0.to_string() };
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(Error::io("write a configuration")).map(|()| path)
        };
        let (name, mut command) = match kind {
            Kind::Nginx | Kind::NginxPlus => {
                let file = write("nginx.conf", nginx(kind, workers, folder, (address, http2), application))?;
                let mut command = pinned(&cores, "nginx");
                command.arg("-c").arg(file).arg("-e").arg(folder.join("error.log"));
                ("nginx", command)
            }
            Kind::Haproxy => {
                let file = write("haproxy.cfg", haproxy(workers, (address, http2), application))?;
                let mut command = pinned(&cores, "haproxy");
                command.arg("-db").arg("-f").arg(file);
                ("haproxy", command)
            }
            Kind::Bluegreen => {
                let text = format!(
                    "[services.bench]\nendpoints = [\"{application}\"]\n[services.bench.health]\npath = \"/small\"\n"
                );
                let file = write("bgproxy.toml", text)?;
                let mut command = pinned(&cores, &ours.display().to_string());
                command
                    .args(["--workers", &workers.to_string(), "--listen", &address.to_string(), "--config"])
                    .arg(file);
                command.arg("--state").arg(folder.join("state")).arg("--admin").arg(folder.join("admin.sock"));
                ("bgproxy", command)
            }
        };
        let http2 = if kind == Kind::Bluegreen { address } else { http2 };
        let mut child = Child::start(&mut command, name, folder)?;
        child.until(async || TcpStream::connect(address).is_ok()).await?;
        Ok(Self { address, http2, has_worker: name == "nginx", child })
    }

    /// Starts the application: nginx, which answers from memory and files.
    ///
    /// # Errors
    /// Where it does not serve.
    pub async fn application(folder: &Path) -> Result<Self, Error> {
        let address = free()?;
        for kib in [64, 1024, 10 * 1024] {
            let path = folder.join(format!("{kib}k"));
            fs::write(path, vec![b'x'; kib * 1024]).map_err(Error::io("write an answer"))?;
        }
        let file = folder.join("nginx.conf");
        let text = format!(
            "{}    server {{\n        listen {address};\n        root {};\n        location = /small {{ return 200 \"hello, this is a small answer\"; }}\n    }}\n}}\n",
            nginx_head(1, folder),
            folder.display()
        );
        fs::write(&file, text).map_err(Error::io("write a configuration"))?;
        let mut command = pinned(&CORES.1.to_string(), "nginx");
        command.arg("-c").arg(file).arg("-e").arg(folder.join("error.log"));
        let mut child = Child::start(&mut command, "nginx", folder)?;
        child.until(async || TcpStream::connect(address).is_ok()).await?;
        Ok(Self { address, http2: address, has_worker: true, child })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where it speaks HTTP/2.
    #[must_use]
    pub fn over_http2(&self) -> SocketAddr {
        self.http2
    }

    /// Returns the processor time that it has taken.
    pub(super) fn busy(&self) -> Result<Duration, Error> {
        let own = self.child.id();
        if !self.has_worker {
            return busy(own);
        }
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.map_err(Error::io("find the worker of nginx"))?;
        children.split_whitespace().filter_map(|id| id.parse().ok()).map(busy).sum()
    }
}

fn pinned(cores: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores, program]);
    command
}

fn free() -> Result<SocketAddr, Error> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound.map_err(Error::io("find a port"))
}

fn nginx_head(workers: usize, folder: &Path) -> String {
    let folder = folder.display();
    let temps: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {folder}/temp-{kind};\n"))
        .concat();
    format!(
        "daemon off;\nworker_processes {workers};\npid {folder}/nginx.pid;\nevents {{ worker_connections 8192; }}\nhttp {{\n{temps}    \
         access_log off;\n    keepalive_requests 1000000000;\n    tcp_nodelay on;\n    client_max_body_size 0;\n"
    )
}

fn nginx(
    kind: Kind,
    workers: usize,
    folder: &Path,
    (address, http2): (SocketAddr, SocketAddr),
    application: SocketAddr,
) -> String {
    let (buffers, keepalive) = if kind == Kind::NginxPlus {
        ("        client_body_buffer_size 128k;\n        proxy_buffer_size 16k;\n        proxy_buffers 16 64k;\n", 256)
    } else {
        ("", 64)
    };
    format!(
        "{}    upstream app {{\n        server {application};\n        keepalive {keepalive};\n        keepalive_requests 1000000000;\n    }}\n    \
         server {{\n        listen {address};\n        listen {http2} http2;\n{buffers}        location / {{\n            \
         proxy_pass http://app;\n            proxy_http_version 1.1;\n            proxy_set_header Connection \"\";\n            \
         proxy_set_header Host $host;\n            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n        }}\n    }}\n}}\n",
        nginx_head(workers, folder)
    )
}

fn haproxy(workers: usize, (address, http2): (SocketAddr, SocketAddr), application: SocketAddr) -> String {
    format!(
        "global\n    nbthread {workers}\n    maxconn 4096\ndefaults\n    mode http\n    http-reuse always\n    option forwardfor\n    \
         timeout connect 5s\n    timeout client 60s\n    timeout server 60s\nfrontend fe\n    bind {address}\n    bind {http2} proto h2\n    \
         default_backend be\nbackend be\n    server app {application}\n"
    )
}
