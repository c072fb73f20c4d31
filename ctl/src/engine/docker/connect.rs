//! The first word with an engine: whether it answers, and which API it speaks.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bollard::{BollardRequest, Docker as Client};
use tokio::net::UnixStream;

use super::place::{Address, Place};
use super::refusal::{chain, refusal};
use super::transport::Transport;
use crate::engine::EngineError;

/// An ordinary call is answered within this, or the engine is stuck.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Loading, pulling and stopping take as long as they take.
const LONG_TIMEOUT: Duration = Duration::from_secs(3600);
/// The newest API that this program was written against; an older engine is spoken to in its own.
const NEWEST_API: (u32, u32) = (1, 44);
/// The oldest that has all of what we call.
const OLDEST_API: (u32, u32) = (1, 40);

/// Two clients of one engine, and the API that it is spoken to in.
#[derive(Clone)]
pub(super) struct Handles {
    pub(super) call: Client,
    pub(super) long: Client,
    pub(super) api: String,
    /// Podman, which speaks Docker's API and differs where it must.
    pub(super) is_podman: bool,
}

impl Place {
    /// Connects, and asks the engine which API it speaks.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`], in words that tell a missing engine from a forbidden one.
    pub(super) async fn connect(&self) -> Result<Handles, EngineError> {
        if let Address::Socket(path) = &self.address
            && let Err(error) = UnixStream::connect(path).await
        {
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
            return Err(EngineError::Unreachable(format!(
                "no Docker engine at {}{said}: {error}\nhint: {hint}",
                path.display()
            )));
        }
        let tls = match &self.address {
            Address::Tcp(_, Some(certificates)) => Some(certificates.connector()?),
            _ => None,
        };
        let transport = Transport::new(self.address.clone(), tls);
        let send = move |request: BollardRequest| Arc::clone(&transport).send(request);
        let client = Client::connect_with_custom_transport(
            send,
            Some("http://docker"),
            CALL_TIMEOUT.as_secs(),
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|error| refusal(&format!("connect to {}", self.target()), error))?;
        let version = client.version().await.map_err(|error| match &self.address {
            Address::Ssh(destination) => EngineError::Unreachable(destination.explain(&reason(&error))),
            Address::Tcp(_, Some(certificates)) => {
                let why = chain(&error);
                let hint = certificates.hint(&why).map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
                EngineError::Unreachable(format!("ask {} for its version: {why}{hint}", self.target()))
            }
            Address::Tcp(_, None) => {
                let why = chain(&error);
                let wants = why
                    .contains("HTTPS")
                    .then_some("\nhint: it wants certificates: DOCKER_TLS_VERIFY=1, DOCKER_CERT_PATH");
                EngineError::Unreachable(format!(
                    "ask {} for its version: {why}{}",
                    self.target(),
                    wants.unwrap_or_default()
                ))
            }
            Address::Socket(_) => refusal(&format!("ask {} for its version", self.target()), error),
        })?;
        let api = choose_api(version.api_version.as_deref(), version.min_api_version.as_deref())?;
        let is_podman = version.components.iter().flatten().any(|component| component.name.contains("Podman"));
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
        Ok(Handles { call, long, api, is_podman })
    }
}

/// Returns the innermost reason of a failure: ssh's own words.
fn reason(error: &bollard::errors::Error) -> String {
    let text = chain(error);
    text.strip_prefix("connection error: ").unwrap_or(&text).to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let place = Place { address: Address::Socket(socket.clone()), said_by: None };
        let Err(EngineError::Unreachable(missing)) = place.connect().await else { panic!() };
        assert!(missing.contains("installed"), "{missing}");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let Err(EngineError::Unreachable(dead)) = place.connect().await else { panic!() };
        assert!(dead.contains("nothing listens"), "{dead}");
    }
}
