//! A file that outlives kills, power cuts and full disks: written whole, synced and renamed, with the one before it kept.
//!
//! `STEM.json` is in force, `STEM.prev` was before it, `STEM.next` is what a rename will put in force, `STEM.bad` could not be
//! read at a start. Each begins with a line that carries the format's version and a checksum, so that a torn or newer file is
//! told from a good one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

const MAGIC: &str = "bluegreen-state";
const FORMAT: u32 = 1;

/// Returns what is in force, else what was before it; with it, what someone should know. `what` names it in their words.
pub(super) fn restore<T: DeserializeOwned>(folder: &Path, stem: &str, what: &str) -> (Option<T>, Vec<String>) {
    let why = match read(&path(folder, stem, "json")) {
        Ok(found) => return (Some(found), Vec::new()),
        Err(why) => why,
    };
    match read(&path(folder, stem, "prev")) {
        Ok(found) => {
            let mut warnings = vec![format!("{what}: {why}; the generation before it is in force")];
            if let Err(error) = set_aside(folder, stem) {
                warnings.push(format!("{what} could not be mended: {error}"));
            }
            (Some(found), warnings)
        }
        Err(before) => (None, vec![format!("{what}: {why}; the generation before it: {before}")]),
    }
}

/// Writes and syncs what [`commit`] will put in force, and keeps what is in force as the generation before.
///
/// # Errors
/// Where the disk refuses; nothing that is in force has changed, and what was prepared before still is.
pub(super) fn prepare(folder: &Path, stem: &str, value: &impl Serialize) -> io::Result<()> {
    let written = path(folder, stem, "next.tmp");
    let prepared = write(&written, value)
        .and_then(|()| keep_previous(folder, stem))
        .and_then(|()| fs::rename(&written, path(folder, stem, "next")));
    if prepared.is_err() {
        // Half a file is of no use to anyone, and on a full disk its place is wanted.
        _ = fs::remove_file(&written);
    }
    prepared
}

/// Writes what is in force anew; the generation before stays. The folder is yet to be synced.
///
/// # Errors
/// Where the disk refuses; nothing has changed.
pub(super) fn write_in_place(folder: &Path, stem: &str, value: &impl Serialize) -> io::Result<()> {
    let written = path(folder, stem, "tmp");
    write(&written, value)?;
    fs::rename(written, path(folder, stem, "json"))
}

/// Puts in force what was prepared: one rename.
///
/// # Errors
/// Where the disk refuses; nothing has changed.
pub(super) fn commit(folder: &Path, stem: &str) -> io::Result<()> {
    fs::rename(path(folder, stem, "next"), path(folder, stem, "json"))
}

/// Syncs a folder, so that its renames outlive a power cut.
///
/// # Errors
/// Where the disk refuses.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a file that may not be there.
///
/// # Errors
/// Where the disk refuses.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file of that kind, whole and synced.
///
/// # Errors
/// Where the disk refuses.
pub(super) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    let mut file = File::create(path)?;
    write!(file, "{MAGIC} {FORMAT} {}\n{text}\n", checksum(&text))?;
    file.sync_all()
}

/// Reads a file of that kind.
///
/// # Errors
/// Why it can't be read, in words.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let (first, rest) = text.split_once('\n').ok_or("it is cut short")?;
    let mut words = first.split(' ');
    if words.next() != Some(MAGIC) {
        return Err("it is not saved state".to_owned());
    }
    match words.next().and_then(|format| format.parse::<u32>().ok()) {
        Some(FORMAT) => {}
        Some(newer) if newer > FORMAT => return Err(format!("it is from a newer version (format {newer})")),
        _ => return Err("its format is unknown".to_owned()),
    }
    let text = rest.strip_suffix('\n').ok_or("it is cut short")?;
    if words.next() != Some(checksum(text).as_str()) {
        return Err("its checksum is wrong".to_owned());
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn path(folder: &Path, stem: &str, kind: &str) -> PathBuf {
    folder.join(format!("{stem}.{kind}"))
}

fn keep_previous(folder: &Path, stem: &str) -> io::Result<()> {
    if read::<serde::de::IgnoredAny>(&path(folder, stem, "json")).is_err() {
        // Torn since it was read: the good one before it must not give way to that. Or there is none.
        return Ok(());
    }
    copy(&path(folder, stem, "json"), &path(folder, stem, "tmp"), &path(folder, stem, "prev"))
}

/// Copies a file, by way of a third name, so that the copy is there whole or not at all. A second name of the same file would not do:
/// what is torn in one is torn in both. Where there is none, nothing is done.
fn copy(from: &Path, by: &Path, to: &Path) -> io::Result<()> {
    let copied = fs::read(from).and_then(|bytes| {
        let mut file = File::create(by)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(by, to)
    });
    match copied {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            _ = fs::remove_file(by);
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

/// Puts the generation before in the place of an unreadable one, which is kept as `STEM.bad`: else the next change would
/// keep the unreadable one as the generation before, and lose the good one.
fn set_aside(folder: &Path, stem: &str) -> io::Result<()> {
    let [current, previous, copied, bad] = ["json", "prev", "tmp", "bad"].map(|kind| path(folder, stem, kind));
    // A copy, for what befalls one file should not befall both.
    fs::copy(&previous, &copied)?;
    File::open(&copied)?.sync_all()?;
    match fs::rename(&current, &bad) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&copied, &current)
}

fn checksum(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
