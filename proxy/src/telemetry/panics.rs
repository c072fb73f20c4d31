//! Panics: each is a fault of ours that ends one request, and is told in the log and counted.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

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
}
