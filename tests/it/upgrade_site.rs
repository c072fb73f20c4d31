//! A proxy that runs as a program and hands over to others, with what the tests of that ask of it.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tests::{Upstream, client, eventually, upstream};

use crate::programs::PROGRAMS;

/// A proxy that runs as a program, and those that come after it.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) app: Upstream,
    /// The one that this test started; those that follow are known by their ids.
    pub(crate) first: Option<Child>,
}

impl Site {
    pub(crate) async fn new(config: &str) -> Self {
        Self::with(config, &[]).await
    }

    pub(crate) async fn with(config: &str, environment: &[(&str, &Path)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut site = Self { folder, address, app: upstream("v1").await, first: None };
        site.write("bgproxy.toml", config);
        let mut command = site.command(PROGRAMS.bgproxy.as_ref());
        command.envs(environment.iter().copied());
        site.first = Some(command.spawn().unwrap());
        eventually("it answers", async || site.try_call("GET", "/v1/version", &json!({})).ok()).await;
        let stage = json!({ "endpoints": [site.app.address()], "settings": { "domains": ["shop.test"] },
            "health": { "interval": "10ms" } });
        let staged = site.call("POST", "/v1/services/shop/stage", &stage);
        assert!(staged.contains("\"healthy\""), "{staged}");
        let chat = json!({ "endpoints": [echo().await], "settings": { "domains": ["chat.test"] },
            "health": { "enabled": false } });
        site.call("POST", "/v1/services/chat/stage", &chat);
        for service in ["shop", "chat"] {
            let flipped = site.call("POST", &format!("/v1/services/{service}/flip"), &json!({ "bake": "0s" }));
            assert!(flipped.starts_with("HTTP/1.1 200"), "{flipped}");
        }
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(["--workers", "2", "--listen", &self.address.to_string()]);
        command.arg("--config").arg(self.path("bgproxy.toml"));
        command.arg("--admin").arg(self.path("admin.sock")).arg("--state").arg(self.path("state"));
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        command.stdin(Stdio::null()).stderr(log);
        command
    }

    /// Asks for a successor; returns the exit code and what was said.
    pub(crate) async fn upgrade(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = tokio::process::Command::new(PROGRAMS.bgproxy);
        command.arg("upgrade").arg("--admin").arg(self.path("admin.sock")).args(arguments);
        let output = command.output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: &Value) -> String {
        self.try_call(method, path, body).unwrap()
    }

    pub(crate) fn try_call(&self, method: &str, path: &str, body: &Value) -> std::io::Result<String> {
        let body = body.to_string();
        let mut socket = std::os::unix::net::UnixStream::connect(self.path("admin.sock"))?;
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\nConnection: close\r\nContent-Length: ");
        write!(socket, "{head}{}\r\n\r\n{body}", body.len())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Returns the process that answers admin calls.
    pub(crate) fn pid(&self) -> u32 {
        let answer = self.call("GET", "/v1/version", &json!({}));
        let document: Value = serde_json::from_str(&answer[answer.find('{').unwrap()..]).unwrap();
        u32::try_from(document["pid"].as_u64().unwrap()).unwrap()
    }

    pub(crate) async fn visit(&self) -> u16 {
        let mut visitor = client(self.address).await.unwrap();
        visitor.get("shop.test", "/").await.unwrap().unwrap().status
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Asks for a successor that is another program.
    pub(crate) fn upgrade_to(&self, program: &str) -> String {
        self.call("POST", "/v1/upgrade", &json!({ "program": program }))
    }

    /// Starts a second proxy on the same state that takes over.
    pub(crate) fn take_over(&self) -> Child {
        self.command(PROGRAMS.bgproxy.as_ref()).arg("--take-over").spawn().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Ok(answer) = self.try_call("GET", "/v1/version", &json!({}))
            && let Some(pid) =
                answer.split("\"pid\":").nth(1).and_then(|rest| rest.split([',', '}']).next()?.parse().ok())
        {
            kill(pid);
        }
        if let Some(mut first) = self.first.take() {
            _ = first.kill();
            _ = first.wait();
        }
    }
}

fn kill(pid: i32) {
    _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL);
}

/// Tells whether a process has ended, or waits for its parent to notice.
pub(crate) fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// Starts an application that speaks WebSocket, and says everything back.
pub(crate) async fn echo() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

pub(crate) fn tls_config(site_folder: &Path, port: u16, authority: &tests::Authority) -> String {
    let issued = authority.issue(&["shop.test"]);
    std::fs::write(site_folder.join("chain.pem"), &issued.cert).unwrap();
    std::fs::write(site_folder.join("key.pem"), &issued.key).unwrap();
    let folder = site_folder.display();
    format!(
        "listen_tls = [\"127.0.0.1:{port}\"]\n[[certificates]]\ncert = \"{folder}/chain.pem\"\nkey = \"{folder}/key.pem\"\n"
    )
}
