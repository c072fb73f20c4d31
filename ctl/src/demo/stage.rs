//! The stage that the demo plays on: a gateway of its own, two versions of its application, and the commands of `bgctl`.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;

use super::uptimer::RECEIVED;
use crate::engine::process::Process;
use crate::engine::{Engine, GatewaySpec, LogRange};
use crate::error::{Error, ExitCode, Kind};
use crate::ui::Ui;

/// The service of the demo.
pub(super) const SERVICE: &str = "uptimer";

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Loading of version 1 and of version 2.
    pub(super) load: [Duration; 2],
    /// The slow path.
    pub(super) slow: Duration,
    /// Traffic between two acts.
    pub(super) interlude: Duration,
}

impl Pace {
    /// As the recipe's application.
    pub(super) const USUAL: Self = Self {
        load: [Duration::from_secs(10), Duration::from_secs(5)],
        slow: Duration::from_secs(2),
        interlude: Duration::from_secs(4),
    };
    /// For the impatient, and for tests.
    pub(super) const FAST: Self = Self {
        load: [Duration::from_secs(2), Duration::from_secs(1)],
        slow: Duration::from_millis(500),
        interlude: Duration::from_secs(1),
    };
}

/// The stage, once it stands.
pub(super) struct Stage {
    gateway: String,
    engine: Engine,
    /// Holds the two programs that stand for images.
    folder: tempfile::TempDir,
    pace: Pace,
    /// Where the versions begin to look for a free port: not where other demos and everybody's applications do.
    port: u16,
}

impl Stage {
    /// Prepares both versions; nothing runs yet.
    ///
    /// # Errors
    /// Where there is no place for files.
    pub(super) fn new(pace: Pace) -> Result<Self, Error> {
        let gateway = format!("demo-{}", std::process::id());
        let engine = Engine::Process(Process::connect(Some(&gateway))?);
        let prepare = || {
            let folder = tempfile::Builder::new().prefix("bgctl-demo-").tempdir()?;
            let program = std::env::current_exe()?;
            for version in [1, 2] {
                write_version(folder.path(), &program, version, pace)?;
            }
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            Ok((folder, port))
        };
        let (folder, port) = prepare().map_err(|error: std::io::Error| {
            Error::new(Kind::Unreachable, format!("prepare the demo's application: {error}"))
        })?;
        Ok(Self { gateway, engine, folder, pace, port })
    }

    /// Returns where the demo runs, in words.
    pub(super) fn target(&self) -> String {
        self.engine.target()
    }

    /// Returns how long things take.
    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    /// Starts the proxy on a free port, and returns its address.
    ///
    /// # Errors
    /// Where it can't be made to run.
    pub(super) async fn up(&self, proxy_binary: Option<PathBuf>) -> Result<SocketAddr, Error> {
        let publish = vec!["127.0.0.1:0:80".to_owned()];
        let gateway = self.engine.up(&GatewaySpec { publish, proxy_binary, ..GatewaySpec::default() }).await?;
        let addresses = gateway.addresses.iter().filter_map(|text| text.strip_prefix("http://")?.parse().ok());
        addresses.into_iter().next().ok_or_else(|| {
            let said = gateway.addresses.join(", ");
            Error::new(Kind::NoProxy, format!("the proxy names no address to send traffic to: `{said}`"))
        })
    }

    /// Runs `bgctl switch` to a version, and returns its report.
    ///
    /// # Errors
    /// As of the command, with all that it said.
    pub(super) async fn switch(&self, version: u32) -> Result<Value, Error> {
        let image = version_path(self.folder.path(), version);
        // No bake: the demo shows the whole of a switch, and goes back to a version that was stopped.
        let port = self.port.to_string();
        let options = ["--bake", "0s", "--drain", "10s", "--port", &port].map(OsString::from);
        let words: [OsString; 4] = ["switch".into(), SERVICE.into(), "--image".into(), image.into()];
        self.bgctl(words.into_iter().chain(options)).await
    }

    /// Runs `bgctl rollback`, and returns its report.
    ///
    /// # Errors
    /// As of the command, with all that it said.
    pub(super) async fn rollback(&self) -> Result<Value, Error> {
        self.bgctl(["rollback".into(), SERVICE.into()].into_iter()).await
    }

    /// Returns the ids of all POSTs that the application received, of all its instances.
    ///
    /// # Errors
    /// Where a log can't be read.
    pub(super) async fn received(&self) -> Result<Vec<String>, Error> {
        let mut ids = Vec::new();
        let range = LogRange { tail: None, follow: false };
        for instance in self.engine.instances(None).await? {
            let mut note = |line: &str| ids.extend(line.strip_prefix(RECEIVED).map(str::to_owned));
            self.engine.logs(&instance, range, &mut note).await?;
        }
        Ok(ids)
    }

    /// Takes everything down again.
    ///
    /// # Errors
    /// Where something can't be ended or removed.
    pub(super) async fn clear(&self) -> Result<(), Error> {
        self.engine.down(true).await?;
        Ok(())
    }

    /// Runs a command of our own, exactly as someone would type it.
    async fn bgctl(&self, words: impl Iterator<Item = OsString>) -> Result<Value, Error> {
        let front = ["bgctl", "--engine", "process", "--gateway", &self.gateway, "--json", "--yes"];
        let line: Vec<OsString> = front.into_iter().map(OsString::from).chain(words).collect();
        let (ui, captured) = Ui::captured();
        // A command that runs commands: without the box its future would contain itself.
        let run: Pin<Box<dyn Future<Output = ExitCode> + '_>> = Box::pin(crate::run_inside(line.clone(), &ui));
        let code = run.await;
        let out = captured.stdout();
        let mut events = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let report = events.rfind(|event| event["event"] == "report");
        match report {
            // What failed under it is for the verdict to say.
            Some(report) if [ExitCode::DONE, Kind::Lossy.exit_code()].contains(&code) => Ok(report),
            _ => {
                let typed: Vec<String> = line.iter().map(|word| word.to_string_lossy().into_owned()).collect();
                let mut error =
                    Error::new(Kind::of(code), format!("`{}` ended with exit code {}", typed.join(" "), code.0));
                error.details.extend(captured.stderr().lines().map(str::to_owned));
                Err(error)
            }
        }
    }
}

fn version_path(folder: &Path, version: u32) -> PathBuf {
    folder.join(format!("{SERVICE}-v{version}"))
}

/// Writes a program that stands for one version's image: this very program, told which version to be.
fn write_version(folder: &Path, program: &Path, version: u32, pace: Pace) -> std::io::Result<()> {
    let path = version_path(folder, version);
    let load = pace.load[usize::from(version == 2)];
    let program = program.to_string_lossy().replace('\'', r"'\''");
    let script = format!(
        "#!/bin/sh\nexec '{program}' demo-uptimer --release {version} --load {}ms --slow {}ms\n",
        load.as_millis(),
        pace.slow.as_millis()
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
}
