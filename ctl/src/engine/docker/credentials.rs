//! Who we are to a registry: what `docker login` left, in its configuration or with its helpers. The engine is told with each
//! pull, as docker's own command tells it; nothing is kept.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The name that Docker Hub goes by in `docker login`.
const HUB: &str = "https://index.docker.io/v1/";
/// A helper that asks someone has no answer for us.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the registry of an image's name: a first part with a dot, a port, or `localhost`.
pub(super) fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => HUB,
    }
}

/// Returns the folder of docker's configuration.
pub(super) fn folder(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let named = env("DOCKER_CONFIG").map(PathBuf::from);
    named.or_else(|| env("HOME").map(|home| Path::new(&home).join(".docker")))
}

/// Returns what is known for a registry; `None` for one that nobody logged in to.
///
/// # Errors
/// A configuration that can't be read, and a helper that can't be run, in words.
pub(super) async fn find(folder: &Path, registry: &str) -> Result<Option<DockerCredentials>, String> {
    let path = folder.join("config.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let config: Value = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let helper = config["credHelpers"][registry].as_str().or_else(|| config["credsStore"].as_str());
    if let Some(helper) = helper.filter(|helper| !helper.is_empty())
        && let Some(found) = ask(helper, registry).await?
    {
        return Ok(Some(found));
    }
    // Older versions of docker wrote a URL where newer ones write the name alone.
    let spellings = [registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v1/")];
    let entry = spellings.iter().map(|name| &config["auths"][name]).find(|entry| entry.is_object());
    Ok(entry.and_then(|entry| read(entry, registry)))
}

/// Reads an entry of `auths`.
fn read(entry: &Value, registry: &str) -> Option<DockerCredentials> {
    let serveraddress = Some(registry.to_owned());
    if let Some(token) = entry["identitytoken"].as_str() {
        return Some(DockerCredentials {
            identitytoken: Some(token.to_owned()),
            serveraddress,
            ..DockerCredentials::default()
        });
    }
    let decoded = STANDARD.decode(entry["auth"].as_str()?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(DockerCredentials {
        username: Some(username.to_owned()),
        password: Some(password.trim_end_matches('\0').to_owned()),
        serveraddress,
        ..DockerCredentials::default()
    })
}

/// Asks a helper of docker's: the registry on its standard input, JSON on its output, and failure where it knows none.
async fn ask(helper: &str, registry: &str) -> Result<Option<DockerCredentials>, String> {
    let program = format!("docker-credential-{helper}");
    let failed = |error: &dyn std::fmt::Display| format!("{program}: {error}");
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    if let Some(mut input) = child.stdin.take() {
        // One that ends without reading says why by its exit.
        let _gone = input.write_all(registry.as_bytes()).await;
    }
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.map_err(|_| failed(&"it does not answer"))?.map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Ok(None);
    }
    // What it answered is a secret, so it is not repeated.
    let answer: Value = serde_json::from_slice(&output.stdout).map_err(|_| failed(&"its answer is not JSON"))?;
    let word = |key: &str| answer[key].as_str().map(str::to_owned);
    let serveraddress = Some(registry.to_owned());
    Ok(Some(match (word("Username"), word("Secret")) {
        (Some(name), token) if name == "<token>" => {
            DockerCredentials { identitytoken: token, serveraddress, ..DockerCredentials::default() }
        }
        (username, password) => DockerCredentials { username, password, serveraddress, ..DockerCredentials::default() },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_told_by_a_dot_a_port_or_localhost() {
        let cases = [
            ("shop", HUB),
            ("team/shop:1", HUB),
            ("localhost/shop", "localhost"),
            ("127.0.0.1:5000/shop:1", "127.0.0.1:5000"),
            ("ghcr.io/team/shop@sha256:1", "ghcr.io"),
        ];
        for (reference, name) in cases {
            assert_eq!(registry(reference), name, "{reference}");
        }
    }

    #[tokio::test]
    async fn what_docker_login_wrote_is_read_in_each_of_its_forms() {
        let folder = tempfile::tempdir().unwrap();
        assert!(find(folder.path(), "ghcr.io").await.unwrap().is_none(), "nobody logged in");
        let auth = STANDARD.encode("me:pass:word");
        let config = serde_json::json!({
            "auths": { "ghcr.io": { "auth": auth }, "https://old.example": { "auth": auth },
                       "token.example": { "identitytoken": "t" }, HUB: { "auth": "?" } },
        });
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let find = async |registry: &str| find(folder.path(), registry).await.unwrap();
        for registry in ["ghcr.io", "old.example"] {
            let found = find(registry).await.unwrap();
            assert_eq!((found.username.as_deref(), found.password.as_deref()), (Some("me"), Some("pass:word")));
            assert_eq!(found.serveraddress.as_deref(), Some(registry));
        }
        assert_eq!(find("token.example").await.unwrap().identitytoken.as_deref(), Some("t"));
        assert!(find(HUB).await.is_none() && find("other.example").await.is_none());
    }

    #[tokio::test]
    async fn a_helper_that_is_missing_is_named_and_a_broken_file_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, r#"{"credHelpers": {"ghcr.io": "of-nobody"}}"#).unwrap();
        let missing = find(folder.path(), "ghcr.io").await.unwrap_err();
        assert!(missing.contains("docker-credential-of-nobody"), "{missing}");
        std::fs::write(&path, "{").unwrap();
        let broken = find(folder.path(), "ghcr.io").await.unwrap_err();
        assert!(broken.contains("config.json"), "{broken}");
    }
}
