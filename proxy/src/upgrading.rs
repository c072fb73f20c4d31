//! `bgproxy upgrade`: asks the running proxy to start a successor, and waits until that serves.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use config::admin::request::Upgrade;
use config::admin::response::Upgraded;
use config::admin::{AdminError, Call};

use crate::args::{self, Serve};

/// Why there is no successor.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing answers on the socket.
    #[error("no proxy answers on {path}: {source}\nhint: --admin names another socket; `bgproxy` starts one")]
    NoProxy {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The proxy says why not.
    #[error("{message}{hint}", message = .0.message, hint = if .0.hint.is_empty() { String::new() } else { format!("\nhint: {}", .0.hint) })]
    Refused(AdminError),
    /// There is no answer, or none that can be read.
    #[error("the running proxy gave no answer that can be read: {0}\nhint: `bgctl status` tells which process serves")]
    Unclear(String),
}

/// Returns the file of this program, also where another was put in its place since: that one is meant.
///
/// # Errors
/// Where it is not known.
pub(crate) fn own_file() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let replaced = path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.unwrap_or(path))
}

/// Asks, and returns what happened in words.
///
/// # Errors
/// Why the running proxy goes on.
pub(crate) fn run(serve: &Serve) -> Result<String, Error> {
    let path = args::relay_socket(serve.admin.clone());
    let arguments = Some(serve.arguments()).filter(|arguments| !arguments.is_empty());
    let wanted = Upgrade { program: own_file().ok(), arguments };
    let no_proxy = |source| Error::NoProxy { path: path.display().to_string(), source };
    let socket = UnixStream::connect(&path).map_err(no_proxy)?;
    let unclear = |error: &dyn ToString| Error::Unclear(error.to_string());
    let answer = ask(socket, &wanted).map_err(|error| unclear(&error))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| unclear(&"it broke off"))?;
    if head.split(' ').nth(1) == Some("200") {
        let Upgraded { pid } = serde_json::from_str(body).map_err(|error| unclear(&error))?;
        return Ok(format!("process {pid} serves; the one before it finishes what is under way and ends"));
    }
    let refusal: AdminError = serde_json::from_str(body).map_err(|error| unclear(&error))?;
    Err(Error::Refused(refusal))
}

fn ask(mut socket: UnixStream, wanted: &Upgrade) -> io::Result<String> {
    let (method, path, body) = (Call::Upgrade.method(), Call::Upgrade.path(), serde_json::to_string(wanted)?);
    let length = body.len();
    // Of HTTP/1.0, so that the answer comes in one piece and ends with the connection.
    write!(socket, "{method} {path} HTTP/1.0\r\nHost: admin\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}
