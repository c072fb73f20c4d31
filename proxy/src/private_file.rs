//! Files that nobody else may read: keys, certificates, accounts, what a receiver is yet to be told. Each is there whole or not at
//! all.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Writes a file of a folder, synced, in the place of the one before; a folder that is not there is made, for us alone.
///
/// # Errors
/// Where the disk refuses; what was there still is, unless the folder alone can't be synced.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let next = folder.join(format!("{name}.tmp"));
    let written = write_anew(&next, bytes).and_then(|()| fs::rename(&next, folder.join(name)));
    if written.is_err() {
        // Half a file is of no use to anyone.
        _ = fs::remove_file(&next);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_anew(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Made anew, so that it has this mode whatever was there.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_ours_alone_whatever_was_there_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        write(&folder, "key", b"one").unwrap();
        // Half a file of a process that was killed, open to everyone.
        fs::write(folder.join("key.tmp"), "torn").unwrap();
        fs::set_permissions(folder.join("key.tmp"), fs::Permissions::from_mode(0o644)).unwrap();
        write(&folder, "key", b"two").unwrap();
        assert_eq!(fs::read(folder.join("key")).unwrap(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("key"))), (0o700, 0o600));
        let names = || fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(names(), ["key"]);

        // What can't be put there leaves nothing.
        fs::create_dir(folder.join("taken")).unwrap();
        write(&folder, "taken", b"three").unwrap_err();
        assert!(!folder.join("taken.tmp").exists());
    }
}
