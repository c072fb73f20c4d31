//! A whole site of plain processes: a gateway of its own that `bgctl` brings up, and programs that stand for images.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// No command of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The programs that a site is made of.
#[derive(Debug, Clone, Copy)]
pub struct Programs {
    /// `bgctl`.
    pub bgctl: &'static str,
    /// `bgproxy`.
    pub bgproxy: &'static str,
    /// The application.
    pub app: &'static str,
}

/// A site; what runs on it ends when it is dropped.
pub struct Site {
    programs: Programs,
    folder: TempDir,
    address: SocketAddr,
    /// Where applications begin to look for a free port.
    port: u16,
}

/// A command that runs.
pub struct Started {
    child: Child,
    stdout: tokio::io::Lines<BufReader<ChildStdout>>,
    /// What came on stdout so far.
    events: Vec<Value>,
}

/// A command that ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// The JSON lines of stdout.
    pub events: Vec<Value>,
    /// What it said.
    pub talk: String,
}

impl Site {
    /// Makes a site on which nothing runs yet.
    pub fn new(programs: Programs) -> Self {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Both are held at once, so that they are two.
        let (gateway, app) = (free(), free());
        let port = app.local_addr().unwrap().port();
        Self { programs, folder: tempfile::tempdir().unwrap(), address: gateway.local_addr().unwrap(), port }
    }

    /// Returns where applications begin to look for a free port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns where its proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes a version of the application, and returns what `--image` names it by.
    pub fn version(&self, name: &str, loading: Duration) -> String {
        self.script(name, &format!("exec '{}' {name} {}", self.programs.app, loading.as_millis()))
    }

    /// As [`Site::version`], of an application that notes each request's id in a file that others write too.
    pub fn version_with_ledger(&self, name: &str, loading: Duration, ledger: &Path) -> String {
        let (app, loading) = (self.programs.app, loading.as_millis());
        self.script(name, &format!("exec '{app}' {name} {loading} '{}'", ledger.display()))
    }

    /// Writes a program, and returns what `--image` names it by.
    pub fn script(&self, name: &str, line: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Brings the gateway up.
    ///
    /// # Panics
    /// Where that fails.
    pub async fn up(&self) {
        let publish = format!("{}:80", self.address);
        let up = self.bgctl(&["up", "--publish", &publish, "--proxy-binary", self.programs.bgproxy]).await;
        assert_eq!(up.code, Some(0), "{}", up.talk);
    }

    /// Starts `bgctl` on this site.
    pub fn start(&self, words: &[&str]) -> Started {
        Started::spawn(self.command(words))
    }

    /// As [`Site::start`], with another working folder.
    pub fn start_in(&self, folder: &Path, words: &[&str]) -> Started {
        let mut command = self.command(words);
        command.current_dir(folder);
        Started::spawn(command)
    }

    /// As [`Site::start`], with more variables in its environment.
    pub fn start_with(&self, variables: &[(&str, &str)], words: &[&str]) -> Started {
        let mut command = self.command(words);
        command.envs(variables.iter().copied());
        Started::spawn(command)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.programs.bgctl);
        command.args(["--engine", "process", "--json"]).args(words);
        command.env("XDG_STATE_HOME", self.folder.path()).env_remove("XDG_RUNTIME_DIR").env_remove("BG_GATEWAY");
        command
    }

    /// Runs `bgctl` on this site to its end.
    pub async fn bgctl(&self, words: &[&str]) -> Ended {
        self.start(words).end().await
    }

    /// Returns the command `bgctl` on this site, in words instead of JSON.
    pub fn plain(&self, words: &[&str]) -> Command {
        let mut command = self.around(self.programs.bgctl);
        command.args(["--engine", "process"]).args(words);
        command
    }

    /// Returns a command in whose environment `bgctl --engine process` means this site.
    pub fn around(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("XDG_STATE_HOME", self.folder.path()).env_remove("XDG_RUNTIME_DIR").env_remove("BG_GATEWAY");
        command
    }

    /// Runs `bgctl` on this site to its end, in words instead of JSON.
    pub async fn bgctl_plain(&self, words: &[&str]) -> std::process::Output {
        timeout(PATIENCE, self.plain(words).stdin(Stdio::null()).output()).await.unwrap().unwrap()
    }

    /// Switches the service `shop`, without a bake; more words beat what stands here.
    pub fn switch(&self, image: &str, more: &[&str]) -> Started {
        let port = self.port.to_string();
        let words = ["switch", "shop", "--image", image, "--domain", "shop.test", "--port", &port];
        let bake: &[&str] = if more.contains(&"--bake") { &[] } else { &["--bake", "0s"] };
        self.start(&[&words, bake, more].concat())
    }

    /// Returns the status of the service `shop`.
    pub async fn shop(&self) -> Value {
        self.status("shop").await
    }

