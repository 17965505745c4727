//! Where volumes lie.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trackbed_core::VolumeId;
use trackbed_core::ports::VolumePlace;
use trackbed_stdx::files;

use crate::capture::Traffic;
use crate::chunk_store::SnapshotStore;
use crate::inspect::Inspector;

/// Volumes as directories below the data directory. Of those that capture or collect in one data directory there is one,
/// and its clones, which know of each other.
#[derive(Debug, Clone)]
pub struct LocalVolumes {
    root: PathBuf,
    pub(crate) store: SnapshotStore,
    pub(crate) traffic: Arc<Traffic>,
    /// Where points are restored to be looked at.
    pub(crate) scratch: PathBuf,
    pub(crate) inspector: Inspector,
    /// Bytes that a restore leaves free on the disk.
    pub(crate) reserve_bytes: u64,
}

/// What a restore leaves free for everybody else on the disk, unless told otherwise.
const RESERVE_BYTES: u64 = 256 << 20;

impl LocalVolumes {
    /// Keeps volumes below `<data_dir>/volumes`.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            root: data_dir.join("volumes"),
            store: SnapshotStore::open(data_dir),
            traffic: Arc::default(),
            scratch: data_dir.join("scratch"),
            inspector: Inspector::default(),
            reserve_bytes: RESERVE_BYTES,
        }
    }

    /// Looks into databases by another program than the one that runs, which must know [`crate::inspect::ROLE`].
    #[must_use]
    pub fn with_inspector(mut self, inspector: Inspector) -> Self {
        self.inspector = inspector;
        self
    }

    /// Returns the folder of all volumes, made or not.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Leaves so many bytes free on the disk when data is restored.
    #[must_use]
    pub fn keep_free(mut self, bytes: u64) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// Returns where a volume lies, made or not.
    pub fn place(&self, id: &VolumeId) -> VolumePlace {
        let folder = self.root.join(id.as_str());
        VolumePlace { directory: folder.join("data"), lock: folder.join("lock") }
    }
}

/// Makes folder and lock file, and makes them durable before anybody writes data into them.
pub(crate) fn make(place: &VolumePlace) -> io::Result<()> {
    if place.directory.is_dir() && place.lock.is_file() {
        return Ok(());
    }
    let folder = place.directory.parent().ok_or_else(|| io::Error::other("a volume needs a folder"))?;
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    // For the service's own user alone: not every isolation level hides the folders of others.
    match fs::DirBuilder::new().mode(0o700).create(&place.directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Nobody else may take the lock, not even to read.
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&place.lock)?;
    files::sync_folder(folder)?;
    files::sync_folder(folder.parent().unwrap_or(folder))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use super::*;
    use trackbed_core::ports::Volumes;
    use trackbed_core::volume::Volume;
    use trackbed_core::{ServiceId, Timestamp};

    #[tokio::test]
    async fn making_a_volume_again_keeps_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = LocalVolumes::new(folder.path());
        let (id, service) = (VolumeId::from_random([1; 10]), ServiceId::from_random([2; 10]));
        let volume =
            Volume::new(id, service, "data".parse().unwrap(), "/data".parse().unwrap(), Timestamp(0));
        let place = volumes.ensure(&volume).await.unwrap();
        fs::write(place.directory.join("kept"), "x").unwrap();
        assert_eq!(volumes.ensure(&volume).await.unwrap(), place);
        assert!(place.directory.join("kept").exists());
        assert!(!place.lock.starts_with(&place.directory));
    }
}
