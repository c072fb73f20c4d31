//! Tells when the content of a file, or of those that it names, changes, however it was written: in place, by a rename, or by a
//! swapped symbolic link.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// Editors write a file in several steps; the last one is a moment ago when this has passed.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// A folder in which somebody writes all the time is looked at all the same.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(2);
/// How often the file is read where the kernel tells nothing of it.
const POLL: Duration = Duration::from_secs(1);
/// How often it is read besides: some file systems accept a watch and never report.
const POLL_BESIDES: Duration = Duration::from_secs(5);

enum Signal {
    Event,
    Stop,
}

/// A watched file; dropping it ends the watching.
pub struct Watch {
    stop: Sender<Signal>,
    // Unregisters itself when dropped.
    watcher: Option<RecommendedWatcher>,
    warning: Option<String>,
    named: Arc<Mutex<Named>>,
}

/// Files that the watched one names, each with what tells its content from others; `None`: it can't be read.
type Named = Vec<(PathBuf, Option<u64>)>;

impl Watch {
    /// Watches these files too from now on, and no others: those that the file names, with the contents that were read.
    pub fn also(&mut self, files: &[(PathBuf, u64)]) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        *named = files.iter().map(|(path, content)| (path.clone(), Some(*content))).collect();
        drop(named);
        for folder in files.iter().map(|(path, _)| folder(path)) {
            // Where the kernel tells nothing of it, it is read every few seconds.
            self.watcher.iter_mut().for_each(|watcher| drop(watcher.watch(&folder, RecursiveMode::NonRecursive)));
        }
        // One that changed since it was read is not told by the kernel any more.
        drop(self.stop.send(Signal::Event));
    }

    /// Returns why changes are noticed late or never, where that is so; for the log and the status.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread may have ended already; then there is nothing to stop.
        drop(self.stop.send(Signal::Stop));
    }
}

/// Watches a file, which need not exist yet, and calls `changed` on a thread of its own after each change of its
/// content. To miss nothing, begin to watch before the first read.
///
/// # Errors
/// Those of starting a thread.
pub fn watch(path: &Path, changed: impl Fn() + Send + 'static) -> std::io::Result<Watch> {
    let (sender, receiver) = mpsc::channel();
    let (watcher, warning) = match register(path, sender.clone()) {
        Ok(watcher) if is_mount_point(path) => {
            let warning = format!(
                "{} is mounted as a single file: a replaced one is not seen; mount its folder instead",
                path.display()
            );
            (Some(watcher), Some(warning))
        }
        Ok(watcher) => (Some(watcher), None),
        // Nobody made the folder, so nobody expects a change; if it comes, polling sees it.
        Err(_) if !folder(path).exists() => (None, None),
        Err(error) => (None, Some(format!("{} is read every second, as it can't be watched: {error}", path.display()))),
    };
    let every = if watcher.is_some() && warning.is_none() { POLL_BESIDES } else { POLL };
    let path = path.to_owned();
    let seen = crate::error::read(&path).ok();
    let named = Arc::new(Mutex::new(Named::new()));
    let also = Arc::clone(&named);
    thread::Builder::new().name("config-watch".to_owned()).spawn(move || {
        let mut seen = seen;
        while wait(&receiver, every) {
            let now = crate::error::read(&path).ok();
            let is_other = now != seen;
            seen = now;
            // Both are looked at, or the one would be told for the other later.
            if is_other | have_changed(&also) {
                changed();
            }
        }
    })?;
    Ok(Watch { stop: sender, watcher, warning, named })
}

/// Looks at the files that the watched one names.
fn have_changed(named: &Mutex<Named>) -> bool {
    let mut named = named.lock().unwrap_or_else(PoisonError::into_inner);
    named.iter_mut().fold(false, |has_changed, (path, seen)| {
        let now = crate::error::read(path).ok().as_deref().map(crate::error::fingerprint);
        let before = std::mem::replace(seen, now);
        has_changed | (before != now)
    })
}

/// Waits until the file should be read again; false when the watch was dropped.
fn wait(signals: &Receiver<Signal>, every: Duration) -> bool {
    match signals.recv_timeout(every) {
        Err(RecvTimeoutError::Timeout) => return true,
        Err(RecvTimeoutError::Disconnected) | Ok(Signal::Stop) => return false,
        Ok(Signal::Event) => {}
    }
    let until = Instant::now() + LONGEST_DEBOUNCE;
    while Instant::now() < until {
        match signals.recv_timeout(DEBOUNCE) {
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) | Ok(Signal::Stop) => return false,
            Ok(Signal::Event) => {}
        }
    }
    true
}

