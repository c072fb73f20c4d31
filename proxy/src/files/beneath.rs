//! Opens what is below a folder and nothing else, whatever links are put there while it is served.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

/// Waits for no writer of a pipe, and gives no file to a child of ours.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// Opens a folder, whichever way leads there: it is the operator's own word.
///
/// # Errors
/// Those of opening.
pub(super) fn folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens what is at a path below a folder. A link may lead to another place below it.
///
/// # Errors
/// Those of opening; one that would lead out is [`io::ErrorKind::CrossesDevices`].
pub(super) fn open(folder: &OwnedFd, path: &Path) -> io::Result<File> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match by_kernel(folder, path) {
        // Kernels before 5.6, and filters of system calls that know it not.
        Err(Errno::NOSYS | Errno::PERM) => Ok(by_walking(folder, path)?.into()),
        opened => Ok(opened?.into()),
    }
}

#[cfg(target_os = "linux")]
fn by_kernel(folder: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match fs::openat2(folder, path, READ, Mode::empty(), within) {
            // Something was renamed meanwhile, and the kernel can't tell whether it led out.
            Err(Errno::AGAIN) if tries < 8 => tries += 1,
            opened => return opened,
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn by_kernel(_: &OwnedFd, _: &Path) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

/// Step by step, and no step by a link.
fn by_walking(folder: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let step =
        |at: &OwnedFd, name: &Path, more| fs::openat(at.as_fd(), name, READ | OFlags::NOFOLLOW | more, Mode::empty());
    let mut at = None;
    if let Some(parent) = path.parent() {
        for part in parent.components() {
            at = Some(step(at.as_ref().unwrap_or(folder), Path::new(&part), OFlags::DIRECTORY)?);
        }
    }
    let name = path.file_name().map_or(Path::new("."), Path::new);
    step(at.as_ref().unwrap_or(folder), name, OFlags::empty())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(opened: Result<OwnedFd, Errno>) -> Result<String, Errno> {
        let mut text = String::new();
        File::from(opened?).read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn no_link_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/b/file"), "file").unwrap();
        symlink(outside.path().join("secret"), root.path().join("absolute")).unwrap();
        symlink(outside.path(), root.path().join("folder")).unwrap();
        let name = outside.path().file_name().unwrap().to_str().unwrap();
        symlink(format!("../../{name}/secret"), root.path().join("a/relative")).unwrap();
        symlink("a/b/file", root.path().join("inside")).unwrap();
        symlink("/proc/self/root", root.path().join("magic")).unwrap();

        // The folder itself may be a link: it is the operator's.
        let link = outside.path().join("served");
        symlink(root.path(), &link).unwrap();
        let folder = folder(&link).unwrap();
        for (name, open) in [("kernel", by_kernel as fn(&OwnedFd, &Path) -> _), ("walking", by_walking)] {
            let open = |path: &str| read(open(&folder, Path::new(path)));
            if open("a/b/file") == Err(Errno::NOSYS) {
                continue;
            }
            assert_eq!(open("a/b/file").as_deref(), Ok("file"), "{name}");
            for out in ["absolute", "folder/secret", "a/relative", "magic/etc/passwd"] {
                assert!(open(out).is_err(), "{name}: {out}");
            }
            assert_eq!(open("a/b/none"), Err(Errno::NOENT), "{name}");
            assert_eq!(open("a/b/file/more"), Err(Errno::NOTDIR), "{name}");
        }
        assert!(by_kernel(&folder, Path::new("inside")).is_ok_and(|file| read(Ok(file)).as_deref() == Ok("file")));
        // Without the kernel's help a link is none at all.
        assert_eq!(by_walking(&folder, Path::new("inside")).err(), Some(Errno::LOOP));
        assert!(open(&folder, Path::new("")).unwrap().metadata().unwrap().is_dir());
    }
}
