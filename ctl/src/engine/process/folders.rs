//! The folders of a gateway of plain processes: what is kept, and where its admin socket is.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::engine::EngineError;

/// A Unix socket's path has room for this many bytes on Linux, its closing zero left out.
const SOCKET_PATH_BYTES: usize = 107;

/// Where one gateway keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folders {
    state: PathBuf,
    runtime: PathBuf,
}

impl Folders {
    /// Returns the folders of a gateway, by the XDG base directory words of the environment.
    ///
    /// # Errors
    /// Where neither `XDG_STATE_HOME` nor `HOME` is set, or the gateway's name can't be a folder's.
    pub(super) fn find(gateway: Option<&str>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, EngineError> {
        let name = match gateway.filter(|name| !name.is_empty()) {
            None => "bluegreen".to_owned(),
            Some(name) if is_plain(name) => format!("bluegreen-{name}"),
            Some(name) => {
                return Err(EngineError::Usage(format!(
                    "gateway `{name}`: a name is 1 to 24 of a-z, 0-9 and dashes, as in --gateway staging"
                )));
            }
        };
        // A relative path in one of these is to be ignored, says the specification.
        let absolute = |key: &str| variable(key).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .ok_or_else(|| {
                EngineError::Usage(
                    "there is no place for the state: neither XDG_STATE_HOME nor HOME is set to a full path".to_owned(),
                )
            })?
            .join(&name);
        // Without a runtime folder the state folder will do: it is as private, and only outlives a reboot.
        let runtime = match absolute("XDG_RUNTIME_DIR").filter(|folder| folder.is_dir()) {
            Some(folder) => folder.join(&name),
            None => state.join("run"),
        };
        Self::new(state, runtime)
    }

    fn new(state: PathBuf, runtime: PathBuf) -> Result<Self, EngineError> {
        let folders = Self { state, runtime };
        let socket = folders.socket();
        if socket.as_os_str().len() > SOCKET_PATH_BYTES {
            return Err(EngineError::Usage(format!(
                "{}: the path of a socket is at most {SOCKET_PATH_BYTES} bytes long\nhint: set XDG_RUNTIME_DIR to a shorter one",
                socket.display()
            )));
        }
        Ok(folders)
    }

    /// Makes the folders, open to their owner alone.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub(super) fn make(&self) -> Result<(), EngineError> {
        for folder in [&self.state, &self.runtime, &self.instances(), &self.logs(), &self.proxy_state()] {
            let private = || {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            };
            private().map_err(|error| at(folder, &error))?;
        }
        Ok(())
    }

    /// Removes the runtime folder, and with `state` all the rest.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub(super) fn remove(&self, state: bool) -> Result<(), EngineError> {
        let mut gone = vec![&self.runtime];
        if state {
            gone.push(&self.state);
        }
        for folder in gone {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(folder, &error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The whole of it.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// What the proxy saves.
    pub(super) fn proxy_state(&self) -> PathBuf {
        self.state.join("proxy")
    }

    /// One record for each instance.
    pub(super) fn instances(&self) -> PathBuf {
        self.state.join("instances")
    }

    /// One log for each instance.
    pub(super) fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Which process the proxy is.
    pub(super) fn proxy_record(&self) -> PathBuf {
        self.state.join("bgproxy.json")
    }

    /// The proxy's log.
    pub(super) fn proxy_log(&self) -> PathBuf {
        self.state.join("bgproxy.log")
    }

    /// What it writes of requests.
    pub(super) fn access_log(&self) -> PathBuf {
        self.state.join("access.log")
    }

    /// Held while the gateway is brought up or taken down.
    pub(super) fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// The proxy's admin socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.runtime.join("admin.sock")
    }
}

/// Words a file's error with the file; a disk that is full, or a folder that may not be written, is the host's trouble.
pub(super) fn at(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::Unreachable(format!("{}: {error}", path.display()))
}

fn is_plain(name: &str) -> bool {
    name.len() <= 24
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(gateway: Option<&str>, pairs: &[(&str, &str)]) -> Result<Folders, EngineError> {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Folders::find(gateway, &|key| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()))
    }

    #[test]
    fn the_environment_says_where_and_the_gateway_has_its_own_folder() {
        let folders = find(None, &[("HOME", "/home/alice")]).unwrap();
        assert_eq!(folders.state(), Path::new("/home/alice/.local/state/bluegreen"));
        assert_eq!(folders.socket(), Path::new("/home/alice/.local/state/bluegreen/run/admin.sock"));
        let folders = find(Some("test"), &[("HOME", "/home/alice"), ("XDG_STATE_HOME", "/s")]).unwrap();
        assert_eq!(folders.proxy_state(), Path::new("/s/bluegreen-test/proxy"));
        let runtime = tempfile::tempdir().unwrap();
        let pairs = [("HOME", "/h"), ("XDG_RUNTIME_DIR", runtime.path().to_str().unwrap())];
        assert_eq!(find(None, &pairs).unwrap().socket(), runtime.path().join("bluegreen/admin.sock"));
    }

    #[test]
    fn what_can_not_work_is_wrong_usage_before_anything_is_made() {
        let long = format!("/{}", "x".repeat(120));
        for refused in [find(None, &[]), find(Some("../x"), &[("HOME", "/h")]), find(None, &[("HOME", &long)])] {
            assert!(matches!(refused, Err(EngineError::Usage(_))), "{refused:?}");
        }
    }

    #[test]
    fn the_folders_are_open_to_their_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::new(root.path().join("state"), root.path().join("run")).unwrap();
        folders.make().unwrap();
        for folder in [folders.state().to_owned(), root.path().join("run")] {
            assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
        folders.remove(true).unwrap();
        assert!(!folders.state().exists());
    }
}
