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
use crate::engine::docker::{Application, Docker};
use crate::engine::process::Process;
use crate::engine::{Engine, EngineError, GatewaySpec, LogRange};
use crate::error::{Error, ExitCode, Kind};
use crate::global::EngineKind;
use crate::ui::Ui;

/// The service of the demo.
pub(super) const SERVICE: &str = "uptimer";
/// Where the application listens in its container.
const PORT: u16 = 8080;

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
    proxy_binary: Option<PathBuf>,
    /// Holds the programs that stand for images where the engine has none.
    folder: tempfile::TempDir,
    pace: Pace,
    /// Where the proxy listens, and from where on plain processes look for a free port: not where others do.
    ports: [u16; 2],
}

impl Stage {
    /// Chooses the engine; nothing is made yet. Docker is taken where nobody said otherwise and it can run what is at hand.
    ///
    /// # Errors
    /// Where the engine that was asked for can't do it, and where there is no place for files.
    pub(super) async fn choose(
        wanted: Option<EngineKind>,
        proxy_binary: Option<PathBuf>,
        pace: Pace,
        ui: &Ui,
    ) -> Result<Self, Error> {
        let gateway = format!("demo-{}", std::process::id());
        let docker = match wanted {
            Some(EngineKind::Process) => None,
            Some(EngineKind::Docker) => Some(docker(&gateway, proxy_binary.as_deref()).await?),
            None => match docker(&gateway, proxy_binary.as_deref()).await {
                Ok(docker) => Some(docker),
                Err(error) => {
                    let why = error.to_string();
                    ui.say(&format!("not in Docker: {}", why.lines().next().unwrap_or_default()));
                    None
                }
            },
        };
        let engine = match docker {
            Some(docker) => Engine::Docker(docker),
            None => Engine::Process(Process::connect(Some(&gateway))?),
        };
        let place = || -> std::io::Result<_> {
            // Both are held at once, so that they are two.
            let free = [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
            let ports = [free[0].local_addr()?.port(), free[1].local_addr()?.port()];
            Ok((tempfile::Builder::new().prefix("bgctl-demo-").tempdir()?, ports))
        };
        let (folder, ports) = place().map_err(|error| prepare(&error))?;
        Ok(Self { gateway, engine, proxy_binary, folder, pace, ports })
    }

    /// Makes the images of both versions, or the programs that stand for them, from this very program.
    ///
    /// # Errors
    /// Where the engine does not take them, or there is no place for files.
    pub(super) async fn build(&self) -> Result<(), Error> {
        let program = std::env::current_exe().map_err(|error| prepare(&error))?;
        for version in [1, 2] {
            let words = self.words(version);
            match &self.engine {
                Engine::Docker(docker) => {
                    let listen = ["demo-uptimer", "--listen", "0.0.0.0"].map(str::to_owned);
                    let words = [&listen[..], &words].concat();
                    let tag = format!("v{version}");
                    let application =
                        Application { name: SERVICE, tag: &tag, program: &program, words: &words, port: PORT };
                    docker.make_image(&application).await?;
                }
                Engine::Process(_) => {
                    write_version(Path::new(&self.image(version)), &program, &words)
                        .map_err(|error| prepare(&error))?;
                }
            }
        }
        Ok(())
    }

    fn words(&self, version: u32) -> Vec<String> {
        let load = self.pace.load[usize::from(version == 2)];
        let (load, slow) = (format!("{}ms", load.as_millis()), format!("{}ms", self.pace.slow.as_millis()));
        ["--release", &version.to_string(), "--load", &load, "--slow", &slow].map(str::to_owned).to_vec()
    }

    /// Returns what `--image` names a version by.
    fn image(&self, version: u32) -> String {
        match &self.engine {
            Engine::Docker(_) => format!("{}-{SERVICE}:v{version}", self.gateway),
            Engine::Process(_) => self.folder.path().join(format!("{SERVICE}-v{version}")).display().to_string(),
        }
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
    pub(super) async fn up(&self) -> Result<SocketAddr, Error> {
        let (publish, proxy_binary) = (vec![format!("127.0.0.1:{}:80", self.ports[0])], self.proxy_binary.clone());
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
        let image = self.image(version);
        // No bake: the demo shows the whole of a switch, and goes back to a version that was stopped.
        let port = match &self.engine {
            Engine::Docker(_) => PORT.to_string(),
            Engine::Process(_) => self.ports[1].to_string(),
        };
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
        let engine = match &self.engine {
            Engine::Docker(_) => "docker",
            Engine::Process(_) => "process",
        };
        let front = ["bgctl", "--engine", engine, "--gateway", &self.gateway, "--json", "--yes"];
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

/// Returns the engine of this machine, where it answers and can run both programs.
async fn docker(gateway: &str, proxy_binary: Option<&Path>) -> Result<Docker, EngineError> {
    let docker = Docker::connect(None, Some(gateway)).await?;
    docker.check_proxy_binary(proxy_binary).await?;
    docker.check_application(&std::env::current_exe().unwrap_or_default()).await?;
    Ok(docker)
}

fn prepare(error: &std::io::Error) -> Error {
    Error::new(Kind::Unreachable, format!("prepare the demo's application: {error}"))
}

/// Writes a program that stands for one version's image: this very program, told which version to be.
fn write_version(path: &Path, program: &Path, words: &[String]) -> std::io::Result<()> {
    let program = program.to_string_lossy().replace('\'', r"'\''");
    fs::write(path, format!("#!/bin/sh\nexec '{program}' demo-uptimer {}\n", words.join(" ")))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}
