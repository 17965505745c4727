//! An XFS that can share blocks between files, in a file on the box's own file system. Needs root.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::{read, run};

/// Bytes of the image; sparse.
const SIZE: &str = "4G";

/// A mounted file system; it is unmounted and removed when it is dropped.
pub(super) struct LoopXfs {
    folder: PathBuf,
}

impl LoopXfs {
    /// Makes an image below `folder` and mounts it.
    pub(super) fn mount(folder: PathBuf) -> Result<LoopXfs> {
        let earlier = LoopXfs { folder: folder.clone() };
        drop(earlier);
        let ours = LoopXfs { folder };
        std::fs::create_dir_all(ours.mount_point())?;
        let image = ours.folder.join("image").to_string_lossy().into_owned();
        run("truncate", &["--size", SIZE, &image])?;
        run("mkfs.xfs", &["-q", "-m", "reflink=1", &image])?;
        run("mount", &["-o", "loop", &image, &ours.mount_point().to_string_lossy()])?;
        Ok(ours)
    }

    /// Returns where it is mounted.
    pub(super) fn mount_point(&self) -> PathBuf {
        self.folder.join("mount")
    }
}

impl Drop for LoopXfs {
    fn drop(&mut self) {
        if !self.folder.exists() {
            return;
        }
        let place = self.mount_point().to_string_lossy().into_owned();
        let is_mounted = || read("mountpoint", &["-q", &place]).is_ok();
        if is_mounted() {
            let _ = read("umount", &[&place]);
        }
        if is_mounted() {
            eprintln!("{place} is still mounted");
            return;
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
