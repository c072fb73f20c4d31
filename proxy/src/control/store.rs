//! Saved state: one file a service, `services/NAME`, and `proxy` with what the admin API set of the proxy itself.
//!
//! Each is `durable`, and so is `NAME.journal`, a service's history. Beside them are `NAME.log`, what its last failed version
//! wrote, `NAME.lease`, who may change it, and `NAME.key`, what its cookies and links are signed with.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use config::admin::journal::Entry;
use config::admin::request::ServiceSettings;
use config::admin::response::{LeaseHolder, Origin};
use config::health::HealthCheck;
use config::name::{EndpointAddr, ServiceName, Slot};
use config::settings::ProxySettings;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::durable;
use crate::signature::Key;

/// The stem of the proxy's own file.
const PROXY: &str = "proxy";

/// What is saved of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Its name.
    pub name: ServiceName,
    /// Counts its changes.
    pub generation: u64,
    /// Who made it.
    pub origin: Origin,
    /// Its routes.
    pub settings: ServiceSettings,
    /// They are in force; not before the first flip of one that was only staged.
    #[serde(default = "routed")]
    pub routed: bool,
    /// The slot that takes new requests.
    pub live: Option<Slot>,
    /// `BLUE`.
    pub blue: Option<SavedSlot>,
    /// `GREEN`.
    pub green: Option<SavedSlot>,
    /// Its visitors are shown a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<SavedMaintenance>,
}

fn routed() -> bool {
    true
}

/// What is saved of maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMaintenance {
    /// What visitors are told.
    pub message: String,
    /// Clients that are served all the same.
    pub allow: Vec<IpNet>,
    /// The cookie with which a visitor is served all the same.
    pub pass: Option<String>,
    /// RFC 3339.
    pub since: String,
}

/// What is saved of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLease {
    /// Its id.
    pub id: String,
    /// Who holds it.
    pub holder: LeaseHolder,
}

/// What is saved of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSlot {
    /// Where its version listens.
    pub endpoints: Vec<EndpointAddr>,
    /// How it is probed.
    pub health: HealthCheck,
    /// The image.
    pub image: Option<String>,
    /// The deployment's id.
    pub deployment: Option<String>,
    /// RFC 3339.
    pub since: String,
}

/// What is saved of the proxy itself: what the admin API set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedProxy {
    /// Counts its changes.
    pub generation: u64,
    /// Its settings.
    pub settings: ProxySettings,
}

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

/// What was done to each service, the latest first.
pub type Journals = BTreeMap<ServiceName, Vec<Entry>>;

/// The folder of saved state.
pub struct Store {
    /// Of all of it.
    root: PathBuf,
    /// Of the services.
    folder: PathBuf,
    /// Every write is refused, as on a full disk.
    #[cfg(test)]
    pub(super) is_full: bool,
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
            #[cfg(test)]
            is_full: false,
        };
        store.restore_proxy(&mut restored)?;
        Ok((store, restored))
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
        durable::sync(&self.root)
    }

    /// Writes and syncs what [`Self::commit`] will put in force, and keeps what is in force as the generation before.
    ///
    /// # Errors
    /// Where the disk refuses; nothing that is in force has changed, and what was prepared before still is.
    pub fn prepare(&mut self, saved: &Saved) -> io::Result<()> {
        self.has_space()?;
        durable::prepare(&self.folder, saved.name.as_str(), saved)
    }

    /// Refuses where a test says that the disk is full.
    fn has_space(&self) -> io::Result<()> {
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

    /// Syncs the folder, so that the rename outlives a power cut.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn sync(&self) -> io::Result<()> {
        durable::sync(&self.folder)
    }

    /// Does the same on a thread that may wait for the disk.
    pub fn sync_apart(&self) -> impl Future<Output = io::Result<()>> + use<> {
        let folder = self.folder.clone();
        let syncing = tokio::task::spawn_blocking(move || durable::sync(&folder));
        async { syncing.await? }
    }

    /// Forgets a service.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn remove(&mut self, name: &ServiceName) -> io::Result<()> {
        for kind in ["next", "prev", "bad", "journal", "log", "lease", "key", "json"] {
            durable::remove(&self.path(name, kind))?;
        }
        self.sync()
    }

    /// Writes a service's journal, whole and synced.
    ///
    /// # Errors
    /// Where the disk refuses; the one before is still there.
    pub fn write_journal(&self, name: &ServiceName, entries: &[Entry]) -> io::Result<()> {
        self.has_space()?;
        let next = self.path(name, "journal.tmp");
        durable::write(&next, &entries)?;
        fs::rename(next, self.path(name, "journal"))?;
        self.sync()
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
        let next = self.path(name, "key.tmp");
        durable::remove(&next)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&next)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(next, path)?;
        self.sync()?;
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

    fn path(&self, name: &ServiceName, kind: &str) -> PathBuf {
        self.folder.join(format!("{name}.{kind}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
