//! What stands on disk for an instance of a site: one small file each, written before anybody hears of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use trackbed_core::image::SiteFallback;
use trackbed_core::instance::{Exit, InstanceKind, InstanceState, InstanceStatus};
use trackbed_core::{InstanceId, ServiceId, Timestamp};
use trackbed_stdx::files;

/// Raised when the fields change their meaning.
const VERSION: u32 = 1;

/// An instance of a site.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) id: InstanceId,
    pub(crate) kind: InstanceKind,
    pub(crate) service: ServiceId,
    pub(crate) started_at: Timestamp,
    pub(crate) port: Option<u16>,
    /// The layer with the files, relative to the data directory.
    pub(crate) layer: String,
    pub(crate) fallback: SiteFallback,
    pub(crate) end: Option<End>,
}

/// How and when it ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) exit: Exit,
    pub(crate) at: Timestamp,
}

impl Record {
    pub(crate) fn new(
        (id, kind, service): (InstanceId, InstanceKind, ServiceId),
        started_at: Timestamp,
        port: Option<u16>,
        (layer, fallback): (String, SiteFallback),
    ) -> Self {
        Self { version: VERSION, id, kind, service, started_at, port, layer, fallback, end: None }
    }

    pub(crate) fn ended(self, exit: Exit, at: Timestamp) -> Self {
        Self { end: Some(End { exit, at }), ..self }
    }

    pub(crate) fn status(&self) -> InstanceStatus {
        let state = match self.end.clone() {
            Some(End { exit, at }) => InstanceState::Ended { exit, at },
            None => InstanceState::Running,
        };
        InstanceStatus {
            id: self.id.clone(),
            kind: self.kind,
            service: self.service.clone(),
            state,
            pids: Vec::new(),
            started_at: self.started_at,
            port: self.port,
            processes: Vec::new(),
        }
    }
}

/// All records, in memory and on disk alike.
#[derive(Debug)]
pub(crate) struct Records {
    folder: PathBuf,
    all: Mutex<BTreeMap<InstanceId, Record>>,
    /// Held over a change, disk included, on threads that may wait. Whoever only reads never waits for the disk.
    changing: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Records {
    /// Reads the records of a folder, which is made when absent. One that cannot be read is told and left out: its
    /// instance counts as lost, and another one is started.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let read = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Record>(&bytes)?));
            match read {
                Ok(record) if record.version == VERSION => drop(all.insert(record.id.clone(), record)),
                Ok(record) => {
                    tracing::warn!(path = %path.display(), version = record.version, "a record of another version");
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot read a record"),
            }
        }
        Ok(Self { folder: folder.to_owned(), all: Mutex::new(all), changing: Mutex::default() })
    }

    pub(crate) fn find(&self, id: &InstanceId) -> Option<Record> {
        lock(&self.all).get(id).cloned()
    }

    pub(crate) fn list(&self) -> Vec<Record> {
        lock(&self.all).values().cloned().collect()
    }

    /// Changes a record, first on disk and then in memory: what is returned is what it becomes, none for no change.
    /// Blocking.
    pub(crate) fn change(
        &self,
        id: &InstanceId,
        change: impl FnOnce(Option<Record>) -> Option<Record>,
    ) -> io::Result<()> {
        let _in_turn = lock(&self.changing);
        let Some(record) = change(self.find(id)) else { return Ok(()) };
        files::write_atomic(&self.path(id), &serde_json::to_vec(&record)?, 0o600)?;
        lock(&self.all).insert(id.clone(), record);
        Ok(())
    }

    /// Forgets a record. Blocking.
    pub(crate) fn remove(&self, id: &InstanceId) -> io::Result<()> {
        let _in_turn = lock(&self.changing);
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => files::sync_folder(&self.folder)?,
        }
        lock(&self.all).remove(id);
        Ok(())
    }

    fn path(&self, id: &InstanceId) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}
