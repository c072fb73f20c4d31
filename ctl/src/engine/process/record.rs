//! The record of an instance: one JSON file each, so that every later run of `bgctl` knows what is there.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use config::name::{EndpointAddr, ServiceName, Slot};
use serde::{Deserialize, Serialize};

use super::folders::at;
use super::identity::Identity;
use crate::engine::{EngineError, Instance, RunSettings, slot_name};

/// What a kept instance's name ends in.
const KEPT: &str = "_kept";

/// All that is known of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) service: ServiceName,
    pub(super) slot: Slot,
    /// One that was made before there were replicas is alone in its slot.
    #[serde(default = "first")]
    pub(super) replica: u32,
    pub(super) kept: bool,
    pub(super) endpoint: EndpointAddr,
    pub(super) deployment: String,
    /// As the user wrote it.
    pub(super) image: String,
    pub(super) image_id: String,
    /// The file that the image's name meant when the instance was created.
    pub(super) program: PathBuf,
    pub(super) run: RunSettings,
    pub(super) who: String,
    pub(super) notes: Vec<(String, String)>,
    /// RFC 3339.
    pub(super) created: String,
    /// The process of its last start.
    pub(super) process: Option<Identity>,
    /// How that one ended, where the `bgctl` that started it was still there to see it.
    pub(super) exit_code: Option<i64>,
}

impl Record {
    /// Returns the name: that of its slot, or the kept one.
    pub(super) fn name(&self) -> String {
        name(&self.service, self.slot, self.replica, self.kept)
    }

    /// Tells whether its process runs.
    pub(super) fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(Identity::is_alive)
    }

    /// Returns it as the deployment knows it.
    pub(super) fn instance(&self) -> Instance {
        Instance {
            id: self.id.clone(),
            name: self.name(),
            service: self.service.clone(),
            slot: self.slot,
            replica: self.replica,
            kept: self.kept,
            running: self.is_running(),
            endpoint: self.endpoint.clone(),
            deployment: self.deployment.clone(),
            image: self.image.clone(),
            image_id: self.image_id.clone(),
            run: self.run.clone(),
            notes: self.notes.clone(),
            created: self.created.clone(),
        }
    }
}

/// Returns the name of a slot's instance, or of its kept one.
pub(super) fn name(service: &ServiceName, slot: Slot, replica: u32, kept: bool) -> String {
    format!("{}{}", slot_name(service, slot, replica), if kept { KEPT } else { "" })
}

fn first() -> u32 {
    1
}

/// The folder of records.
#[derive(Debug, Clone)]
pub(super) struct Records {
    folder: PathBuf,
}

impl Records {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Returns every record, the oldest first.
    ///
    /// # Errors
    /// Where one can't be read: an instance that is not listed would be one that nobody stops.
    pub(super) fn all(&self) -> Result<Vec<Record>, EngineError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&self.folder, &error)),
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| at(&self.folder, &error))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.extend(read::<Record>(&path)?);
            }
        }
        records.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
        Ok(records)
    }

    /// Returns one record.
    ///
    /// # Errors
    /// [`EngineError::Refused`] where there is none of that id.
    pub(super) fn get(&self, id: &str) -> Result<Record, EngineError> {
        read(&self.path(id))?
            .ok_or_else(|| EngineError::Refused(format!("instance {id} is gone: its record was removed")))
    }

    /// Writes a record, whole or not at all.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub(super) fn put(&self, record: &Record) -> Result<(), EngineError> {
        write(&self.path(&record.id), record)
    }

    /// Removes a record; one that is not there is fine.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub(super) fn remove(&self, id: &str) -> Result<(), EngineError> {
        remove(&self.path(id))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}

/// Reads a JSON file; `None` where there is none.
pub(super) fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, EngineError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path, &error)),
    };
    let value = serde_json::from_slice(&text).map_err(|error| at(path, &error.into()))?;
    Ok(Some(value))
}

/// Writes a JSON file beside its place and renames it, so that a reader sees the old or the new one.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), EngineError> {
    let save = || {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.as_file().sync_data()?;
        file.persist(path)?;
        Ok(())
    };
    save().map_err(|error| at(path, &error))
}

/// Removes a file; one that is not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), EngineError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(path, &error)),
        _ => Ok(()),
    }
}