    /// Returns the status of a service.
    pub async fn status(&self, service: &str) -> Value {
        let mut command = Command::new(self.programs.bgctl);
        command.args(["--engine", "process", "--json", "status", service]).stdin(Stdio::null());
        command.env("XDG_STATE_HOME", self.folder.path()).env_remove("XDG_RUNTIME_DIR").env_remove("BG_GATEWAY");
        let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        status["services"][0].clone()
    }

    /// Returns the processes that write their logs into this site's folder, whatever runs of it: id and command line.
    pub fn processes(&self) -> Vec<(Pid, String)> {
        let ours = |path: PathBuf| {
            let id = Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?)?;
            let log = fs::read_link(path.join("fd/1")).ok()?;
            let line = String::from_utf8_lossy(&fs::read(path.join("cmdline")).ok()?).replace('\0', " ");
            log.starts_with(self.folder.path()).then_some((id, line))
        };
        fs::read_dir("/proc").unwrap().filter_map(|entry| ours(entry.unwrap().path())).collect()
    }

    /// Kills a process of the site, with SIGKILL.
    ///
    /// # Panics
    /// Where no process, or more than one, has such words in its command line.
    pub fn kill(&self, words: &str) {
        let all = self.processes();
        let found: Vec<_> = all.iter().filter(|(_, line)| line.contains(words)).collect();
        assert_eq!(found.len(), 1, "`{words}` in {all:?}");
        kill_process(found[0].0, Signal::KILL).unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(self.programs.bgctl);
        command.args(["--engine", "process", "--yes", "--quiet", "down", "--volumes"]);
        command.env("XDG_STATE_HOME", self.folder.path()).env_remove("XDG_RUNTIME_DIR").env_remove("BG_GATEWAY");
        // A test that panics has said why; this is only to leave nothing behind.
        drop(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

impl Started {
    /// Starts a command whose stdout is JSON lines.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdout, events: Vec::new() }
    }

    /// Waits for an event on stdout.
    ///
    /// # Panics
    /// Where the command ends without it, with all that it said.
    pub async fn until(&mut self, event: &str) -> Value {
        let wait = async {
            while let Some(line) = self.stdout.next_line().await.unwrap() {
                let value: Value = serde_json::from_str(&line).unwrap();
                self.events.push(value.clone());
                if value["event"] == event {
                    return Some(value);
                }
            }
            None
        };
        match timeout(PATIENCE, wait).await.unwrap() {
            Some(value) => value,
            None => panic!("it ended without `{event}`: {:?}", self.rest().await),
        }
    }

    /// Waits for a line on stdout that has these words.
    ///
    /// # Panics
    /// Where the command ends without it.
    pub async fn until_line(&mut self, words: &str) -> Value {
        let wait = async {
            while let Some(line) = self.stdout.next_line().await.unwrap() {
                let value: Value = serde_json::from_str(&line).unwrap();
                self.events.push(value.clone());
                if line.contains(words) {
                    return value;
                }
            }
            panic!("it ended without `{words}`: {:?}", self.events);
        };
        timeout(PATIENCE, wait).await.unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Returns its process id.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn pid(&self) -> Pid {
        self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).unwrap()
    }

    /// Waits for its end.
    pub async fn end(mut self) -> Ended {
        self.rest().await
    }

    /// Tells whether it ends by itself within that time.
    ///
    /// # Panics
    /// Where it can't be waited for.
    pub async fn ends_within(&mut self, time: Duration) -> bool {
        timeout(time, self.child.wait()).await.is_ok_and(|ended| ended.unwrap().code().is_some())
    }

    async fn rest(&mut self) -> Ended {
        let mut stderr = self.child.stderr.take().unwrap();
        let talk = async {
            let mut talk = String::new();
            stderr.read_to_string(&mut talk).await.unwrap();
            talk
        };
        let events = async {
            let mut rest = String::new();
            while let Some(line) = self.stdout.next_line().await.unwrap() {
                rest.push_str(&line);
                rest.push('\n');
            }
            serde_json::Deserializer::from_str(&rest).into_iter::<Value>().map(Result::unwrap).collect::<Vec<_>>()
        };
        let all = async { tokio::join!(talk, events, self.child.wait()) };
        let (talk, events, status) = timeout(PATIENCE, all).await.unwrap();
        let code = status.unwrap().code();
        Ended { code, events: std::mem::take(&mut self.events).into_iter().chain(events).collect(), talk }
    }
}

impl Ended {
    /// Returns the report, the last line.
    ///
    /// # Panics
    /// Where there is none.
    pub fn report(&self) -> &Value {
        let report = self.events.last().unwrap();
        assert_eq!(report["event"], "report", "{self:?}");
        report
    }
}
