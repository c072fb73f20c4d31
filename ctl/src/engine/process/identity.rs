//! Which process is meant: a pid together with what tells it from a later process of the same number.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process, for as long as it lives and never mistaken for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pid: i32,
    /// When it started, in clock ticks since the boot.
    started: u64,
    /// The boot, since ticks and pids begin anew with each.
    boot: String,
}

/// The second part of a line in `/proc/PID/stat` that matters here.
struct Stat {
    state: char,
    started: u64,
}

impl Identity {
    /// Returns the identity of the process that has this pid now; `None` where there is none.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let stat = read_stat(pid)?;
        Some(Self { pid, started: stat.started, boot: boot() })
    }

    /// Returns the process that leads its group and writes its output to this file; `None` where there is none.
    pub(super) fn writing_to(path: &Path) -> Option<Self> {
        // The kernel tells the file by its real path.
        let path = path.canonicalize().ok()?;
        let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let writes = |pid: &u32| fs::read_link(format!("/proc/{pid}/fd/1")).is_ok_and(|file| file == path);
        let leads = |pid: &u32| {
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
            pid.is_some_and(|pid| rustix::process::getpgid(Some(pid)) == Ok(pid))
        };
        pids.filter(writes).filter(leads).find_map(Self::of)
    }

    /// Returns a handle that stays on this very process; `None` where it ended.
    ///
    /// Checked after opening: from then on the number may be reused, and the handle does not move.
    pub(super) fn open(&self) -> Option<OwnedFd> {
        let handle = rustix::process::pidfd_open(self.number()?, PidfdFlags::empty()).ok()?;
        self.is_alive().then_some(handle)
    }

    /// Tells whether it still runs; one that ended and was not yet waited for does not.
    pub(super) fn is_alive(&self) -> bool {
        self.boot == boot()
            && read_stat(self.pid).is_some_and(|stat| stat.started == self.started && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// Where the kernel refuses a handle on it.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub(super) async fn ended(&self) -> std::io::Result<()> {
        let Some(handle) = self.open() else { return Ok(()) };
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for the sake of types that swap their descriptor; an OwnedFd never does"
        )]
        let handle = AsyncFd::with_interest(handle, Interest::READABLE)?;
        handle.readable().await?.retain_ready();
        Ok(())
    }

    /// Asks it to end, waits as long as `grace`, then kills it and all that it left in its group.
    ///
    /// # Errors
    /// Where the kernel does not let us.
    pub(super) async fn stop(&self, grace: Duration) -> std::io::Result<()> {
        if let Some(handle) = self.open() {
            ignore_gone(rustix::process::pidfd_send_signal(&handle, Signal::TERM))?;
        }
        match tokio::time::timeout(grace, self.ended()).await {
            Ok(ended) => ended?,
            Err(_) => {
                self.kill_group()?;
                self.ended().await?;
            }
        }
        // As with a container: what the first process leaves behind ends with it.
        self.kill_group()
    }

    /// Kills it and its group without waiting; for one that nobody will ask for again.
    pub(super) fn kill(&self) {
        // Where it can't be killed it is not ours, or it is gone: nothing is left to be done either way.
        drop(self.kill_group());
    }

    /// Kills its group, unless the number of the group may by now be another's.
    fn kill_group(&self) -> std::io::Result<()> {
        let same_boot = self.boot == boot();
        // A number is not given away while a group has it, so without a process of that number the group is still ours.
        let ours = same_boot && read_stat(self.pid).is_none_or(|stat| stat.started == self.started);
        match self.number() {
            Some(pid) if ours => ignore_gone(rustix::process::kill_process_group(pid, Signal::KILL)),
            _ => Ok(()),
        }
    }

    fn number(&self) -> Option<Pid> {
        // 1 is never one of ours, and as a group it would mean everybody.
        (self.pid > 1).then(|| Pid::from_raw(self.pid)).flatten()
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {}", self.pid)
    }
}

fn ignore_gone(result: Result<(), Errno>) -> std::io::Result<()> {
    match result {
        Err(Errno::SRCH) => Ok(()),
        other => Ok(other?),
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn read_stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The program's name stands in parentheses and may itself contain some, and spaces, so the fields are counted from the last.
fn parse_stat(line: &str) -> Option<Stat> {
    let mut fields = line.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state is field 3, the start time field 22.
    let started = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, started })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    use super::*;

    fn shell(script: &str) -> (Child, Identity) {
        let child = Command::new("/bin/sh").args(["-c", script]).process_group(0).spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        (child, identity)
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.started), ('S', 4242));
        assert!(parse_stat("7 (cut) S 1").is_none());
    }

    #[tokio::test]
    async fn a_reused_pid_is_another_process_and_is_not_touched() {
        let (mut child, identity) = shell("exec sleep 30");
        let earlier = Identity { started: identity.started - 1, ..identity.clone() };
        assert!(!earlier.is_alive());
        earlier.stop(Duration::ZERO).await.unwrap();
        let other_boot = Identity { boot: "another".to_owned(), ..identity.clone() };
        other_boot.stop(Duration::ZERO).await.unwrap();
        assert!(identity.is_alive());
        identity.stop(Duration::from_secs(5)).await.unwrap();
        assert!(!identity.is_alive());
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_process_is_found_by_the_file_that_it_writes_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.log");
        let log = fs::File::create(&path).unwrap();
        assert_eq!(Identity::writing_to(&path), None);
        let mut child =
            Command::new("/bin/sh").args(["-c", "exec sleep 30"]).process_group(0).stdout(log).spawn().unwrap();
        let found = Identity::writing_to(&path).unwrap();
        assert_eq!(Some(&found), Identity::of(child.id()).as_ref());
        found.stop(Duration::ZERO).await.unwrap();
        child.wait().unwrap();
        assert_eq!(Identity::writing_to(&path), None);
    }

    #[tokio::test]
    async fn one_that_ignores_the_signal_is_killed_after_the_grace_with_its_group() {
        let (mut child, identity) = shell("trap '' TERM; sleep 60 & echo; wait; wait");
        // Whether or not the trap is set by now, the end is the same: nobody of the group is left.
        identity.stop(Duration::from_millis(50)).await.unwrap();
        child.wait().unwrap();
        let group = Pid::from_raw(identity.pid).unwrap();
        // A killed orphan is gone once its new parent has waited for it.
        for _ in 0..500 {
            if rustix::process::test_kill_process_group(group) == Err(Errno::SRCH) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("somebody of the group survived");
    }

    #[tokio::test]
    async fn an_end_is_noticed_at_once_by_one_that_is_not_the_parent() {
        let (mut child, identity) = shell("exec sleep 30");
        let waiting = tokio::spawn({
            let identity = identity.clone();
            async move { identity.ended().await }
        });
        child.kill().unwrap();
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap().unwrap();
        child.wait().unwrap();
        identity.ended().await.unwrap();
    }
}
