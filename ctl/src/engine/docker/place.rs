//! Where an engine is found: a flag, Docker's own environment, a context, the usual socket.

use std::path::{Path, PathBuf};

use config::paths;
use sha2::{Digest as _, Sha256};

use super::certificates::Certificates;
use super::credentials;
use super::ssh::Destination;
use crate::engine::EngineError;

/// Where an engine is found, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// How it is reached.
    pub(super) address: Address,
    /// `None` where nobody said anything, and it is the usual local one.
    pub(super) said_by: Option<String>,
}

/// How an engine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A socket on this machine.
    Socket(PathBuf),
    /// `docker system dial-stdio` on another one, through its ssh.
    Ssh(Destination),
    /// A port: a name or an address, and the port; without certificates it speaks the API in the clear.
    Tcp(String, Option<Certificates>),
}

impl Place {
    /// Finds the engine: the flag, else what Docker's own environment says, else the local socket.
    ///
    /// # Errors
    /// A host that can't be read, and a context that can't be.
    pub(super) fn find(flag: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, EngineError> {
        let tls = || Certificates::of_environment(env);
        if let Some(host) = flag {
            return Self::of_url(host, "--host", &tls);
        }
        if let Some(host) = env(paths::ENV_DOCKER_HOST) {
            return Self::of_url(&host, paths::ENV_DOCKER_HOST, &tls);
        }
        if let Some(folder) = credentials::folder(env) {
            let context = env(paths::ENV_DOCKER_CONTEXT).or_else(|| current_context(&folder));
            if let Some(name) = context.filter(|name| !name.is_empty() && name != "default") {
                let Context { host, skips_verification, certificates } = Context::read(&folder, &name)?;
                let tls = || Certificates::of_context(certificates.clone(), skips_verification);
                return Self::of_url(&host, &format!("docker context `{name}`"), &tls);
            }
        }
        let runtime = env("XDG_RUNTIME_DIR").map(PathBuf::from);
        let mut sockets = vec![PathBuf::from("/var/run/docker.sock")];
        sockets.extend(runtime.iter().flat_map(|run| [run.join("docker.sock"), run.join("podman/podman.sock")]));
        sockets.push(PathBuf::from("/run/podman/podman.sock"));
        let socket = sockets.iter().find(|path| path.exists()).unwrap_or(&sockets[0]).clone();
        Ok(Self { address: Address::Socket(socket), said_by: None })
    }

    fn of_url(
        url: &str,
        said_by: &str,
        tls: &dyn Fn() -> Result<Option<Certificates>, String>,
    ) -> Result<Self, EngineError> {
        let wrong = |why: &str| Err(EngineError::Usage(format!("{said_by} `{url}`: {why}")));
        let (scheme, rest) = url.split_once("://").unwrap_or(("ssh", url));
        let address = match scheme {
            "unix" if rest.starts_with('/') => Address::Socket(PathBuf::from(rest)),
            "unix" => return wrong("the socket's path must be absolute"),
            "ssh" => match Destination::parse(rest) {
                Ok(destination) => Address::Ssh(destination),
                Err(why) => return wrong(&why),
            },
            "tcp" => {
                let certificates = match tls() {
                    Ok(certificates) => certificates,
                    Err(why) => return wrong(&why),
                };
                let default = if certificates.is_some() { TLS_PORT } else { PLAIN_PORT };
                match with_port(rest.trim_end_matches('/'), default) {
                    Some(address) => Address::Tcp(address, certificates),
                    None => return wrong("write tcp://HOST:PORT"),
                }
            }
            _ => return wrong("write an ssh name, user@host, or a URL with ssh://, unix:// or tcp://"),
        };
        Ok(Self { address, said_by: Some(said_by.to_owned()) })
    }

    /// Returns the words for the first line of a command.
    pub(super) fn target(&self) -> String {
        match (&self.address, &self.said_by) {
            (Address::Socket(_), None) => "docker on this machine".to_owned(),
            (Address::Socket(path), Some(_)) => format!("docker at unix://{}", path.display()),
            (Address::Ssh(destination), _) => format!("docker on {destination}"),
            (Address::Tcp(address, _), _) => format!("docker at tcp://{address}"),
        }
    }

    /// Returns the name under which the engine's published ports are reached: `None` for those of this machine.
    pub(super) fn host(&self) -> Option<&str> {
        match &self.address {
            Address::Socket(_) => None,
            Address::Ssh(destination) => Some(destination.host()),
            Address::Tcp(address, _) => address.rsplit_once(':').map(|(host, _)| host),
        }
    }
}

/// Docker's port in the clear.
const PLAIN_PORT: u16 = 2375;
/// Docker's port with certificates.
const TLS_PORT: u16 = 2376;

/// Returns an address that has a port; without one, the default.
fn with_port(text: &str, default: u16) -> Option<String> {
    if text.is_empty() || text.contains(['/', '@']) || text.contains(char::is_whitespace) {
        return None;
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()?),
        _ => (text, default),
    };
    (!host.is_empty()).then(|| format!("{host}:{port}"))
}

