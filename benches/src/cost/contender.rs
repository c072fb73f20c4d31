//! The proxies as they are compared: each with as many workers, before the same application.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::workload::Setup;
use super::{CORES, busy, resident};
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
    tls: SocketAddr,
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
        setup: Setup,
        ours: &Path,
        folder: &Path,
        application: SocketAddr,
    ) -> Result<Self, Error> {
        let cores = if setup.workers > 1 { format!("{},{}", CORES.0, CORES.1) } else { CORES.0.to_string() };
        let place = Place { folder, address: free()?, http2: free()?, tls: free()?, application };
        if setup.tls {
            make_certificate(folder)?;
        }
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(Error::io("write a configuration")).map(|()| path)
        };
        let (name, mut command) = match kind {
            Kind::Nginx | Kind::NginxPlus => {
                let file = write("nginx.conf", nginx(kind, setup, &place))?;
                let mut command = pinned(&cores, "nginx");
                command.arg("-c").arg(file).arg("-e").arg(folder.join("error.log"));
                ("nginx", command)
            }
            Kind::Haproxy => {
                let file = write("haproxy.cfg", haproxy(setup, &place))?;
                let mut command = pinned(&cores, "haproxy");
                command.arg("-db").arg("-f").arg(file);
                ("haproxy", command)
            }
            Kind::Bluegreen => {
                let file = write("bgproxy.toml", bluegreen(setup, &place))?;
                let mut command = pinned(&cores, &ours.display().to_string());
                command
                    .args(["--workers", &setup.workers.to_string(), "--listen", &place.address.to_string(), "--config"])
                    .arg(file);
                command.arg("--state").arg(folder.join("state")).arg("--admin").arg(folder.join("admin.sock"));
                ("bgproxy", command)
            }
        };
        let http2 = if kind == Kind::Bluegreen { place.address } else { place.http2 };
        let mut child = Child::start(&mut command, name, folder)?;
        let last = if setup.tls { place.tls } else { place.address };
        child.until(async || TcpStream::connect(last).is_ok()).await?;
        Ok(Self { address: place.address, http2, tls: place.tls, has_worker: name == "nginx", child })
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
            "{}    access_log off;\n    server {{\n        listen {address};\n        root {};\n        location = /small {{ return 200 \"hello, this is a small answer\"; }}\n    }}\n}}\n",
            nginx_head(1, folder),
            folder.display()
        );
        fs::write(&file, text).map_err(Error::io("write a configuration"))?;
        let mut command = pinned(&CORES.1.to_string(), "nginx");
        command.arg("-c").arg(file).arg("-e").arg(folder.join("error.log"));
        let mut child = Child::start(&mut command, "nginx", folder)?;
        child.until(async || TcpStream::connect(address).is_ok()).await?;
        Ok(Self { address, http2: address, tls: address, has_worker: true, child })
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

    /// Returns where it speaks TLS.
    #[must_use]
    pub fn over_tls(&self) -> SocketAddr {
        self.tls
    }

    /// Returns the processor time that it has taken.
    pub(super) fn busy(&self) -> Result<Duration, Error> {
        self.processes()?.into_iter().map(busy).sum()
    }

    /// Returns the bytes that it has in memory.
    pub(super) fn resident(&self) -> Result<u64, Error> {
        self.processes()?.into_iter().map(resident).sum()
    }

    /// Returns the processes that do its work.
    fn processes(&self) -> Result<Vec<u32>, Error> {
        let own = self.child.id();
        if !self.has_worker {
            return Ok(vec![own]);
        }
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.map_err(Error::io("find the worker of nginx"))?;
        Ok(children.split_whitespace().filter_map(|id| id.parse().ok()).collect())
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

/// Where a proxy is, and before what.
struct Place<'p> {
    folder: &'p Path,
    address: SocketAddr,
    http2: SocketAddr,
    tls: SocketAddr,
    application: SocketAddr,
}

