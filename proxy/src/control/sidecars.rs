//! The files beside a service's own: `NAME.journal`, its history; `NAME.log`, what its last failed version wrote; `NAME.lease`, who
//! may change it; `NAME.key`, what its cookies and links are signed with; `NAME.shown`, whom its idle slot is shown to.

use std::collections::BTreeMap;
use std::{fs, io};

use config::admin::journal::Entry;
use config::name::ServiceName;

use super::durable;
use super::saved::{SavedLease, SavedShown};
use super::store::Store;
use crate::private_file;
use crate::signature::Key;

/// What was done to each service, the latest first.
pub(super) type Journals = BTreeMap<ServiceName, Vec<Entry>>;

impl Store {
    /// Writes a service's journal, whole and synced.
    ///
    /// # Errors
    /// Where the disk refuses; the one before is still there.
    pub fn write_journal(&self, name: &ServiceName, entries: &[Entry]) -> io::Result<()> {
        self.has_space()?;
        let next = self.path(name, "journal.tmp");
        durable::write(&next, &entries)?;
        fs::rename(next, self.path(name, "journal"))?;
        self.sync();
        Ok(())
    }

    /// Reads every journal; with them, why one can't be read, which is a loss of the past alone.
    ///
    /// # Errors
    /// Where the folder can't be read.
    pub fn journals(&self) -> io::Result<(Journals, Vec<String>)> {
        let (mut journals, mut warnings) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_journal = path.extension().is_some_and(|extension| extension == "journal");
            let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_journal) else { continue };
            let Ok(name) = stem.parse::<ServiceName>() else { continue };
            match durable::read(&path) {
                Ok(entries) => drop(journals.insert(name, entries)),
                Err(why) => {
                    warnings.push(format!("the history of {name} could not be read: {why}"));
                    fs::rename(&path, self.path(&name, "journal-bad"))?;
                }
            }
        }
        Ok((journals, warnings))
    }

    /// Keeps a lease, so that a restart of ours does not let a second one in beside its holder; `None` forgets it. It is not
    /// synced: with the machine its holder dies too.
    ///
    /// # Errors
    /// Where the disk refuses; no lease is kept then.
    pub fn write_lease(&self, name: &ServiceName, lease: Option<&SavedLease>) -> io::Result<()> {
        let path = self.path(name, "lease");
        if self.is_given {
            return Ok(());
        }
        let Some(lease) = lease else { return durable::remove(&path) };
        let text = serde_json::to_vec(lease)?;
        self.has_space().and_then(|()| fs::write(&path, text)).inspect_err(|_| {
            // The one before has ended, and must not come back with a restart of ours.
            _ = durable::remove(&path);
        })
    }

    /// Returns every lease that was kept; one that can't be read is none.
    ///
    /// # Errors
    /// Where the folder can't be read.
    pub fn leases(&self) -> io::Result<BTreeMap<ServiceName, SavedLease>> {
        let mut leases = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.extension().filter(|kind| *kind == "lease").and_then(|_| path.file_stem()?.to_str());
            let Some(name) = name.and_then(|name| name.parse::<ServiceName>().ok()) else { continue };
            let saved = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            saved.map(|saved| leases.insert(name, saved));
        }
        Ok(leases)
    }

    /// Keeps to whom an idle slot is shown; `None` forgets it.
    ///
    /// # Errors
    /// Where the disk refuses; nothing has changed.
    pub fn write_shown(&self, name: &ServiceName, shown: Option<&SavedShown>) -> io::Result<()> {
        let path = self.path(name, "shown");
        let Some(shown) = shown else {
            // So it is for most services, and a folder that did not change need not be synced.
            if path.exists() && !self.is_given {
                durable::remove(&path)?;
                self.sync();
            }
            return Ok(());
        };
        self.has_space()?;
        let next = self.path(name, "shown.tmp");
        durable::write(&next, shown)?;
        fs::rename(next, path)?;
        self.sync();
        Ok(())
    }

    /// Returns to whom an idle slot was shown; one that can't be read is shown to nobody.
    ///
    /// # Errors
    /// Why it can't be read, in words.
    pub fn shown(&self, name: &ServiceName) -> Result<Option<SavedShown>, String> {
        let path = self.path(name, "shown");
        if path.exists() { durable::read(&path).map(Some) } else { Ok(None) }
    }

    /// Tells whether a service has a key.
    pub fn has_key(&self, name: &ServiceName) -> bool {
        self.path(name, "key").exists()
    }

    /// Returns a service's key, which is made at the first call and lasts; nobody else may read it.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn key(&self, name: &ServiceName) -> io::Result<Key> {
        let path = self.path(name, "key");
        let kept = match fs::read(&path) {
            // One that was cut short has signed nothing that anybody holds.
            Ok(bytes) => <[u8; Key::BYTES]>::try_from(bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(bytes) = kept {
            return Ok(Key::new(bytes));
        }
        let mut bytes = [0; Key::BYTES];
        // So few bytes come whole or not at all (getrandom(2)).
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        private_file::write(&self.folder, &format!("{name}.key"), &bytes)?;
        Ok(Key::new(bytes))
    }

    /// Keeps the log of an instance that failed.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write_log(&self, name: &ServiceName, log: &str) -> io::Result<()> {
        let next = self.path(name, "log.tmp");
        fs::write(&next, log)?;
        fs::rename(next, self.path(name, "log"))
    }

    /// Returns the log of the last instance that failed; `None` where there is none.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn read_log(&self, name: &ServiceName) -> io::Result<Option<String>> {
        match fs::read_to_string(self.path(name, "log")) {
            Ok(log) => Ok(Some(log)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
