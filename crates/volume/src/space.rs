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

/// What the store of snapshots never takes from the apps on the same disk: it stops while they can still write.
const LEFT_TO_APPS_BYTES: u64 = 64 << 20;
/// Of a small disk it is this part.
const LEFT_TO_APPS_PART: u64 = 16;

/// Refuses when so little is free on the disk of a folder that the rest is left to the apps.
pub(crate) fn leave_room(folder: &Path) -> io::Result<()> {
    let disk = space(folder)?;
    let left_to_apps = LEFT_TO_APPS_BYTES.min(disk.total_bytes / LEFT_TO_APPS_PART);
    if disk.free_bytes >= left_to_apps {
        return Ok(());
    }
    let megabytes = |bytes: u64| bytes >> 20;
    let (free, kept) = (megabytes(disk.free_bytes), megabytes(left_to_apps));
    let why =
        format!("no space left on the disk: {free} MB are free, and the last {kept} MB are left to the apps");
    Err(io::Error::new(io::ErrorKind::StorageFull, why))
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
