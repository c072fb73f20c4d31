//! The hand-over from a running proxy to its successor, another process: sockets, state folder and clients change hands, and no
//! request fails by it. `wire` is what they say to each other, `give` the old one's side, `take` the new one's.

pub(crate) mod give;
pub(crate) mod take;
pub(crate) mod wire;

use std::path::{Path, PathBuf};

/// Returns the socket of a state folder at which a successor asks: it lies beside the lock that it is to have.
pub(crate) fn socket(state: &Path) -> PathBuf {
    state.join("handover.sock")
}
