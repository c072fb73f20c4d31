//! nginx with kept-alive upstream connections, switched by another file and a reload.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{Call, free_address, serves};
use crate::child::Child;
use crate::error::Error;

const PROGRAM: &str = "nginx";

/// A running nginx: a master and one worker.
#[derive(Debug)]
pub(super) struct Nginx {
    program: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    // Last, so that the folder is there until it has ended.
    child: Option<Child>,
}

impl Nginx {
    pub(super) async fn start(program: &Path, folder: &Path, backend: SocketAddr) -> Result<Self, Error> {
        let mut proxy =
            Self { program: program.to_owned(), folder: folder.to_owned(), address: free_address()?, child: None };
        proxy.write_config(backend)?;
        let mut child = Child::start(&mut proxy.command(), PROGRAM, folder)?;
        child.until(async || serves(proxy.address).await).await?;
        proxy.child = Some(child);
        Ok(proxy)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts an application into the file.
    pub(super) fn write_config(&self, backend: SocketAddr) -> Result<(), Error> {
        fs::write(self.folder.join("nginx.conf"), config(self.address, backend)).map_err(Error::io("write nginx.conf"))
    }

    /// Runs `nginx -s reload` to its end.
    pub(super) async fn reload(&self) -> Result<Call, Error> {
        let mut command = tokio::process::Command::from(self.command());
        command.args(["-s", "reload"]).stdin(Stdio::null());
        let began = Instant::now();
        let said = command.output().await.map_err(Error::io("run nginx -s reload"))?;
        let returned = Instant::now();
        if said.status.success() {
            return Ok(Call { began, returned });
        }
        let answer = String::from_utf8_lossy(&said.stderr).into_owned();
        Err(Error::Refused { program: PROGRAM, call: "-s reload".to_owned(), answer })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-p").arg(&self.folder).args(["-e", "error.log", "-c", "nginx.conf"]);
        command
    }
}

/// Everything that could end a connection for another reason than the reload is put out of reach.
fn config(listen: SocketAddr, backend: SocketAddr) -> String {
    format!(
        "daemon off;
worker_processes 1;
pid nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path temp-body;
    proxy_temp_path temp-proxy;
    fastcgi_temp_path temp-fastcgi;
    uwsgi_temp_path temp-uwsgi;
    scgi_temp_path temp-scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    upstream app {{
        server {backend};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
        }}
    }}
}}
"
    )
}
