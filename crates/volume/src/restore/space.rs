//! Whether the disk has room for what is to be restored.

use std::path::Path;

use trackbed_core::ports::PortError;

use crate::chunk_store::{ChunkReader, StoreError};
use crate::manifest::{Entry, Kind};

/// What an entry takes beside its content: an inode and its name.
const ENTRY_BYTES: u64 = 512;

/// Refuses when the disk of `place` is too full for `entries`, and for what has to stay free.
pub(super) fn check(
    place: &Path,
    reader: &ChunkReader,
    entries: &[Entry],
    reserve_bytes: u64,
    what: &str,
) -> Result<(), PortError> {
    let disk = nix::sys::statvfs::statvfs(place).map_err(|error| {
        PortError::new(format!("cannot measure the disk of {}: {error}", place.display()))
    })?;
    let free = disk.blocks_available() * disk.fragment_size();
    let sizes = entries.iter().map(|entry| match entry.kind {
        Kind::File(file) => file.size,
        Kind::Folder | Kind::Symlink(_) | Kind::Fifo | Kind::HardLink(_) => 0,
    });
    let room = free.saturating_sub(reserve_bytes);
    if sizes.sum::<u64>() + ENTRY_BYTES * entries.len() as u64 <= room {
        return Ok(());
    }
    // Much of it may be holes.
    let needed = needed(reader, entries)?;
    if needed <= room {
        return Ok(());
    }
    let megabytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let needs = format!("{} MB are needed and {} MB are free", megabytes(needed), megabytes(free));
    let reserve = format!("{} MB have to stay so", megabytes(reserve_bytes));
    Err(PortError::new(format!("cannot restore {what}: {needs}, of which {reserve}"))
        .hint("free some disk space; nothing has changed"))
}

fn needed(reader: &ChunkReader, entries: &[Entry]) -> Result<u64, StoreError> {
    let mut bytes = ENTRY_BYTES * entries.len() as u64;
    for entry in entries {
        if let Kind::File(file) = &entry.kind {
            for extent in reader.extents(file.size, file.content.as_ref()) {
                let extent = extent?;
                bytes += if extent.chunk.is_some() { extent.length } else { 0 };
            }
        }
    }
    Ok(bytes)
}
