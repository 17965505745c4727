//! Scratch space of one capture, gone with it; what a crash leaves is removed by the next collection.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use trackbed_stdx::{files, random};

use crate::chunk_store::{SnapshotStore, StoreError};

/// A folder of its own.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    /// The device on whose files clones share their bytes; none when it cannot do that.
    clones_on: Option<u64>,
}

impl Scratch {
    /// Makes it and finds out whether its file system can clone.
    pub(crate) fn make(store: &SnapshotStore) -> Result<Self, StoreError> {
        let name: String = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = store.scratch().join(name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| StoreError::disk("make the scratch folder", &folder, error))?;
        let mut scratch = Self { folder, clones_on: None };
        scratch.clones_on = scratch.probe().ok();
        Ok(scratch)
    }

    fn probe(&self) -> io::Result<u64> {
        let from = self.create("probe-from")?;
        io::Write::write_all(&mut &from, &[1; 4096])?;
        let to = self.create("probe-to")?;
        rustix::fs::ioctl_ficlone(&to, &from)?;
        Ok(to.metadata()?.dev())
    }

    /// Returns whether files of a device can be cloned into it.
    pub(crate) fn can_clone(&self, device: u64) -> bool {
        self.clones_on == Some(device)
    }

    /// Makes an empty file.
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(self.path(name))
    }

    /// Returns where a file of it lies.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = files::remove_tree(&self.folder) {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot remove scratch space; a collection will");
        }
    }
}
