//! The ends of the processes that this run started: waited for at once, so that none is left as a zombie.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};

use tokio::sync::watch;

use super::identity::Identity;

/// How a child ended, once it has.
pub(super) type End = watch::Receiver<Option<i64>>;

/// Waits for a child in the background, hands its exit code to `record` and then to whoever holds the returned end.
pub(super) fn reap(mut child: Child, identity: Option<Identity>, record: impl FnOnce(i64) + Send + 'static) -> End {
    let (sender, end) = watch::channel(None);
    tokio::spawn(async move {
        // Without an identity it ended before we could look, and the wait below returns at once.
        if let Some(identity) = identity
            && identity.ended().await.is_err()
        {
            return;
        }
        if let Ok(status) = child.wait() {
            let code = code(status);
            record(code);
            sender.send_replace(Some(code));
        }
    });
    end
}

/// Returns the code of an exit as a shell does: 128 + the signal for one that was killed.
fn code(status: ExitStatus) -> i64 {
    let signal = || status.signal().map_or(i64::from(status.into_raw()), |signal| 128 + i64::from(signal));
    status.code().map_or_else(signal, i64::from)
}
