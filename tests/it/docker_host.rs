//! A real Docker engine for a test: a gateway with a name and ports of its own, looked at with docker's own command.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use ctl::engine::docker::Docker;
use ctl::engine::{Engine, GatewaySpec};
use serde_json::Value;
use tests::{Ended, Started, skipped};
use tokio::sync::{Mutex, MutexGuard};

use crate::programs::PROGRAMS;

/// A gateway that a test made; dropping it removes everything, also when the test panics.
pub(crate) struct TestGateway {
    pub(crate) name: String,
    /// Where the proxy is reached on 127.0.0.1.
    pub(crate) port: u16,
    pub(crate) engine: Engine,
    pub(crate) proxy_binary: PathBuf,
    /// Held until all is removed: one of the tests restarts the engine. (nextest runs them one by one anyway.)
    _engine_is_mine: MutexGuard<'static, ()>,
}

/// Returns a gateway that is not up yet, or `None`, with a word on why, where there is no engine or no static bgproxy.
pub(crate) async fn gateway(test: &str) -> Option<TestGateway> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    static ENGINE: Mutex<()> = Mutex::const_new(());
    let Some(proxy_binary) = proxy_binary() else { return skip(test, "no static bgproxy: `make static` makes one") };
    if !docker_answers() {
        return skip(test, "no Docker engine answers");
    }
    let engine_is_mine = ENGINE.lock().await;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("t{}-{count}", std::process::id());
    let engine = Engine::Docker(Docker::connect(None, Some(&name)).await.unwrap());
    Some(TestGateway { name, port: free_port(), engine, proxy_binary, _engine_is_mine: engine_is_mine })
}

impl TestGateway {
    /// What `up` is asked for: the test's own port on loopback.
    pub(crate) fn spec(&self) -> GatewaySpec {
        GatewaySpec {
            publish: vec![format!("127.0.0.1:{}:80", self.port)],
            proxy_binary: Some(self.proxy_binary.clone()),
            ..GatewaySpec::default()
        }
    }

    /// Starts `bgctl` on this gateway.
    pub(crate) fn start(&self, words: &[&str]) -> Started {
        let mut command = tokio::process::Command::new(PROGRAMS.bgctl);
        command.args(["--gateway", &self.name, "--json", "--yes"]).args(words);
        Started::spawn(command)
    }

    /// As [`TestGateway::start`], with another working folder.
    pub(crate) fn start_in(&self, folder: &Path, words: &[&str]) -> Started {
        let mut command = tokio::process::Command::new(PROGRAMS.bgctl);
        command.args(["--gateway", &self.name, "--json", "--yes"]).args(words).current_dir(folder);
        Started::spawn(command)
    }

    /// Runs `bgctl` on this gateway to its end.
    pub(crate) async fn bgctl(&self, words: &[&str]) -> Ended {
        self.start(words).end().await
    }

    /// Returns where the proxy is reached.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Returns the names of its containers, running or not, without the prefix.
    pub(crate) fn containers(&self) -> BTreeSet<String> {
        let prefix = format!("{}-", self.name);
        let names = docker(&["ps", "-a", "--format", "{{.Names}}"]).unwrap();
        names.lines().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    /// Prefixes a name as the gateway does.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// Returns what `docker inspect` says of something of this gateway, or null.
    pub(crate) fn inspect(&self, name: &str) -> Value {
        inspect(&self.named(name))
    }

    /// Returns everything that carries the gateway's prefix: containers, networks, volumes, images.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let lists: [&[&str]; 4] = [
            &["ps", "-a", "--format", "{{.Names}}"],
            &["network", "ls", "--format", "{{.Name}}"],
            &["volume", "ls", "--format", "{{.Name}}"],
            &["images", "--format", "{{.Repository}}:{{.Tag}}"],
        ];
        let prefix = format!("{}-", self.name);
        let names = lists.iter().flat_map(|list| docker(list).unwrap().lines().map(str::to_owned).collect::<Vec<_>>());
        names.filter(|name| name.starts_with(&prefix)).collect()
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        let prefix = format!("name=^/?{}-", self.name);
        let remove = |list: &[&str], remove: &[&str]| {
            let names = docker(list).unwrap_or_default();
            for name in names.lines().filter(|name| name.starts_with(&format!("{}-", self.name))) {
                let _ = docker(&[remove, &[name]].concat());
            }
        };
        remove(&["ps", "-a", "--filter", &prefix, "--format", "{{.Names}}"], &["rm", "-f", "-v"]);
        remove(&["network", "ls", "--format", "{{.Name}}"], &["network", "rm"]);
        remove(&["volume", "ls", "--format", "{{.Name}}"], &["volume", "rm", "-f"]);
        remove(&["images", "--format", "{{.Repository}}:{{.Tag}}"], &["rmi"]);
    }
}

