//! A proxy's process, which ends with the value that stands for it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::error::Error;

/// So long a process may take to end when it is told to.
const GRACE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// Looks at whether something is ready are this far apart.
const LOOK: Duration = Duration::from_millis(2);
/// A proxy that does not serve by then won't.
const START: Duration = Duration::from_secs(10);
/// Shown of a log.
const TAIL_LINES: usize = 20;

/// A running process; dropping it ends it, and waits for the end.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    program: &'static str,
    log: PathBuf,
}

impl Child {
    /// Starts a process that writes what it says into a file of the folder.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start(command: &mut Command, program: &'static str, folder: &Path) -> Result<Self, Error> {
        let failed = || Error::io(format!("start {program}"));
        let log = folder.join("said.log");
        let said = File::create(&log).map_err(failed())?;
        let heard = said.try_clone().map_err(failed())?;
        let process = command.stdin(Stdio::null()).stdout(said).stderr(heard).spawn().map_err(failed())?;
        Ok(Self { process, program, log })
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until `ready` says that it serves.
    ///
    /// # Errors
    /// With the end of its log, where it ended or took too long.
    pub async fn until(&mut self, ready: impl AsyncFn() -> bool) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + START;
        loop {
            if ready().await {
                return Ok(());
            }
            let ended = self.process.try_wait().ok().flatten().is_some();
            if ended || tokio::time::Instant::now() > deadline {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = said.lines().collect();
                let said = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
                return Err(Error::NotServing { program: self.program, said });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.process);
        // It was not waited for, so its id is still its own; where it has ended, there is nobody to tell.
        _ = kill_process(pid, Signal::TERM);
        let ended = pidfd_open(pid, PidfdFlags::empty())
            .and_then(|process| poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&GRACE)));
        if !matches!(ended, Ok(1)) {
            for child in children(pid) {
                _ = kill_process(child, Signal::KILL);
            }
            _ = self.process.kill();
        }
        _ = self.process.wait();
    }
}

/// The processes that a process has started: those of nginx outlive a master that is killed.
fn children(of: Pid) -> Vec<Pid> {
    let id = of.as_raw_nonzero();
    let listed = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}
