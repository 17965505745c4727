//! The room on the disk that volumes lie on.

use std::io;
use std::path::Path;

use nix::sys::statvfs::statvfs;
use trackbed_core::ports::DiskSpace;

/// Returns the room on the disk of a folder, or of where it would be made.
pub(crate) fn space(folder: &Path) -> io::Result<DiskSpace> {
    let made = folder.ancestors().find(|place| place.is_dir());
    let disk = statvfs(made.unwrap_or(Path::new("/")))?;
    // Blocks that are kept for root are nobody's: an app of another user never gets them.
    let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
    Ok(DiskSpace { total_bytes: bytes(disk.blocks()), free_bytes: bytes(disk.blocks_available()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_made_yet_lies_on_the_disk_of_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let made = space(folder.path()).unwrap();
        let to_be = space(&folder.path().join("not/yet/made")).unwrap();
        assert_eq!(made.total_bytes, to_be.total_bytes);
        assert!(made.total_bytes >= made.free_bytes && made.total_bytes > 0);
    }
}
