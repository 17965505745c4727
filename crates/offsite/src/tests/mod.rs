//! The mirror and the recovery against a store in memory that misbehaves, and against a directory.
#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

mod faults;
mod history;
mod mirror;
mod owner;
mod recover;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use tempfile::TempDir;
use trackbed_core::offsite::MirrorReport;
use trackbed_core::ports::{Conditional, Ownership, PortError, StateCopy};
use trackbed_core::{Secret, Timestamp};

use crate::error::OffsiteError;
use crate::history::History;
use crate::limits::Limits;
use crate::offsite::Mirror;
use crate::owner as owning;
use crate::recover::Copies;
use crate::remote::Remote;
use crate::seal::{Keys, new_identity};
use faults::FaultyStore;

/// A box with some data, and its target.
pub(crate) struct TestBox {
    pub(crate) data_dir: TempDir,
    pub(crate) store: FaultyStore,
    pub(crate) keys: Keys,
    pub(crate) limits: Limits,
}

pub(crate) const URL: &str = "s3://bucket/box";
pub(crate) const NOW: Timestamp = Timestamp(1_000_000);

struct Database(PathBuf);

#[async_trait]
impl StateCopy for Database {
    async fn copy_to(&self, path: &Path) -> Result<(), PortError> {
        fs::copy(&self.0, path).map(drop).map_err(|error| PortError::new(error.to_string()))
    }
}

impl TestBox {
    pub(crate) fn new() -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            request: Duration::from_secs(5),
            retry_first: Duration::from_millis(1),
            retry_ceiling: Duration::from_millis(4),
            retry_total: Duration::from_secs(60),
            part_bytes: 10_000,
            ..Limits::default()
        };
        let keys = Keys::parse(&new_identity()).unwrap();
        let this = Self { data_dir, store: FaultyStore::default(), keys, limits };
        this.write("state.db", "the state");
        this.write("key", "the key that seals variables");
        this.write("snapshots/packs/one.pack", &"chunk ".repeat(20_000));
        this.write("snapshots/packs/one.index", "what lies where");
        this.write("snapshots/points/vol_a/rp_a", "a manifest");
        this.write("snapshots/points/vol_a/rp_a.content.json", "{}");
        this.write("sources/aa/main.py", "print()");
        this.write("layers/bb/.venv/lib/x.py", "x = 1");
        this.write("layers/bb.ok", "{}");
        this
    }

    pub(crate) fn path(&self) -> &Path {
        self.data_dir.path()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn remote(&self) -> Remote {
        Remote::new(Arc::new(self.store.clone()), self.limits.clone(), None)
    }

    pub(crate) async fn claim(&self) -> Result<String, OffsiteError> {
        self.claim_as(Ownership::Respect, Conditional::Required).await
    }

    pub(crate) async fn claim_as(
        &self,
        ownership: Ownership,
        conditional: Conditional,
    ) -> Result<String, OffsiteError> {
        owning::claim(&self.remote(), &self.keys, self.path(), ownership, conditional, NOW).await
    }

    pub(crate) async fn pass(&self) -> Result<MirrorReport, OffsiteError> {
        let mirror = Mirror::new(self.path(), self.limits.clone());
        let state = Database(self.path().join("state.db"));
        mirror.pass(&self.remote(), &self.keys, URL, &state, NOW).await
    }

    pub(crate) async fn open(&self) -> Result<Copies, OffsiteError> {
        Copies::of_store(self.remote(), self.keys.clone(), URL).await
    }

    pub(crate) async fn history(&self) -> Result<History, OffsiteError> {
        History::of_store(self.remote(), self.keys.clone(), URL).await
    }

    /// Returns the name of the one object in a folder of the target whose name begins so.
    pub(crate) async fn object(&self, beginning: &str) -> ObjectPath {
        let (folder, _) = beginning.rsplit_once('/').unwrap();
        let listed: Vec<ObjectMeta> =
            self.store.inner.list(Some(&ObjectPath::from(folder))).try_collect().await.unwrap();
        let mut named = listed.into_iter().map(|meta| meta.location);
        named.find(|name| name.as_ref().starts_with(beginning)).unwrap_or_else(|| panic!("{beginning}"))
    }

    /// Replaces an object at the target by what becomes of its bytes; nothing removes it.
    pub(crate) async fn spoil(&self, name: &ObjectPath, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let bytes = self.store.inner.get(name).await.unwrap().bytes().await.unwrap().to_vec();
        let spoilt = change(bytes);
        if spoilt.is_empty() {
            self.store.inner.delete(name).await.unwrap();
        } else {
            self.store.inner.put(name, PutPayload::from(spoilt)).await.unwrap();
        }
    }

    /// Recovers into an empty place and returns the files that are there then, by path.
    pub(crate) async fn recovered(&self) -> BTreeMap<String, String> {
        let place = tempfile::tempdir().unwrap();
        let copies = self.open().await.unwrap();
        let (_, lost) = copies.fetch(place.path(), |_| true, |_| {}).await.unwrap();
        assert_eq!(lost, []);
        assert_eq!(copies.fetch_state(&place.path().join("state")).await.unwrap(), None);
        files_below(place.path())
    }

    /// Returns what a recovery must bring.
    pub(crate) fn expected(&self) -> BTreeMap<String, String> {
        let mut files = files_below(self.path());
        files.retain(|path, _| !path.starts_with("offsite/"));
        for name in ["state.db", "key"] {
            let text = files.remove(name).unwrap();
            files.insert(format!("state/{name}"), text);
        }
        files
    }

    pub(crate) async fn identity_of_another(&self) -> Keys {
        Keys::parse(&Secret::new(new_identity().into_exposed())).unwrap()
    }
}

pub(crate) fn files_below(folder: &Path) -> BTreeMap<String, String> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                files.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    files
}
