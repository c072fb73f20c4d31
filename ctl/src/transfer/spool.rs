//! An image's archive taken apart: each layer that is wanted in a file of its own, as soon as it has been read, and the configuration.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType};
use tokio::sync::mpsc::Sender;

use super::archive::{Layer, named, spool};

/// A configuration is some kilobytes; this is no limit of any engine.
const CONFIG: u64 = 8 << 20;

/// Something out of an archive.
pub(super) enum Piece {
    /// A layer's uncompressed content.
    Layer(Spooled),
    /// The image's configuration, byte by byte as its id has it.
    Config(Vec<u8>),
}

/// A layer in a file without a name.
#[derive(Clone)]
pub(super) struct Spooled {
    pub(super) digest: String,
    pub(super) file: Arc<File>,
    pub(super) bytes: u64,
}

/// Reads an archive to its end, and hands on what is wanted of it, in the archive's order.
///
/// # Errors
/// Where it can't be read, or the disk is full. A receiver that has gone ends it without one.
pub(super) fn take_apart(
    archive: impl Read,
    id: &str,
    wanted: &HashSet<String>,
    pieces: &Sender<io::Result<Piece>>,
) -> io::Result<()> {
    let mut archive = Archive::new(archive);
    let config = format!("{}.json", id.trim_start_matches("sha256:"));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let bytes = entry.size();
        let is_layer = match Layer::of(&name) {
            Some(Layer::Named(digest)) => wanted.contains(&digest),
            Some(Layer::Unnamed) => true,
            None => false,
        };
        let piece = if is_layer {
            let (digest, file) = spool(&mut entry)?;
            wanted.contains(&digest).then(|| Piece::Layer(Spooled { digest, file: Arc::new(file), bytes }))
        } else if name == config || name == format!("blobs/sha256/{}", config.trim_end_matches(".json")) {
            let mut text = Vec::new();
            entry.by_ref().take(CONFIG).read_to_end(&mut text)?;
            (named(&Sha256::digest(&text)) == id).then_some(Piece::Config(text))
        } else {
            None
        };
        if piece.is_some_and(|piece| pieces.blocking_send(Ok(piece)).is_err()) {
            break;
        }
    }
    Ok(())
}