/// Makes a certificate that nobody has signed, and one file of it and its key, as `HAProxy` reads it.
fn make_certificate(folder: &Path) -> Result<(), Error> {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "30",
    ]);
    command.args(["-subj", "/CN=bench.test", "-addext", "subjectAltName=DNS:bench.test"]);
    command.arg("-out").arg(&cert).arg("-keyout").arg(&key);
    let output = command.output().map_err(Error::io("make a certificate (openssl)"))?;
    if !output.status.success() {
        return Err(Error::Load(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let read = |path: &Path| fs::read_to_string(path).map_err(Error::io("read the certificate"));
    fs::write(folder.join("both.pem"), read(&cert)? + &read(&key)?).map_err(Error::io("write the certificate"))
}

fn nginx_head(workers: usize, folder: &Path) -> String {
    let folder = folder.display();
    let temps: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {folder}/temp-{kind};\n"))
        .concat();
    format!(
        "daemon off;\nworker_processes {workers};\npid {folder}/nginx.pid;\nevents {{ worker_connections 8192; }}\nhttp {{\n{temps}    \
         keepalive_requests 1000000000;\n    tcp_nodelay on;\n    client_max_body_size 0;\n"
    )
}

fn nginx(kind: Kind, setup: Setup, place: &Place<'_>) -> String {
    let Place { folder, address, http2, tls, application } = place;
    let folder = folder.display();
    let (buffers, keepalive) = if kind == Kind::NginxPlus {
        ("        client_body_buffer_size 128k;\n        proxy_buffer_size 16k;\n        proxy_buffers 16 64k;\n", 256)
    } else {
        ("", 64)
    };
    let log = match (setup.logged, kind) {
        (false, _) => "access_log off;".to_owned(),
        (true, Kind::NginxPlus) => format!("access_log {folder}/access.log combined buffer=64k flush=1s;"),
        (true, _) => format!("access_log {folder}/access.log combined;"),
    };
    let tls = if setup.tls {
        format!(
            "        listen {tls} ssl;\n        ssl_protocols TLSv1.2 TLSv1.3;\n        ssl_certificate {folder}/cert.pem;\n        \
             ssl_certificate_key {folder}/key.pem;\n"
        )
    } else {
        String::new()
    };
    let server = |listen: String, name: &str| {
        format!(
            "    server {{\n{listen}        server_name {name};\n{tls}{buffers}        location / {{\n            \
             proxy_pass http://app;\n            proxy_http_version 1.1;\n            proxy_set_header Connection \"\";\n            \
             proxy_set_header Host $host;\n            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n        \
             }}\n    }}\n"
        )
    };
    let servers: String = if setup.services > 1 {
        (0..setup.services).map(|at| server(format!("        listen {address};\n"), &format!("s{at}.test"))).collect()
    } else {
        server(format!("        listen {address};\n        listen {http2} http2;\n"), "_")
    };
    format!(
        "{}    {log}\n    server_names_hash_max_size 65536;\n    upstream app {{\n        server {application};\n        keepalive \
         {keepalive};\n        keepalive_requests 1000000000;\n    }}\n{servers}}}\n",
        nginx_head(setup.workers, place.folder)
    )
}

fn haproxy(setup: Setup, place: &Place<'_>) -> String {
    let Place { folder, address, http2, tls, application } = place;
    let tls = if setup.tls { format!("    bind {tls} ssl crt {}/both.pem\n", folder.display()) } else { String::new() };
    // Its way to choose among many is a map, of which a back end of its own for each name is the usual value.
    let (choice, more) = if setup.services > 1 {
        let map: String = (0..setup.services).map(|at| format!("s{at}.test be{}\n", at % 100)).collect();
        // Where it can't be written, `HAProxy` says so.
        drop(fs::write(folder.join("hosts.map"), map));
        let choice = format!("    use_backend %[req.hdr(host),lower,map({}/hosts.map,be)]\n", folder.display());
        (choice, (0..100).map(|at| format!("backend be{at}\n    server app {application}\n")).collect())
    } else {
        (String::new(), String::new())
    };
    format!(
        "global\n    nbthread {}\n    maxconn 4096\n    tune.ssl.default-dh-param 2048\ndefaults\n    mode http\n    http-reuse always\n    \
         option forwardfor\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\nfrontend fe\n    bind {address}\n    \
         bind {http2} proto h2\n{tls}{choice}    default_backend be\nbackend be\n    server app {application}\n{more}",
        setup.workers
    )
}

fn bluegreen(setup: Setup, place: &Place<'_>) -> String {
    let Place { folder, tls, application, .. } = place;
    let folder = folder.display();
    let mut text = String::new();
    if setup.tls {
        text += &format!(
            "listen_tls = [\"{tls}\"]\n[[certificates]]\ncert = \"{folder}/cert.pem\"\nkey = \"{folder}/key.pem\"\n"
        );
    }
    if setup.logged {
        text += &format!("[log]\naccess = \"combined\"\naccess_file = \"{folder}/access.log\"\n");
    }
    let service = |name: &str, domains: &str| {
        format!(
            "[services.{name}]\n{domains}endpoints = [\"{application}\"]\n[services.{name}.health]\npath = \"/small\"\n\
             interval = \"60s\"\n"
        )
    };
    if setup.services > 1 {
        text.extend((0..setup.services).map(|at| service(&format!("s{at}"), &format!("domains = [\"s{at}.test\"]\n"))));
    } else {
        text += &service("bench", "");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::workload::ASKED;
    use super::*;

    #[test]
    fn the_service_that_is_asked_for_is_one_of_the_many() {
        let setup = crate::cost::Workload::ManyServices.setup();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let place = Place { folder: Path::new("/tmp"), address: any, http2: any, tls: any, application: any };
        for text in [bluegreen(setup, &place), nginx(Kind::Nginx, setup, &place)] {
            assert!(text.contains(&format!("{ASKED}\"")) || text.contains(&format!("{ASKED};")));
        }
    }
}
