//! A real proxy, in this process or as one of its own that can be killed: on a free port, with a state folder and an
//! admin socket of its own.

use std::io::{ErrorKind, Result};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ::proxy::acme::Clock;
use ::proxy::app::{App, Options, Running};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::client::client;
use crate::message::{self, Kind};

/// How long a proxy may take to its first answer before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy; it ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    folder: TempDir,
    state: PathBuf,
    config: String,
    /// The limit of open files.
    files: Option<u64>,
    keeps_stderr: bool,
    body: Body,
}

/// Where it runs.
enum Body {
    /// In this process; `None` once it was told to end.
    Here(Option<Running>),
    /// As a program; `None` while it does not run.
    Program(PathBuf, Option<Child>),
}

/// An answer on the admin socket.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The documents of the body: one, or one a line of a stream.
    pub lines: Vec<Value>,
}

/// Starts a proxy without services in this process, with two workers.
pub fn proxy() -> Proxy {
    let folder = tempfile::tempdir().unwrap();
    let (admin, state) = (folder.path().join("admin.sock"), folder.path().join("state"));
    let listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
    let options = Options {
        config: None,
        listen,
        listen_tls: Vec::new(),
        admin,
        state: state.clone(),
        workers: 2,
        takes_over: false,
        program: None,
    };
    let running = App::bind(options).unwrap().start().unwrap();
    let (address, body) = (running.addresses()[0], Body::Here(Some(running)));
    Proxy { address, folder, state, config: String::new(), files: None, keeps_stderr: false, body }
}

/// Starts a proxy in this process that listens for TLS too and renews certificates by that clock.
pub fn proxy_at(clock: &Clock) -> Proxy {
    let folder = tempfile::tempdir().unwrap();
    let (admin, state) = (folder.path().join("admin.sock"), folder.path().join("state"));
    let any = || vec![(Ipv4Addr::LOCALHOST, 0).into()];
    let options = Options {
        config: None,
        listen: any(),
        listen_tls: any(),
        admin,
        state: state.clone(),
        workers: 2,
        takes_over: false,
        program: None,
    };
    let running = App::bind(options).unwrap().with_clock(clock.clone()).start().unwrap();
    let (address, body) = (running.addresses()[0], Body::Here(Some(running)));
    Proxy { address, folder, state, config: String::new(), files: None, keeps_stderr: false, body }
}

/// Makes a proxy that runs as a program of its own; it does not run yet.
pub fn proxy_program(program: &str) -> Proxy {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    Proxy {
        address,
        folder,
        state,
        config: String::new(),
        files: None,
        keeps_stderr: false,
        body: Body::Program(program.into(), None),
    }
}

impl Proxy {
    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where it listens for TLS.
    ///
    /// # Panics
    /// Where it does not.
    pub async fn tls_address(&self) -> SocketAddr {
        let status = self.call("GET", "/v1/status", json!({})).await;
        status.lines[0]["tls_listeners"][0].as_str().unwrap().parse().unwrap()
    }

    /// Writes a file beside its `bgproxy.toml`, all of it at once.
    pub fn write_beside(&self, name: &str, text: &str) {
        let new = self.folder.path().join(format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder.path().join(name)).unwrap();
    }

    /// Returns its folder of saved state.
    pub fn state(&self) -> PathBuf {
        self.state.clone()
    }