fn current_context(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_str(&text).ok()?;
    config["currentContext"].as_str().map(str::to_owned)
}

/// What a docker context says of its engine.
struct Context {
    host: String,
    skips_verification: bool,
    /// The folder of its certificates, where it has some.
    certificates: PathBuf,
}

impl Context {
    fn read(folder: &Path, name: &str) -> Result<Self, EngineError> {
        let id = hex(&Sha256::digest(name.as_bytes()));
        let path = folder.join("contexts/meta").join(&id).join("meta.json");
        let wrong =
            |why: String| EngineError::Usage(format!("docker context `{name}`: {why}\nhint: see `docker context ls`"));
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        let meta: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        let docker = &meta["Endpoints"]["docker"];
        let host = docker["Host"].as_str().ok_or_else(|| wrong("it names no docker endpoint".to_owned()))?;
        Ok(Self {
            host: host.to_owned(),
            skips_verification: docker["SkipTLSVerify"].as_bool().unwrap_or(false),
            certificates: folder.join("contexts/tls").join(id).join("docker"),
        })
    }
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

    fn socket(path: &str) -> Address {
        Address::Socket(path.into())
    }

    #[test]
    fn the_flag_comes_before_dockers_own_variable() {
        let place = find(Some("unix:///a.sock"), &[("DOCKER_HOST", "unix:///b.sock")]).unwrap();
        assert_eq!(place.address, socket("/a.sock"));
        let place = find(None, &[("DOCKER_HOST", "unix:///b.sock")]).unwrap();
        assert_eq!((place.address, place.said_by.as_deref()), (socket("/b.sock"), Some("DOCKER_HOST")));
    }

    #[test]
    fn a_host_is_an_ssh_name_or_a_url_and_says_where_it_is() {
        let cases = [
            ("production-server", "docker on production-server", Some("production-server")),
            ("deploy@shop.example", "docker on deploy@shop.example", Some("shop.example")),
            ("ssh://deploy@shop.example:2222", "docker on deploy@shop.example:2222", Some("shop.example")),
            ("tcp://192.0.2.1:2375", "docker at tcp://192.0.2.1:2375", Some("192.0.2.1")),
            ("tcp://[2001:db8::1]", "docker at tcp://[2001:db8::1]:2375", Some("[2001:db8::1]")),
            ("unix:///run/d.sock", "docker at unix:///run/d.sock", None),
        ];
        for (text, target, host) in cases {
            let place = find(Some(text), &[]).unwrap();
            assert_eq!((place.target().as_str(), place.host()), (target, host), "{text}");
        }
        for text in ["", "-oProxyCommand=x", "two words", "http://x", "unix://a", "tcp://:1", "tcp://h:x", "ssh://h:x"]
        {
            let refused = find(Some(text), &[]);
            assert!(
                matches!(&refused, Err(EngineError::Usage(words)) if words.contains("--host")),
                "{text}: {refused:?}"
            );
        }
        let certificates = find(Some("tcp://192.0.2.1"), &[("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/c")]);
        assert_eq!(certificates.unwrap().target(), "docker at tcp://192.0.2.1:2376");
    }

    #[test]
    fn the_current_context_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let meta = folder.path().join("contexts/meta").join(hex(&Sha256::digest(b"prod")));
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(meta.join("meta.json"), r#"{"Endpoints":{"docker":{"Host":"ssh://me@c"}}}"#).unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"currentContext":"prod"}"#).unwrap();
        let config = folder.path().to_str().unwrap();
        assert_eq!(find(None, &[("DOCKER_CONFIG", config)]).unwrap().target(), "docker on me@c");
        std::fs::write(meta.join("meta.json"), r#"{"Endpoints":{"docker":{"Host":"tcp://c"}}}"#).unwrap();
        assert_eq!(find(None, &[("DOCKER_CONFIG", config)]).unwrap().target(), "docker at tcp://c:2375");
        // Its certificates are its own, whatever the environment says.
        let tls = folder.path().join("contexts/tls").join(meta.file_name().unwrap()).join("docker");
        std::fs::create_dir_all(&tls).unwrap();
        assert_eq!(find(None, &[("DOCKER_CONFIG", config)]).unwrap().target(), "docker at tcp://c:2376");
        let missing = find(None, &[("DOCKER_CONFIG", config), ("DOCKER_CONTEXT", "gone")]);
        assert!(matches!(missing, Err(EngineError::Usage(text)) if text.contains("`gone`")));
    }
}
