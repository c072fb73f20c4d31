//! Where access lines go: stdout, or a file that may not be there yet, or no more.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};

/// How often it is tried to open a file that could not be opened.
const RETRY: Duration = Duration::from_secs(5);

/// Where lines go.
pub(crate) struct Target {
    /// The file that is wanted; `None`: stdout.
    path: Option<PathBuf>,
    /// What is open of it; `None`: stdout.
    file: Option<File>,
    /// When to open the file again, after that failed.
    retry: Option<Instant>,
}

impl Target {
    /// Opens a file, or stdout where there is none.
    ///
    /// # Errors
    /// Those of opening.
    pub(crate) fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let file = path.as_deref().map(open).transpose()?;
        Ok(Self { path, file, retry: None })
    }

    /// Returns stdout until a file can be opened that can't be now.
    pub(crate) fn until(path: PathBuf) -> Self {
        Self { path: Some(path), file: None, retry: Some(Instant::now() + RETRY) }
    }

    /// Writes lines to it.
    ///
    /// # Errors
    /// Those of writing; some of the lines may be written.
    pub(crate) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match &mut self.file {
            None => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Some(file) => file.write_all(lines),
        }
    }

    /// Opens the file anew: it was moved away. Where that fails, lines go on to where they went, and it is tried again.
    pub(crate) fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open(path) {
            Ok(file) => {
                self.file = Some(file);
                if self.retry.take().is_some() {
                    tracing::info!(path = %path.display(), "the access log is open");
                }
            }
            Err(error) => {
                // Once, not at each of the times that it is tried again.
                if self.retry.replace(Instant::now() + RETRY).is_none() {
                    tracing::error!(%error, path = %path.display(), "the access log can't be opened anew; it is tried again");
                }
            }
        }
    }

    /// Opens a file that could not be opened, now and then.
    pub(crate) fn retry(&mut self) {
        if self.retry.is_some_and(|due| due <= Instant::now()) {
            self.reopen();
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe without a reader is told, not waited for; once open it is written like any file.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().append(true).create(true).custom_flags(flags).open(path)?;
    fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_can_not_be_opened_is_told_once_and_tried_again_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let (gone, said) = (folder.path().join("gone"), folder.path().join("said"));
        let log = gone.join("a.log");
        fs::create_dir(&gone).unwrap();
        let mut target = Target::open(Some(log.clone())).unwrap();
        fs::remove_dir_all(&gone).unwrap();
        let told = File::create(&said).unwrap();
        let subscriber = tracing_subscriber::fmt().with_writer(move || told.try_clone().unwrap()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let due = |target: &mut Target| target.retry = target.retry.map(|_| Instant::now());
            for _ in 0..3 {
                target.reopen();
                due(&mut target);
                target.retry();
            }
            fs::create_dir(&gone).unwrap();
            due(&mut target);
            target.retry();
        });
        target.write(b"line\n").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "line\n");
        assert!(target.retry.is_none());
        let said = fs::read_to_string(&said).unwrap();
        assert_eq!(said.matches("can't be opened anew").count(), 1, "{said}");
        assert_eq!(said.matches("the access log is open").count(), 1, "{said}");
    }
}
