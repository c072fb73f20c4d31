//! Saved state: one file a service, `services/NAME`, and `proxy` with what the admin API set of the proxy itself.
//!
//! Each is `durable`; what is in them is `saved`, and `sidecars` are the files beside a service's. The folder `webhook` has what
//! nobody was told yet.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use config::admin::journal::Entry;
use config::name::ServiceName;

use super::durable;
use super::saved::{Saved, SavedProxy, SavedShown};

/// The stem of the proxy's own file.
const PROXY: &str = "proxy";

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Restored {
    /// Services that could be read.
    pub services: Vec<Saved>,
    /// What was set of the proxy itself.
    pub proxy: SavedProxy,
    /// Services of which no generation could be read.
    pub lost: Vec<String>,
    /// What someone should know.
    pub warnings: Vec<String>,
}

/// The folder of saved state.
pub struct Store {
    /// Of all of it.
    root: PathBuf,
    /// Of the services.
    pub(super) folder: PathBuf,
    /// The last rename is in place and may not outlive a power cut, and why.
    unsynced: RefCell<Option<String>>,
    /// It is another process's: nothing is written any more.
    pub(super) is_given: bool,
    /// Every write is refused, as on a full disk.
    #[cfg(test)]
    pub(super) is_full: bool,
    /// No folder can be synced.
    #[cfg(test)]
    pub(super) is_unsyncable: bool,
}

