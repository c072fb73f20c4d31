//! A notice, and the folder of those that no receiver has taken yet: they outlive the process, and are sent by the next one.
//!
//! Each is a file of its own, `MILLISECONDS-ID`, whose content is what is sent. It is there whole or not at all.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use bytes::Bytes;
use serde::Deserialize;

use crate::private_file;

/// What was to be told so long ago is news no more.
const LASTS: Duration = Duration::from_secs(24 * 60 * 60);

/// What someone is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Tells it from others, and the tries of one are alike.
    pub(crate) id: String,
    /// When it happened.
    pub(crate) at: SystemTime,
    /// JSON.
    pub(crate) body: Bytes,
}

impl Notice {
    /// Returns the name of its file; by names they are in order.
    fn file(&self) -> String {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{:015}-{}", at.as_millis(), self.id)
    }

    /// Reads one that was kept; `None` where the file is none of ours.
    fn read(path: &Path) -> Option<Self> {
        #[derive(Deserialize)]
        struct Told {
            id: String,
        }
        let (millis, id) = path.file_name()?.to_str()?.split_once('-')?;
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(millis.parse().ok()?))?;
        let body = fs::read(path).ok()?;
        let told: Told = serde_json::from_slice(&body).ok()?;
        (told.id == id).then(|| Self { id: told.id, at, body: body.into() })
    }
}

/// The folder.
pub(super) struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// Returns the one at a path, which need not be there.
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps a notice.
    ///
    /// # Errors
    /// Where the disk refuses; it is not kept then.
    pub(super) fn write(&self, notice: &Notice) -> io::Result<()> {
        private_file::write(&self.folder, &notice.file(), &notice.body)
    }

    /// Forgets a notice: it was taken, or nobody is to be told any more.
    pub(super) fn forget(&self, notice: &Notice) {
        // Where it was never kept, or can't be removed, the worst is that it is told once more.
        _ = fs::remove_file(self.folder.join(notice.file()));
    }

    /// Returns what was kept, the oldest first, the latest ones where they are more than so many; and how many are not told any more,
    /// as they are too many, too old or torn. Those are removed.
    pub(super) fn take_up(&self, most: usize, now: SystemTime) -> (Vec<Notice>, usize) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        let (mut notices, mut gone) = (Vec::new(), Vec::new());
        for path in paths {
            // What is to come, by a clock that was set back since, is no older than that.
            let is_told = |notice: &Notice| now.duration_since(notice.at).unwrap_or_default() <= LASTS;
            match Notice::read(&path).filter(is_told) {
                Some(notice) => notices.push((path, notice)),
                None => gone.push(path),
            }
        }
        let too_many = notices.len().saturating_sub(most);
        gone.extend(notices.drain(..too_many).map(|(path, _)| path));
        // Half a file, of a process that was killed while it wrote, was no notice yet.
        let count = gone.iter().filter(|path| path.extension().is_none_or(|kind| kind != "tmp")).count();
        gone.iter().for_each(|path| _ = fs::remove_file(path));
        (notices.into_iter().map(|(_, notice)| notice).collect(), count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(id: &str, age: Duration) -> Notice {
        let at = UNIX_EPOCH + Duration::from_secs(1_800_000_000) - age;
        Notice { id: id.to_owned(), at, body: format!("{{\"id\":\"{id}\"}}").into() }
    }

    #[test]
    fn the_latest_are_kept_in_order_and_neither_the_old_nor_the_torn() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::at(dir.path().join("webhook"));
        let now = notice("", Duration::ZERO).at;
        assert_eq!(kept.take_up(2, now), (Vec::new(), 0));
        let old = notice("old", LASTS + Duration::from_secs(1));
        let [third, second, first] = [3, 2, 1].map(|hours| notice(&format!("h{hours}"), LASTS / 24 * hours));
        for notice in [&first, &old, &third, &second] {
            kept.write(notice).unwrap();
        }
        fs::write(dir.path().join("webhook/000000000000001-cut"), "{\"id").unwrap();
        fs::write(dir.path().join("webhook/000000000000002-next.tmp"), "{").unwrap();
        // Of the three that are news one is too many.
        assert_eq!(kept.take_up(2, now), (vec![second.clone(), first.clone()], 3));
        assert_eq!(kept.take_up(2, now), (vec![second.clone(), first.clone()], 0));
        kept.forget(&second);
        assert_eq!(kept.take_up(2, now), (vec![first.clone()], 0));
        // By a clock that was set back.
        assert_eq!(kept.take_up(2, UNIX_EPOCH), (vec![first], 0));
    }
}