fn register(path: &Path, signals: Sender<Signal>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is an event too, and would wake us for ever.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            drop(signals.send(Signal::Event));
        }
    })?;
    // The folder, as a watch on the file itself stays with the old file after a rename.
    watcher.watch(&folder(path), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn is_mount_point(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Blanks and the like are written in octal.
    let escaped = path.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(&escaped))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn watched(path: &Path) -> (Watch, Receiver<()>) {
        let (sender, receiver) = mpsc::channel();
        let watch = watch(path, move || sender.send(()).unwrap_or_default()).unwrap();
        (watch, receiver)
    }

    #[test]
    fn a_write_in_place_a_rename_and_a_removal_are_each_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bgproxy.toml");
        let (watch, changes) = watched(&path);
        assert_eq!(watch.warning(), None);
        std::fs::write(&path, "workers = 1").unwrap();
        changes.recv_timeout(PATIENCE).unwrap();
        let fresh = folder.path().join("fresh");
        std::fs::write(&fresh, "workers = 2").unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        changes.recv_timeout(PATIENCE).unwrap();
        std::fs::remove_file(&path).unwrap();
        changes.recv_timeout(PATIENCE).unwrap();
    }

    #[test]
    fn a_swapped_folder_link_as_kubernetes_makes_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["1", "2"] {
            std::fs::create_dir(folder.path().join(version)).unwrap();
            std::fs::write(folder.path().join(version).join("bgproxy.toml"), format!("workers = {version}")).unwrap();
        }
        let (data, path) = (folder.path().join("..data"), folder.path().join("bgproxy.toml"));
        std::os::unix::fs::symlink("1", &data).unwrap();
        std::os::unix::fs::symlink("..data/bgproxy.toml", &path).unwrap();
        let (_watch, changes) = watched(&path);
        let next = folder.path().join("..next");
        std::os::unix::fs::symlink("2", &next).unwrap();
        std::fs::rename(&next, &data).unwrap();
        changes.recv_timeout(PATIENCE).unwrap();
    }

    #[test]
    fn the_same_content_written_again_is_not_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bgproxy.toml");
        std::fs::write(&path, "workers = 1").unwrap();
        let (_watch, changes) = watched(&path);
        std::fs::write(&path, "workers = 1").unwrap();
        assert_eq!(changes.recv_timeout(DEBOUNCE * 3), Err(RecvTimeoutError::Timeout));
        std::fs::write(&path, "workers = 2").unwrap();
        changes.recv_timeout(PATIENCE).unwrap();
        assert_eq!(changes.recv_timeout(DEBOUNCE * 3), Err(RecvTimeoutError::Timeout), "told twice");
    }

    #[test]
    fn files_that_it_names_are_told_wherever_they_are_and_no_longer_once_it_names_others() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let page = elsewhere.path().join("502.html");
        std::fs::write(&page, "one").unwrap();
        let (mut watch, changes) = watched(&folder.path().join("bgproxy.toml"));
        // It was changed between its reading and now.
        watch.also(&[(page.clone(), crate::error::fingerprint("zero"))]);
        changes.recv_timeout(PATIENCE).unwrap();
        std::fs::write(&page, "two").unwrap();
        changes.recv_timeout(PATIENCE).unwrap();
        std::fs::remove_file(&page).unwrap();
        changes.recv_timeout(PATIENCE).unwrap();
        watch.also(&[]);
        std::fs::write(&page, "three").unwrap();
        assert_eq!(changes.recv_timeout(DEBOUNCE * 3), Err(RecvTimeoutError::Timeout));
    }

    #[test]
    fn a_change_is_told_though_somebody_writes_in_the_folder_all_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let (path, log) = (folder.path().join("bgproxy.toml"), folder.path().join("access.log"));
        let (_watch, changes) = watched(&path);
        let (stop, stopped) = mpsc::channel::<()>();
        let writer = thread::spawn(move || {
            while stopped.recv_timeout(DEBOUNCE / 4) == Err(RecvTimeoutError::Timeout) {
                std::fs::write(&log, "a line").unwrap();
            }
        });
        std::fs::write(&path, "workers = 1").unwrap();
        changes.recv_timeout(POLL_BESIDES - Duration::from_secs(1)).unwrap();
        drop(stop);
        writer.join().unwrap();
    }
}