    /// Returns its admin socket.
    pub fn admin(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// Puts the saved state elsewhere, before the start.
    pub fn with_state(mut self, state: PathBuf) -> Self {
        self.state = state;
        self
    }

    /// Gives it a `bgproxy.toml`, before the start.
    pub fn with_config(mut self, config: &str) -> Self {
        config.clone_into(&mut self.config);
        self
    }

    /// Puts another `bgproxy.toml` in the place of the one it has, as an editor does.
    pub fn rewrite_config(&self, config: &str) {
        self.write_beside("bgproxy.toml", config);
    }

    /// Lets it open so many files, before the start.
    pub fn with_files(mut self, files: u64) -> Self {
        self.files = Some(files);
        self
    }

    /// Returns the memory of the program that is in use.
    ///
    /// # Panics
    /// Where it does not run as a program.
    pub fn resident_bytes(&self) -> usize {
        let Body::Program(_, Some(child)) = &self.body else { panic!("no program runs") };
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Returns the time of processors that the program has used.
    ///
    /// # Panics
    /// Where it does not run as a program.
    pub fn cpu_time(&self) -> Duration {
        let Body::Program(_, Some(child)) = &self.body else { panic!("no program runs") };
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        // Behind the name, which may have blanks: the 12th and 13th are what it and the kernel for it have used.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // A tick of this file is a hundredth of a second, whatever the kernel's own is.
        Duration::from_millis(ticks * 10)
    }

    /// Returns what the program said on stderr so far.
    ///
    /// # Panics
    /// Where it was not asked for before the start.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    /// Keeps what the program says on stderr, before the start.
    pub fn with_stderr_kept(mut self) -> Self {
        self.keeps_stderr = true;
        self
    }

    /// Starts the program, and returns how long it took until a visitor had an answer.
    ///
    /// # Panics
    /// Where it runs in this process, and where there is no answer in ten seconds.
    pub async fn start(&mut self) -> Duration {
        let (address, admin, state) = (self.address, self.admin(), self.state());
        let Body::Program(program, child) = &mut self.body else { panic!("it runs in this process") };
        let began = Instant::now();
        let mut command = match self.files {
            None => Command::new(program),
            Some(files) => {
                let mut limited = Command::new("prlimit");
                limited.arg(format!("--nofile={files}")).arg(program);
                limited
            }
        };
        command.args(["--workers", "2", "--listen", &address.to_string()]);
        command.arg("--admin").arg(admin).arg("--state").arg(state);
        // No file of this machine may have a say.
        command.arg("--config").arg(self.folder.path().join("bgproxy.toml"));
        std::fs::write(self.folder.path().join("bgproxy.toml"), &self.config).unwrap();
        if self.keeps_stderr {
            command.stderr(std::fs::File::create(self.folder.path().join("stderr")).unwrap());
        }
        let mut running = command.stdin(Stdio::null()).spawn().unwrap();
        loop {
            if let Ok(mut visitor) = client(address).await
                && let Ok(Some(_)) = visitor.get("shop.test", "/").await
            {
                break;
            }
            assert_eq!(running.try_wait().unwrap(), None, "bgproxy ended");
            assert!(began.elapsed() < PATIENCE, "bgproxy does not answer");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        *child = Some(running);
        began.elapsed()
    }

    /// Kills the program, with SIGKILL.
    ///
    /// # Panics
    /// Where it does not run as a program.
    pub fn kill(&mut self) {
        let Body::Program(_, child) = &mut self.body else { panic!("it runs in this process") };
        let mut child = child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal to the program.
    ///
    /// # Panics
    /// Where it does not run as a program.
    pub fn signal(&self, signal: Signal) {
        let Body::Program(_, Some(child)) = &self.body else { panic!("no program runs") };
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Waits until the program has ended, and returns its exit code; `None` where a signal ended it.
    ///
    /// # Panics
    /// Where it does not run as a program.
    pub async fn ended(&mut self) -> Option<i32> {
        let Body::Program(_, child) = &mut self.body else { panic!("it runs in this process") };
        let mut child = child.take().unwrap();
        tokio::task::spawn_blocking(move || child.wait().unwrap().code()).await.unwrap()
    }

    /// Makes an admin call under `If-Match: *` and waits for the whole answer.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.try_call(method, path, body, None).await.unwrap()
    }

    /// As [`Proxy::call`], under a lease.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn try_call(&self, method: &str, path: &str, body: Value, lease: Option<&str>) -> Result<Answer> {
        let body = body.to_string();
        let lease = lease.map(|lease| format!("Bluegreen-Lease: {lease}\r\n")).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: admin\r\nIf-Match: *\r\n{lease}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut socket = UnixStream::connect(self.admin()).await?;
        socket.write_all(request.as_bytes()).await?;
        let answer = message::read(&mut socket, &mut Vec::new(), Kind::Answer).await?;
        let answer = answer.ok_or(ErrorKind::UnexpectedEof)?;
        let documents = serde_json::Deserializer::from_slice(&answer.body).into_iter::<Value>();
        let lines = documents.map(|document| document.map_err(Into::into)).collect::<Result<_>>()?;
        Ok(Answer { status: answer.first_line()[9..12].parse().unwrap(), lines })
    }

    /// Makes an admin call whose answer is text.
    pub async fn text(&self, path: &str) -> String {
        let mut socket = UnixStream::connect(self.admin()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let answer = message::read(&mut socket, &mut Vec::new(), Kind::Answer).await.unwrap().unwrap();
        String::from_utf8(answer.body).unwrap()
    }

    /// Sets the options of the service `shop`, which has these domains.
    ///
    /// # Panics
    /// Where they are refused.
    pub async fn set_options(&self, domains: &[&str], options: Value) {
        let settings = json!({ "domains": domains, "options": options });
        let answer = self.call("PUT", "/v1/services/shop", settings).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Stages an address in the idle slot and waits for the verdict: the last line.
    pub async fn stage(&self, service: &str, address: SocketAddr) -> Value {
        let body = json!({
            "endpoints": [address], "deadline": "5s",
            "settings": { "domains": [format!("{service}.test")] },
            "health": { "interval": "10ms" },
        });
        let answer = self.call("POST", &format!("/v1/services/{service}/stage"), body).await;
        answer.lines.last().cloned().unwrap()
    }

    /// Flips to the idle slot.
    pub async fn flip(&self, service: &str) -> Answer {
        let body = json!({ "drain": "10s" });
        self.call("POST", &format!("/v1/services/{service}/flip"), body).await
    }

    /// Stages an address and flips to it.
    ///
    /// # Panics
    /// Where it does not become healthy, or the flip is refused.
    pub async fn serve(&self, service: &str, address: SocketAddr) {
        let staged = self.stage(service, address).await;
        assert_eq!(staged["event"], "healthy", "{staged}");
        let flipped = self.flip(service).await;
        assert_eq!(flipped.status, 200, "{flipped:?}");
    }

    /// Waits until the old slot has drained and returns the last line.
    pub async fn drain(&self, service: &str) -> Value {
        let answer = self.call("POST", &format!("/v1/services/{service}/drain"), json!({})).await;
        answer.lines.last().cloned().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        match &mut self.body {
            Body::Here(running) => running.take().into_iter().for_each(|running| running.shutdown(Duration::ZERO)),
            Body::Program(_, Some(_)) => self.kill(),
            Body::Program(_, None) => {}
        }
    }
}
