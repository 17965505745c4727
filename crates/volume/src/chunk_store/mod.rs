//! The store of snapshots below `<data dir>/snapshots`: chunks in packs, and a manifest for each restore point.
//!
//! - `packs/<id>.pack` holds chunks, `packs/<id>.index` says which; a pack counts only with its index beside it.
//! - `packs/<id>.doubt` names chunks of it that were found damaged: a capture stores them again.
//! - `points/<volume>/<point>.manifest` is a point: it exists from the moment that this file does.
//! - `stamps/<volume>` remembers what was read of a volume; without it everything is read again.
//! - `capture/<random>` is scratch space of a capture.
//! - `points/<volume>/<point>.content.json` is what its databases hold, recorded by its first proof.
//!
//! Nothing of it is changed once it is written, and what others refer to is durable before they do.

mod catalogue;
mod error;
mod id;
mod index;
mod pack;
mod reader;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

use trackbed_core::VolumeId;
use trackbed_core::ports::PointData;

pub(crate) use catalogue::Pack;
pub use error::StoreError;
pub use id::ChunkId;
pub(crate) use id::{ById, IdSet};
pub(crate) use pack::PackWriter;
pub use reader::{ChunkReader, Extent};
pub use tree::CHUNK_BYTES;
pub(crate) use tree::{HOLE, TreeBuilder, is_zero};

use crate::manifest::Manifest;

/// Where snapshots lie. Cheap to make and to clone.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    root: PathBuf,
}

impl SnapshotStore {
    /// Finds the store of a data directory, made or not.
    pub fn open(data_dir: &Path) -> Self {
        Self { root: data_dir.join("snapshots") }
    }

    /// Returns the folder of packs and their indexes.
    pub fn packs(&self) -> PathBuf {
        self.root.join("packs")
    }

    /// Returns the folder with a folder of points for each volume.
    pub fn points(&self) -> PathBuf {
        self.root.join("points")
    }

    /// Returns the folder of what is remembered of volumes.
    pub(crate) fn stamps(&self) -> PathBuf {
        self.root.join("stamps")
    }

    /// Returns the place of what is remembered of a volume.
    pub(crate) fn stamps_path(&self, volume: &VolumeId) -> PathBuf {
        self.stamps().join(volume.as_str())
    }

    /// Returns the folder with the scratch space of captures.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("capture")
    }

    /// Returns the place of a point's manifest.
    pub fn manifest_path(&self, data: &PointData) -> PathBuf {
        self.points().join(data.volume.as_str()).join(format!("{}.manifest", data.point))
    }

    /// Returns the place of what a point's databases hold: JSON, written by its first proof, removed with the point.
    pub fn content_path(&self, data: &PointData) -> PathBuf {
        self.points().join(data.volume.as_str()).join(format!("{}.content.json", data.point))
    }

    /// Returns the manifest of a point, or none when there is no such point.
    ///
    /// # Errors
    /// When it is damaged or of another point, or cannot be read.
    pub fn manifest(&self, data: &PointData) -> Result<Option<Manifest>, StoreError> {
        let path = self.manifest_path(data);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::disk("read the manifest", &path, error)),
        };
        let manifest = Manifest::decode(&bytes, &path)?;
        if manifest.data() != *data {
            return Err(StoreError::damaged(&path, "it is the manifest of another point"));
        }
        Ok(Some(manifest))
    }

    /// Returns a reader of the chunks that are there now.
    ///
    /// # Errors
    /// When the folder of packs cannot be read. An index or pack that is damaged is told when a chunk is missed.
    pub fn reader(&self) -> Result<ChunkReader, StoreError> {
        ChunkReader::open(&self.packs())
    }
}

/// Returns how many nodes lie above each chunk of a file.
pub(crate) fn depth_of_file(size: u64) -> u32 {
    tree::depth_of(tree::chunks_of(size))
}