/// Runs docker's own command.
pub(crate) fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Returns what `docker inspect` says, or null.
pub(crate) fn inspect(name: &str) -> Value {
    let text = docker(&["inspect", name]).unwrap_or_default();
    serde_json::from_str::<Value>(&text).map_or(Value::Null, |list| list[0].clone())
}

/// Returns a port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn docker_answers() -> bool {
    docker(&["version", "--format", "{{.Server.Version}}"]).is_ok()
}

/// Returns the static bgproxy: the one that `BG_PROXY_BINARY` names, else that of `make static`.
fn proxy_binary() -> Option<PathBuf> {
    let named = std::env::var_os("BG_PROXY_BINARY").map(PathBuf::from);
    let made = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release/bgproxy");
    named.or(Some(made)).filter(|file| file.is_file())
}

/// Says that a test is skipped, or fails it where CI wants none skipped.
pub(crate) fn skip<T>(test: &str, why: &str) -> Option<T> {
    assert!(std::env::var_os("BG_REQUIRE_DOCKER").is_none(), "{test}: BG_REQUIRE_DOCKER is set, and {why}");
    skipped(test, why);
    None
}

/// Returns an image with Python and the usual libraries; `None`, with a word on why, where it can't be made.
pub(crate) fn python_base(test: &str) -> Option<&'static str> {
    const BASE: &str = "bluegreen-test/python-base:bookworm";
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("images/python-base.sh");
    let made = Command::new(script).arg(BASE).output().unwrap();
    if !made.status.success() {
        return skip(test, &format!("no base image: {}", String::from_utf8_lossy(&made.stderr).trim()));
    }
    Some(BASE)
}

/// Makes an image with packages of Debian; `false`, with a word on why, where that can't be done here.
pub(crate) fn debian_image(test: &str, name: &str, packages: &str, command: &str) -> bool {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/images/debian-base.sh");
    let made = Command::new(script).args([name, packages, command]).output().unwrap();
    let words = String::from_utf8_lossy(&made.stderr).trim().to_owned();
    made.status.success() || skip::<()>(test, &format!("no image with {packages}: {words}")).is_some()
}

/// One build of the recipe's uptimer.
pub(crate) struct Uptimer {
    pub(crate) version: u32,
    /// Seconds until it is ready.
    pub(crate) loading: u32,
    /// `exit`, `never`, or nothing.
    pub(crate) fail: &'static str,
}

impl TestGateway {
    /// Builds the uptimer's image for this gateway; `None`, with a word on why, where there is no Python to build it on.
    pub(crate) fn build(&self, test: &str, uptimer: &Uptimer) -> Option<String> {
        let base = python_base(test)?;
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let image = format!("{}:v{}", self.named("uptimer"), uptimer.version);
        let folder = root.join("../examples/uptimer");
        // BuildKit is a plug-in that may be missing; the old builder is in every engine.
        let built = Command::new("docker")
            .env("DOCKER_BUILDKIT", "0")
            .args(["build", "-q", "-t", &image, "--build-arg", &format!("BASE={base}")])
            .args(["--build-arg", &format!("VERSION={}", uptimer.version)])
            .args(["--build-arg", &format!("LOADING={}", uptimer.loading)])
            .args(["--build-arg", &format!("FAIL={}", uptimer.fail)])
            .arg(folder)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Some(image)
    }
}
