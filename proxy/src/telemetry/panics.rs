//! Panics: each is a fault of ours that ends one request, and is told in the log and counted.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of the process, as the hook that counts them is.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// From now on the log tells every panic, on whichever thread, and it is counted.
pub(crate) fn tell() {
    std::panic::set_hook(Box::new(note));
}

fn note(panic: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let thread = std::thread::current();
    let what = panic.payload_as_str().unwrap_or("of a kind that can't be shown");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(thread = thread.name().unwrap_or_default(), place, what, "a panic: this is a fault of bgproxy");
}

/// Returns how many there were.
pub(crate) fn count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// The end of a future that panicked; all that it held was given back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs a future whose panic is its own end and nobody else's.
///
/// # Errors
/// [`Panicked`] where it did.
///
/// # Cancel safety
/// That of the future.
pub(crate) async fn contained<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        // Unwinding drops what the future holds, and it is never polled again.
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
            .map_or_else(|_| Err(Panicked).into(), |polled| polled.map(Ok))
    })
    .await
}

/// After a panic of what must go on, the pause before it is begun again: one that comes each time fills no log.
const AGAIN: Duration = Duration::from_millis(500);

/// Runs what must go on for as long as the process lives, or until it ends by itself: where it panics it is begun again.
///
/// The process does not end for it, though the engine would restart it: that costs every visitor's connection, and the fault may well
/// be one that comes back. What requests see is a table that is swapped whole, so no panic leaves half of one; and what control
/// had begun to change is either saved or not, and is set right by the next call.
///
/// # Cancel safety
/// That of the task.
pub(crate) async fn enduring(what: &'static str, mut task: impl AsyncFnMut()) {
    while contained(task()).await.is_err() {
        tracing::error!(what, "it panicked, and is begun again");
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn what_a_future_held_is_given_back_where_it_panics_and_another_goes_on() {
        struct Held<'h>(&'h Cell<bool>);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }
        tell();
        let (held, before) = (Cell::new(true), count());
        let ended = contained(async {
            let _held = Held(&held);
            tokio::task::yield_now().await;
            panic!("as the test wants it");
        });
        let ended: Result<(), Panicked> = ended.await;
        assert_eq!((ended, held.get(), count() - before), (Err(Panicked), false, 1));
        assert_eq!(contained(async { 7 }).await, Ok(7));
    }

    #[tokio::test]
    async fn what_must_go_on_is_begun_again_until_it_ends_by_itself() {
        let mut begun = 0;
        enduring("a test", async || {
            begun += 1;
            tokio::task::yield_now().await;
            assert!(begun == 3, "as the test wants it");
        })
        .await;
        assert_eq!(begun, 3);
    }
}
