//! A private folder that lasts as long as one program of git or ssh runs.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use trackbed_stdx::{files, random};

/// Below the data directory.
const FOLDER: &str = "git/aside";

/// Such a folder, gone when this is dropped.
pub(super) struct Aside(PathBuf);

impl Aside {
    /// Makes it.
    pub(super) fn make(data_dir: &Path, what: &str) -> io::Result<Self> {
        let tail: String = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = data_dir.join(FOLDER).join(format!("{what}-{tail}"));
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }

    /// Removes what a crash has left of earlier ones. Call it before the first is made.
    pub(super) fn sweep(data_dir: &Path) -> io::Result<()> {
        files::remove_tree(&data_dir.join(FOLDER))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Err(error) = files::remove_tree(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a folder with a key could not be removed");
        }
    }
}
