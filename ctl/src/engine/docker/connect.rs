//! Which engine is meant, and the first word with it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker as Client;
use config::paths;
use sha2::{Digest as _, Sha256};
use tokio::net::UnixStream;

use super::refusal::refusal;
use crate::engine::EngineError;

/// An ordinary call is answered within this, or the engine is stuck.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Loading, pulling and stopping take as long as they take.
const LONG_TIMEOUT: Duration = Duration::from_secs(3600);
/// The newest API that this program was written against; an older engine is spoken to in its own.
const NEWEST_API: (u32, u32) = (1, 44);
/// The oldest that has all of what we call.
const OLDEST_API: (u32, u32) = (1, 40);

/// Where an engine is found, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The path of its socket.
    pub(super) socket: PathBuf,
    /// `None` where nobody said anything, and it is the usual local one.
    pub(super) said_by: Option<String>,
}

/// Two clients of one engine, and the API that it is spoken to in.
#[derive(Clone)]
pub(super) struct Handles {
    pub(super) call: Client,
    pub(super) long: Client,
    pub(super) api: String,
}

impl Place {
    /// Finds the engine: the flag, else what Docker's own environment says, else the local socket.
    ///
    /// # Errors
    /// A host that is not on this machine, which is not there yet, and a context that can't be read.
    pub(super) fn find(flag: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, EngineError> {
        if let Some(host) = flag {
            return Self::of_url(host, "--host");
        }
        if let Some(host) = env(paths::ENV_DOCKER_HOST) {
            return Self::of_url(&host, paths::ENV_DOCKER_HOST);
        }
        let folder = env("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| env("HOME").map(|home| Path::new(&home).join(".docker")));
        if let Some(folder) = folder {
            let context = env(paths::ENV_DOCKER_CONTEXT).or_else(|| current_context(&folder));
            if let Some(name) = context.filter(|name| !name.is_empty() && name != "default") {
                let host = context_host(&folder, &name)?;
                return Self::of_url(&host, &format!("docker context `{name}`"));
            }
        }
        let runtime = env("XDG_RUNTIME_DIR").map(PathBuf::from);
        let mut sockets = vec![PathBuf::from("/var/run/docker.sock")];
        sockets.extend(runtime.iter().flat_map(|run| [run.join("docker.sock"), run.join("podman/podman.sock")]));
        sockets.push(PathBuf::from("/run/podman/podman.sock"));
        let socket = sockets.iter().find(|path| path.exists()).unwrap_or(&sockets[0]).clone();
        Ok(Self { socket, said_by: None })
    }

    fn of_url(url: &str, said_by: &str) -> Result<Self, EngineError> {
        match url.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => {
                Ok(Self { socket: PathBuf::from(path), said_by: Some(said_by.to_owned()) })
            }
            Some(_) => Err(EngineError::Usage(format!("{said_by} `{url}`: the socket's path must be absolute"))),
            None => Err(EngineError::Usage(format!(
                "{said_by} `{url}`: not there yet: an engine on another host\nhint: run bgctl on that host, or name a \
                 local socket as unix:///path"
            ))),
        }
    }

    /// Returns the words for the first line of a command.
    pub(super) fn target(&self) -> String {
        match &self.said_by {
            None => "docker on this machine".to_owned(),
            Some(_) => format!("docker at unix://{}", self.socket.display()),
        }
    }

    /// Connects, and asks the engine which API it speaks.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`], in words that tell a missing engine from a forbidden one.
    pub(super) async fn connect(&self) -> Result<Handles, EngineError> {
        let path = self.socket.display();
        if let Err(error) = UnixStream::connect(&self.socket).await {
            let hint = match error.kind() {
                ErrorKind::NotFound => {
                    "is Docker installed and started? `systemctl start docker`, or name another engine by --host"
                }
                ErrorKind::PermissionDenied => {
                    "you may not use it: `sudo usermod -aG docker $USER` and log in again, or use sudo"
                }
                ErrorKind::ConnectionRefused => "the socket is there but nothing listens: `systemctl restart docker`",
                _ => "is Docker running? `systemctl status docker`",
            };
            let said = self.said_by.as_ref().map(|by| format!(" (from {by})")).unwrap_or_default();
            return Err(EngineError::Unreachable(format!("no Docker engine at {path}{said}: {error}\nhint: {hint}")));
        }
        let text = self.socket.to_string_lossy();
        let client = Client::connect_with_unix(&text, CALL_TIMEOUT.as_secs(), bollard::API_DEFAULT_VERSION)
            .map_err(|error| refusal(&format!("connect to {path}"), error))?;
        let version = client.version().await.map_err(|error| refusal(&format!("ask {path} for its version"), error))?;
        let api = choose_api(version.api_version.as_deref(), version.min_api_version.as_deref())?;
        let prefix = format!("/v{api}");
        let call = client.with_request_modifier(move |mut request| {
            let mut parts = request.uri().clone().into_parts();
            let versioned = parts.path_and_query.as_ref().map(|path| format!("{prefix}{path}"));
            parts.path_and_query = versioned.and_then(|path| path.parse().ok());
            // Where it can't be put together, the request goes out unversioned, which every engine understands.
            if let Ok(uri) = http::Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
            request
        });
        let long = call.clone().with_timeout(LONG_TIMEOUT);
        Ok(Handles { call, long, api })
    }
}

/// Chooses the API: without one in the path, a newer engine would answer in a form that nobody here has seen.
fn choose_api(newest: Option<&str>, oldest: Option<&str>) -> Result<String, EngineError> {
    let parse = |text: &str| {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    let Some(engine_newest) = newest.and_then(parse) else {
        return Err(EngineError::Unreachable("what answers does not say which Docker API it speaks".to_owned()));
    };
    if engine_newest < OLDEST_API {
        return Err(EngineError::Unreachable(format!(
            "the Docker engine speaks API {}.{} at most, and 1.40 (Docker 19.03) is needed",
            engine_newest.0, engine_newest.1
        )));
    }
    let engine_oldest = oldest.and_then(parse).unwrap_or(OLDEST_API);
    let (major, minor) = NEWEST_API.min(engine_newest).max(engine_oldest);
    Ok(format!("{major}.{minor}"))
}

fn current_context(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_str(&text).ok()?;
    config["currentContext"].as_str().map(str::to_owned)
}

fn context_host(folder: &Path, name: &str) -> Result<String, EngineError> {
    let id = hex(&Sha256::digest(name.as_bytes()));
    let path = folder.join("contexts/meta").join(id).join("meta.json");
    let wrong =
        |why: String| EngineError::Usage(format!("docker context `{name}`: {why}\nhint: see `docker context ls`"));
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    let meta: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    let host = meta["Endpoints"]["docker"]["Host"].as_str();
    host.map(str::to_owned).ok_or_else(|| wrong("it names no docker endpoint".to_owned()))
}

/// Writes bytes in hex, lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(flag: Option<&str>, env: &[(&str, &str)]) -> Result<Place, EngineError> {
        let env: Vec<(String, String)> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Place::find(flag, &move |name| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    }

    #[test]
    fn the_flag_comes_before_dockers_own_variable() {
        let place = find(Some("unix:///a.sock"), &[("DOCKER_HOST", "unix:///b.sock")]).unwrap();
        assert_eq!(place.socket, Path::new("/a.sock"));
        let place = find(None, &[("DOCKER_HOST", "unix:///b.sock")]).unwrap();
        assert_eq!((place.socket.as_path(), place.said_by.as_deref()), (Path::new("/b.sock"), Some("DOCKER_HOST")));
    }

    #[test]
    fn a_remote_engine_is_not_there_yet_and_says_so() {
        for host in ["ssh://production", "user@production", "production", "tcp://10.0.0.1:2375"] {
            let Err(EngineError::Usage(text)) = find(Some(host), &[]) else { panic!("{host}") };
            assert!(text.contains("not there yet"), "{text}");
        }
    }

    #[test]
    fn the_current_context_is_read_and_a_remote_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let meta = folder.path().join("contexts/meta").join(hex(&Sha256::digest(b"prod")));
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(meta.join("meta.json"), r#"{"Endpoints":{"docker":{"Host":"unix:///c.sock"}}}"#).unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"currentContext":"prod"}"#).unwrap();
        let config = folder.path().to_str().unwrap();
        assert_eq!(find(None, &[("DOCKER_CONFIG", config)]).unwrap().socket, Path::new("/c.sock"));
        let missing = find(None, &[("DOCKER_CONFIG", config), ("DOCKER_CONTEXT", "gone")]);
        assert!(matches!(missing, Err(EngineError::Usage(text)) if text.contains("`gone`")));
    }

    #[test]
    fn the_api_is_ours_or_the_engines_whichever_is_older() {
        assert_eq!(choose_api(Some("1.41"), Some("1.12")).unwrap(), "1.41");
        assert_eq!(choose_api(Some("1.53"), Some("1.44")).unwrap(), "1.44");
        assert_eq!(choose_api(Some("1.60"), Some("1.50")).unwrap(), "1.50");
        assert!(choose_api(Some("1.24"), None).is_err());
        assert!(choose_api(None, None).is_err());
    }

    #[tokio::test]
    async fn a_missing_engine_is_told_apart_from_a_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let place = Place { socket: socket.clone(), said_by: None };
        let Err(EngineError::Unreachable(missing)) = place.connect().await else { panic!() };
        assert!(missing.contains("installed"), "{missing}");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let Err(EngineError::Unreachable(dead)) = place.connect().await else { panic!() };
        assert!(dead.contains("nothing listens"), "{dead}");
    }
}
