//! Reading a volume while its app goes on, so that little is left to read while it stands still; or while nobody writes.

use std::collections::HashSet;

use rustix::fs::fdatasync;
use trackbed_stdx::clock;

use super::content::{Intake, take_in};
use super::stamps::{Known, Stamps};
use crate::chunk_store::{ChunkReader, PackWriter, StoreError};
use crate::pieces::{Block, ReadError, Source};
use crate::walk::{Found, FoundKind, Root, stamp_of};

/// A file that was written to so lately is likely to be written to again: it is read, but neither synced nor settled. Short,
/// because what is not settled is read again while its app stands still.
const HOT_MS: i64 = 100;
/// A stamp so young may be that of a later change, too: times move in steps of the kernel's tick (up to 10 ms). As git's
/// "racy" check.
const YOUNG_MS: i64 = 50;
/// With more files than this to be synced, the whole file system is, in one go: a sync of a file writes the journal.
const SYNCED_ALONE_MAX: usize = 32;

/// Who may write to a volume while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writers {
    /// An app works: what changes or cannot be read is left for later.
    Working,
    /// Nobody: whatever cannot be read is an error.
    None,
}

/// A volume as it was read.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) found: Vec<Found>,
    pub(crate) stamps: Stamps,
}

/// Reads what is not known to be as it was and stores what is new of it.
pub(crate) fn read(
    root: &Root,
    reader: &ChunkReader,
    writer: &mut PackWriter<'_>,
    mut before: Stamps,
    writers: Writers,
) -> Result<Pass, StoreError> {
    // Before the walk: whatever a stamp of it says that is younger may not be all that happened.
    let began = clock::now_ms();
    let found = root.walk(writers == Writers::None)?;
    let mut after = Stamps::after(&before);
    let mut to_read: Vec<(&Found, Option<Known>)> = Vec::new();
    for file in files_once(&found) {
        match before.files.remove(&file.path) {
            Some(known)
                if is_unchanged(&known, file) && reader.holds_all(known.file.size, known.file.content) =>
            {
                after.files.insert(file.path.clone(), known);
            }
            known => to_read.push((file, known)),
        }
    }
    let is_calm = |file: &Found| {
        began - millis(file.stamp.modified) > HOT_MS && began - millis(file.stamp.changed) > YOUNG_MS
    };
    // While nobody writes, callers wait: the next reading ahead settles what this one leaves.
    let may_settle = writers == Writers::Working && root.moves_times();
    let calm = to_read.iter().filter(|(file, _)| is_calm(file)).count();
    let all_synced = may_settle && calm > SYNCED_ALONE_MAX && rustix::fs::syncfs(root.folder()).is_ok();
    let mut buffer = Block::default();
    for (found, known) in to_read {
        // Names of a folder are in order, so a database comes before its `-shm`.
        if is_shared_memory(&found.path, &after) {
            continue;
        }
        let cannot = |error: std::io::Error| match writers {
            Writers::Working => Ok(()),
            Writers::None => Err(StoreError::disk("read the file", &root.show(&found.path), error)),
        };
        let file = match root.open_file(&found.path) {
            Ok(file) => file,
            Err(error) => {
                cannot(error)?;
                continue;
            }
        };
        let is_synced = may_settle && is_calm(found) && (all_synced || fdatasync(&file).is_ok());
        let intake = Intake::begin(reader, found.stamp.size, known.as_ref());
        let source = Source { file: &file, size: found.stamp.size, allocated: found.allocated };
        let taken = take_in(source, &before, intake, writer, &mut buffer);
        let (content, quick) = match taken {
            Ok(taken) => taken,
            Err(ReadError::Store(error)) => return Err(error),
            Err(ReadError::File(error)) => {
                cannot(error)?;
                continue;
            }
        };
        let is_same =
            stamp_of(&file).is_ok_and(|stamp| stamp == found.stamp) && content.size == found.stamp.size;
        if !is_same && writers == Writers::None {
            return Err(changed(root, &found.path));
        }
        let is_settled = is_synced && is_same;
        after
            .files
            .insert(found.path.clone(), Known { stamp: found.stamp, is_settled, file: content, quick });
    }
    Ok(Pass { found, stamps: after })
}

/// Says that a file changed while its writers stood still.
pub(crate) fn changed(root: &Root, path: &[u8]) -> StoreError {
    let path = root.show(path);
    StoreError::Refused(format!(
        "`{}` changed while nobody was to write: something else writes there",
        path.display()
    ))
}

/// Returns whether a file holds what it held.
pub(crate) fn is_unchanged(known: &Known, found: &Found) -> bool {
    known.is_settled && known.stamp == found.stamp
}

/// Returns the regular files, each under its first name only.
pub(crate) fn files_once(found: &[Found]) -> impl Iterator<Item = &Found> {
    let mut inodes = HashSet::new();
    let files = found.iter().filter(|file| file.kind == FoundKind::File);
    files.filter(move |file| file.links < 2 || inodes.insert(file.stamp.inode))
}

/// Returns whether a file is the shared memory that SQLite keeps beside a database in WAL mode. It is left out: the first
/// connection makes it anew from the `-wal` (sqlite.org/walformat.html), it holds locks and read marks of processes that
/// are gone by then, and an app at work changes it with every transaction, through a mapping.
pub(crate) fn is_shared_memory(path: &[u8], stamps: &Stamps) -> bool {
    let base = path.strip_suffix(b"-shm").and_then(|base| stamps.files.get(base));
    base.is_some_and(|known| known.file.is_database)
}

fn millis((seconds, nanos): (i64, u32)) -> i64 {
    seconds.saturating_mul(1000).saturating_add(i64::from(nanos) / 1_000_000)
}