impl Store {
    /// Opens the folder, making it where it is missing, and reads every service in it.
    ///
    /// # Errors
    /// Where the folder can't be made or listed. A file that can't be read is no error: it is told in [`Restored`].
    pub fn open(dir: &Path) -> io::Result<(Self, Restored)> {
        let folder = dir.join("services");
        fs::create_dir_all(&folder)?;
        let mut restored = Restored::default();
        let (mut names, mut prepared) = (Vec::new(), BTreeMap::new());
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json" | "prev") if !names.contains(&stem) => names.push(stem),
                // A flip that was never asked for.
                Some("next") => drop(prepared.insert(stem, path)),
                Some("tmp") => fs::remove_file(&path)?,
                _ => {}
            }
        }
        names.sort();
        for name in names {
            let (saved, warnings) = durable::restore::<Saved>(&folder, &name, &format!("saved state of {name}"));
            let is_current = warnings.is_empty();
            restored.warnings.extend(warnings);
            let Some(mut saved) = saved else {
                restored.lost.push(name);
                continue;
            };
            let prepared = prepared.get(&name).filter(|_| is_current);
            let given = prepared.and_then(|next| durable::read::<Saved>(next).ok()).map(|next| next.generation);
            if let Some(given) = given.filter(|given| *given > saved.generation) {
                // Whoever staged was told a generation, and it must not come to mean anything else.
                saved.generation = given;
                if let Err(error) = durable::write_in_place(&folder, &name, &saved) {
                    restored.warnings.push(format!("saved state of {name} could not be brought up: {error}"));
                }
            }
            restored.services.push(saved);
        }
        for next in prepared.into_values() {
            fs::remove_file(next)?;
        }
        let store = Self {
            root: dir.to_owned(),
            folder,
            unsynced: RefCell::default(),
            is_given: false,
            #[cfg(test)]
            is_full: false,
            #[cfg(test)]
            is_unsyncable: false,
        };
        store.settle(&store.folder);
        store.restore_proxy(&mut restored)?;
        Ok((store, restored))
    }

    /// Reads everything and changes nothing: what a successor can't read is to stay with whom it is.
    ///
    /// # Errors
    /// The first file that can't be read, and why, in words.
    pub fn check(dir: &Path) -> Result<(), String> {
        let told = |path: &Path, why: String| format!("{}: {why}", path.display());
        let proxy = dir.join(format!("{PROXY}.json"));
        if proxy.exists() {
            durable::read::<SavedProxy>(&proxy).map_err(|why| told(&proxy, why))?;
        }
        let folder = dir.join("services");
        let entries = fs::read_dir(&folder).map_err(|error| told(&folder, error.to_string()))?;
        for entry in entries {
            let path = entry.map_err(|error| told(&folder, error.to_string()))?.path();
            let read = match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => durable::read::<Saved>(&path).map(drop),
                Some("shown") => durable::read::<SavedShown>(&path).map(drop),
                Some("journal") => durable::read::<Vec<Entry>>(&path).map(drop),
                _ => Ok(()),
            };
            read.map_err(|why| told(&path, why))?;
        }
        Ok(())
    }

    /// What can't be read is a loss of settings, not of a service, so it is told and the defaults are in force.
    fn restore_proxy(&self, restored: &mut Restored) -> io::Result<()> {
        let file = |kind| self.root.join(format!("{PROXY}.{kind}"));
        for left in ["next", "next.tmp", "tmp"] {
            durable::remove(&file(left))?;
        }
        if ["json", "prev"].into_iter().any(|kind| file(kind).exists()) {
            let (saved, warnings) = durable::restore(&self.root, PROXY, "the proxy's own settings");
            restored.warnings.extend(warnings);
            restored.proxy = saved.unwrap_or_default();
        }
        Ok(())
    }

    /// Saves what the admin API set of the proxy itself.
    ///
    /// # Errors
    /// Where the disk refuses; nothing has changed.
    pub fn save_proxy(&mut self, saved: &SavedProxy) -> io::Result<()> {
        self.has_space()?;
        durable::prepare(&self.root, PROXY, saved)?;
        durable::commit(&self.root, PROXY)?;
        self.settle(&self.root);
        Ok(())
    }

    /// Writes and syncs what [`Self::commit`] will put in force, and keeps what is in force as the generation before.
    ///
    /// # Errors
    /// Where the disk refuses; nothing that is in force has changed, and what was prepared before still is.
    pub fn prepare(&mut self, saved: &Saved) -> io::Result<()> {
        self.has_space()?;
        durable::prepare(&self.folder, saved.name.as_str(), saved)
    }

    /// Refuses where the folder is another process's.
    fn is_ours(&self) -> io::Result<()> {
        if self.is_given { Err(io::Error::other("another process has the state")) } else { Ok(()) }
    }

    /// Refuses where the folder is another process's, or a test says that the disk is full.
    pub(super) fn has_space(&self) -> io::Result<()> {
        self.is_ours()?;
        #[cfg(test)]
        if self.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Puts in force what was prepared: one rename.
    ///
    /// # Errors
    /// Where the disk refuses; nothing has changed.
    pub fn commit(&mut self, name: &ServiceName) -> io::Result<()> {
        durable::commit(&self.folder, name.as_str())
    }

    /// Syncs the folder of the services, so that what was renamed or removed in it outlives a power cut.
    ///
    /// Where the disk refuses that, the change is in place all the same: whoever starts next finds it, so what is in memory must
    /// follow it, and nobody is told that it was refused. It is told as what it is, in the log and in the status.
    pub fn sync(&self) {
        self.settle(&self.folder);
    }

    fn settle(&self, folder: &Path) {
        let synced = durable::sync(folder);
        #[cfg(test)]
        let synced = if self.is_unsyncable { Err(io::ErrorKind::Other.into()) } else { synced };
        let why = synced.err().map(|error| error.to_string());
        if let Some(why) = &why {
            tracing::error!(why, folder = %folder.display(), "the folder of saved state could not be synced");
        }
        *self.unsynced.borrow_mut() = why;
    }

    /// Returns why what was changed last may not outlive a power cut, where that is so.
    pub fn unsynced(&self) -> Option<String> {
        self.unsynced.borrow().clone()
    }

    /// Does the same on a thread that may wait for the disk.
    pub fn sync_apart(&self) -> impl Future<Output = io::Result<()>> + use<> {
        let folder = self.folder.clone();
        let syncing = tokio::task::spawn_blocking(move || durable::sync(&folder));
        async { syncing.await? }
    }

    /// Returns the folder of what the webhook's receiver was not told yet.
    pub(super) fn notices(&self) -> PathBuf {
        self.root.join("webhook")
    }

    /// Forgets a service.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn remove(&mut self, name: &ServiceName) -> io::Result<()> {
        // A full disk takes nothing, and gives all the same.
        self.is_ours()?;
        for kind in ["next", "prev", "bad", "journal", "log", "lease", "shown", "key", "json"] {
            durable::remove(&self.path(name, kind))?;
        }
        self.sync();
        Ok(())
    }

    pub(super) fn path(&self, name: &ServiceName, kind: &str) -> PathBuf {
        self.folder.join(format!("{name}.{kind}"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use config::admin::request::ServiceSettings;
    use config::admin::response::Origin;

    use super::*;
    use crate::control::kept_headers::KeptHeaders;

    fn saved(generation: u64) -> Saved {
        Saved {
            name: "shop".parse().unwrap(),
            generation,
            origin: Origin::Admin,
            settings: ServiceSettings {
                domains: vec![format!("v{generation}.test").parse().unwrap()],
                ..ServiceSettings::default()
            },
            routed: true,
            live: None,
            blue: None,
            green: None,
            maintenance: None,
            kept_headers: KeptHeaders::default(),
        }
    }

    fn store_two(dir: &Path) {
        let (mut store, _) = Store::open(dir).unwrap();
        for generation in [1, 2] {
            store.prepare(&saved(generation)).unwrap();
            store.commit(&"shop".parse().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_garbled_cut_or_newer_file_gives_way_to_the_generation_before() {
        for damage in [
            |text: &str| text[..text.len() / 2].to_owned(),
            |text: &str| text.replace("shop", "shoq"),
            |text: &str| text.replacen(" 1 ", " 2 ", 1),
            |_: &str| String::new(),
        ] {
            let dir = tempfile::tempdir().unwrap();
            store_two(dir.path());
            let file = dir.path().join("services/shop.json");
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, damage(&text)).unwrap();
            let (_, restored) = Store::open(dir.path()).unwrap();
            assert_eq!(restored.services, [saved(1)]);
            assert_eq!(restored.warnings.len(), 1);
            assert!(restored.lost.is_empty());
            // The good one is not displaced by what is garbled, however far the next change gets.
            let (mut store, restored) = Store::open(dir.path()).unwrap();
            assert_eq!(restored.warnings.len(), 0);
            store.prepare(&saved(2)).unwrap();
            drop(store);
            assert_eq!(Store::open(dir.path()).unwrap().1.services, [Saved { generation: 2, ..saved(1) }]);
            assert_eq!(fs::read_to_string(dir.path().join("services/shop.bad")).unwrap(), damage(&text));
        }
    }

    /// Between a stage and its flip, too.
    #[test]
    fn what_tears_the_file_in_force_where_it_stands_does_not_tear_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        store_two(dir.path());
        let (mut store, _) = Store::open(dir.path()).unwrap();
        store.prepare(&saved(3)).unwrap();
        drop(store);
        let file = dir.path().join("services/shop.json");
        let length = fs::metadata(&file).unwrap().len();
        // In place: the same file, shorter.
        File::options().write(true).open(&file).unwrap().set_len(length / 2).unwrap();
        let (_, restored) = Store::open(dir.path()).unwrap();
        assert_eq!(restored.services, [saved(2)], "{:?}", restored.warnings);
        assert_eq!(restored.warnings.len(), 1);
        // Nor does the next change put the torn one in the place of the one before.
        let (mut store, _) = Store::open(dir.path()).unwrap();
        File::options().write(true).open(&file).unwrap().set_len(length / 2).unwrap();
        store.prepare(&saved(4)).unwrap();
        drop(store);
        assert_eq!(Store::open(dir.path()).unwrap().1.services, [saved(2)]);
    }

    #[test]
    fn preparing_again_without_a_commit_in_between_is_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        store_two(dir.path());
        let (mut store, _) = Store::open(dir.path()).unwrap();
        for generation in 3..6 {
            store.prepare(&saved(generation)).unwrap();
        }
        store.commit(&"shop".parse().unwrap()).unwrap();
        let (_, restored) = Store::open(dir.path()).unwrap();
        assert_eq!((restored.services, restored.warnings.len()), (vec![saved(5)], 0));
    }

    #[test]
    fn a_service_without_a_readable_generation_is_lost_and_named() {
        let dir = tempfile::tempdir().unwrap();
        store_two(dir.path());
        for kind in ["json", "prev"] {
            fs::write(dir.path().join(format!("services/shop.{kind}")), "x").unwrap();
        }
        assert_eq!(Store::open(dir.path()).unwrap().1.lost, ["shop"]);
    }

    #[test]
    fn the_proxys_own_settings_outlive_a_garbled_file_and_lost_ones_are_told_and_no_service_is() {
        let dir = tempfile::tempdir().unwrap();
        let set = |generation, access: &str| SavedProxy {
            generation,
            settings: serde_json::from_str(&format!(r#"{{"log":{{"access":"{access}"}}}}"#)).unwrap(),
        };
        store_two(dir.path());
        let (mut store, restored) = Store::open(dir.path()).unwrap();
        assert_eq!((restored.proxy, restored.warnings.len()), (SavedProxy::default(), 0));
        for (generation, access) in [(1, "json"), (2, "combined")] {
            store.save_proxy(&set(generation, access)).unwrap();
        }
        assert_eq!(Store::open(dir.path()).unwrap().1.proxy, set(2, "combined"));
        let file = dir.path().join("proxy.json");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("combined", "json")).unwrap();
        let (_, restored) = Store::open(dir.path()).unwrap();
        assert_eq!((restored.proxy, restored.warnings.len()), (set(1, "json"), 1));
        // Half of what was to come is not in force, nor in the way.
        fs::write(dir.path().join("proxy.next"), "x").unwrap();
        for kind in ["json", "prev"] {
            fs::write(dir.path().join(format!("proxy.{kind}")), "x").unwrap();
        }
        let (mut store, restored) = Store::open(dir.path()).unwrap();
        assert_eq!((restored.proxy, restored.warnings.len()), (SavedProxy::default(), 1));
        assert!(restored.lost.is_empty() && restored.services == [saved(2)] && !dir.path().join("proxy.next").exists());
        store.save_proxy(&set(1, "off")).unwrap();
        assert_eq!(Store::open(dir.path()).unwrap().1.proxy, set(1, "off"));
    }

    #[test]
    fn what_was_prepared_and_never_committed_is_not_in_force() {
        let dir = tempfile::tempdir().unwrap();
        store_two(dir.path());
        let (mut store, _) = Store::open(dir.path()).unwrap();
        store.prepare(&saved(3)).unwrap();
        // Its generation was given out, and is in force from then on.
        for _ in 0..2 {
            let expected = Saved { generation: 3, ..saved(2) };
            assert_eq!(Store::open(dir.path()).unwrap().1.services, [expected]);
        }
    }

    #[test]
    fn a_key_is_made_once_lasts_is_for_us_alone_and_goes_with_its_service() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let [shop, other] = ["shop", "other"].map(|name| name.parse::<ServiceName>().unwrap());
        let key = store.key(&shop).unwrap();
        assert!(key != store.key(&other).unwrap());
        assert!(Store::open(dir.path()).unwrap().0.key(&shop).unwrap() == key);
        let path = store.path(&shop, "key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        store.remove(&shop).unwrap();
        assert!(store.key(&shop).unwrap() != key);
        fs::write(&path, b"short").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 5);
        assert!(store.key(&shop).unwrap() != key);
    }
}
