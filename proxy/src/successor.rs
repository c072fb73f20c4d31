//! Starting a successor: the same command line with another program, or with more to say, that then takes over.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use config::admin::request::Upgrade;
use config::admin::response::Upgraded;
use config::admin::{AdminError, ErrorCode};
use config::paths;
use tokio::process::{Child, Command};

use crate::control::Handle;
use crate::control::custody::Custody;
use crate::notify;

/// The flag by which a successor takes over.
pub(crate) const TAKE_OVER: &str = "--take-over";
/// A successor has so long to serve; each of its steps has half of that.
const PATIENCE: Duration = Duration::from_secs(60);
/// One that has ended said why within this, or not at all.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How this process was started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// What followed its name.
    pub arguments: Vec<OsString>,
    /// Nothing can stay when this process goes: it is the first one of a container, or the one that the first one waits for.
    pub is_containers_own: bool,
}

impl Program {
    /// Returns how this process was started; to be asked at its start, while its parent is the one that started it.
    pub fn own(path: PathBuf, arguments: Vec<OsString>) -> Self {
        let is_contained = || ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists());
        let of_first = rustix::process::getppid().is_some_and(|parent| parent == rustix::process::Pid::INIT);
        // A supervisor that wants to be told is none that ends with us.
        let is_supervised = paths::variable(paths::ENV_NOTIFY_SOCKET).is_some();
        let is_containers_own = std::process::id() == 1 || (of_first && !is_supervised && is_contained());
        Self { path, arguments, is_containers_own }
    }
}

/// Starts a successor and waits until it serves.
///
/// # Errors
/// `not_now` where none can take over, and why it did not; this process serves on.
pub(crate) async fn start(
    handle: &Rc<Handle>,
    program: Option<&Program>,
    wanted: Upgrade,
) -> Result<Upgraded, AdminError> {
    let Some(program) = program else {
        return Err(not_now("this proxy runs inside another program"));
    };
    if program.is_containers_own {
        return Err(not_now("this process is the first one of its container, which ends with it")
            .hint("`bgctl up --upgrade` hands over to a new container"));
    }
    handle.with(|control| control.admit_successor())?;
    let path = wanted.program.unwrap_or_else(|| program.path.clone());
    let arguments =
        wanted.arguments.map_or_else(|| program.arguments.clone(), |all| all.into_iter().map(Into::into).collect());
    let mut command = Command::new(&path);
    command.args(arguments.iter().filter(|argument| *argument != TAKE_OVER)).arg(TAKE_OVER).stdin(Stdio::null());
    handle.kept_because.send_replace(String::new());
    let mut custody = handle.custody.subscribe();
    let mut child =
        command.spawn().map_err(|error| not_now(&format!("{} can't be started: {error}", path.display())))?;
    let pid = child.id().unwrap_or_default();
    tracing::info!(pid, program = %path.display(), "a successor was started");
    let outcome = tokio::select! {
        biased;
        serves = custody.wait_for(|custody| *custody >= Custody::Left) => serves.map(drop).map_err(|_| None),
        ended = child.wait() => Err(ended.ok()),
        () = tokio::time::sleep(PATIENCE) => Err(None),
    };
    match outcome {
        Ok(()) => {
            notify::succeeded_by(pid);
            Ok(Upgraded { pid })
        }
        Err(ended) => Err(not_now(&reason(handle, &path, &mut child, ended).await)),
    }
}

async fn reason(handle: &Rc<Handle>, path: &Path, child: &mut Child, ended: Option<ExitStatus>) -> String {
    if ended.is_none()
        && let Err(error) = child.start_kill()
    {
        tracing::warn!(%error, "a successor that does not serve can't be ended");
    }
    // What it said last may arrive a moment after its end.
    let mut said = handle.kept_because.subscribe();
    _ = tokio::time::timeout(LAST_WORDS, said.wait_for(|said| !said.is_empty())).await;
    let said = said.borrow().clone();
    match (ended, said.as_str()) {
        (Some(status), "" | "the new process ended") => {
            format!("{} ended ({status}) before it served; what it said is in the log", path.display())
        }
        (None, "") => format!("{} did not serve in {} s", path.display(), PATIENCE.as_secs()),
        _ => said,
    }
}

fn not_now(why: &str) -> AdminError {
    AdminError::new(ErrorCode::NotNow, format!("{why}; this process serves on"))
}
