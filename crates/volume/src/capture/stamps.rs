//! What is remembered of a volume's files, so that what did not change is not read again.
//!
//! A cache: when it is lost, odd or of another version, everything is read again and nothing is wrong.
//!
//! A stamp says that a file is unchanged only when it is *settled*: the file was synced after the stamp was taken and
//! before it was read. A page that an app has mapped and written to is writable until it is synced; until then the app
//! writes to it without moving any time. Once synced, its next write faults, and moves the times before it happens.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use trackbed_stdx::{files, random};

use crate::chunk_store::{ChunkId, StoreError};
use crate::manifest::FileContent;
use crate::walk::Stamp;

const MAGIC: &[u8; 8] = b"TBSTAMP1";
/// Most quick sums that are kept for a volume: 64 MiB of them, for 128 GiB of files. Files beyond are hashed each time.
const QUICK_SUMS_MAX: usize = 4 * 1024 * 1024;
/// Smaller files are hashed at once.
pub(crate) const QUICK_FROM_BYTES: u64 = 256 * 1024;

/// What is remembered of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) stamp: Stamp,
    /// Whether the same stamp means the same content.
    pub(crate) is_settled: bool,
    pub(crate) file: FileContent,
    /// A sum of each chunk that is quick to make, to find those that are as they were. Empty when there is none.
    pub(crate) quick: Vec<u128>,
}

/// What is remembered of a volume, by path.
#[derive(Debug, Clone)]
pub(crate) struct Stamps {
    /// Seeds the quick sums: nobody outside can choose bytes that change and keep their sum.
    seed: u64,
    pub(crate) files: HashMap<Vec<u8>, Known>,
}

impl Stamps {
    /// Remembers nothing.
    pub(crate) fn none() -> Self {
        Self { seed: u64::from_le_bytes(random::bytes()), files: HashMap::new() }
    }

    /// Remembers nothing yet, with the sums of another.
    pub(crate) fn after(before: &Stamps) -> Self {
        Self { seed: before.seed, files: HashMap::with_capacity(before.files.len()) }
    }

    /// Returns the quick sum of a chunk. Two chunks of a file at the same place, one after the other in time, with the
    /// same sum of 128 bits are taken for the same.
    pub(crate) fn quick_sum(&self, bytes: &[u8]) -> u128 {
        xxhash_rust::xxh3::xxh3_128_with_seed(bytes, self.seed)
    }

    /// Reads what is remembered; nothing when there is nothing to be read.
    pub(crate) fn load(path: &Path) -> Self {
        let read = fs::read(path).ok();
        read.and_then(|bytes| decode(&bytes)).unwrap_or_else(Self::none)
    }

    /// Keeps it for the next time.
    pub(crate) fn save(&self, path: &Path) -> Result<(), StoreError> {
        if let Some(folder) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| StoreError::disk("make the folder", folder, error))?;
        }
        // Not synced: what a crash leaves of it fits its own digest, or is nothing.
        let beside = files::temporary_beside(path).and_then(|beside| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            let written = file.write_all(&self.encode()).and_then(|()| fs::rename(&beside, path));
            written.inspect_err(|_| drop(fs::remove_file(&beside)))
        });
        beside.map_err(|error| StoreError::disk("write the stamps", path, error))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160 * self.files.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.seed.to_le_bytes());
        out.extend_from_slice(&(self.files.len() as u64).to_le_bytes());
        let mut quick_left = QUICK_SUMS_MAX;
        for (path, known) in &self.files {
            out.extend_from_slice(&(path.len() as u64).to_le_bytes());
            out.extend_from_slice(path);
            let stamp = &known.stamp;
            for number in [stamp.device, stamp.inode, stamp.size] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            for (seconds, nanos) in [stamp.modified, stamp.changed] {
                out.extend_from_slice(&seconds.to_le_bytes());
                out.extend_from_slice(&nanos.to_le_bytes());
            }
            let flags = [known.is_settled, known.file.is_database, known.file.content.is_some()];
            out.extend(flags.map(u8::from));
            out.extend_from_slice(&known.file.size.to_le_bytes());
            out.extend_from_slice(&known.file.content.map_or([0; 32], |id| id.0));
            let quick = if known.quick.len() <= quick_left { &known.quick[..] } else { &[] };
            quick_left -= quick.len();
            out.extend_from_slice(&(quick.len() as u64).to_le_bytes());
            quick.iter().for_each(|sum| out.extend_from_slice(&sum.to_le_bytes()));
        }
        let seal: [u8; 32] = Sha256::digest(&out).into();
        out.extend_from_slice(&seal);
        out
    }
}

fn decode(bytes: &[u8]) -> Option<Stamps> {
    let (body, seal) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Sha256::digest(body)[..] != *seal {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let rest = &mut rest;
    let seed = take_u64(rest)?;
    let count = take_u64(rest)?;
    let mut files = HashMap::new();
    for _ in 0..count {
        let length = usize::try_from(take_u64(rest)?).ok()?;
        let path = take_slice(rest, length)?.to_vec();
        let (device, inode, size) = (take_u64(rest)?, take_u64(rest)?, take_u64(rest)?);
        let stamp = Stamp { device, inode, size, modified: take_time(rest)?, changed: take_time(rest)? };
        let [is_settled, is_database, has_content] = take::<3>(rest)?.map(|flag| flag != 0);
        let size = take_u64(rest)?;
        let id = ChunkId(take(rest)?);
        let file = FileContent { size, content: has_content.then_some(id), is_database };
        let sums = usize::try_from(take_u64(rest)?).ok()?;
        let sums = take_slice(rest, sums.checked_mul(16)?)?;
        let quick =
            sums.chunks_exact(16).filter_map(|sum| sum.first_chunk().map(|sum| u128::from_le_bytes(*sum)));
        files.insert(path, Known { stamp, is_settled, file, quick: quick.collect() });
    }
    Some(Stamps { seed, files })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*first)
}

fn take_slice<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (bytes, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(bytes)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

fn take_time(rest: &mut &[u8]) -> Option<(i64, u32)> {
    Some((i64::from_le_bytes(take(rest)?), u32::from_le_bytes(take(rest)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_comes_back_and_anything_odd_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stamps/vol");
        let mut stamps = Stamps::none();
        let stamp = Stamp { device: 1, inode: 2, size: 3, modified: (-4, 5), changed: (6, 7) };
        let file = FileContent { size: 3, content: Some(ChunkId([9; 32])), is_database: true };
        let known = Known { stamp, is_settled: true, file, quick: vec![1, u128::MAX] };
        stamps.files.insert(b"caf\xe9".to_vec(), known.clone());
        stamps.save(&path).unwrap();
        let back = Stamps::load(&path);
        assert_eq!((back.seed, back.files), (stamps.seed, stamps.files.clone()));

        let mut bytes = stamps.encode();
        bytes[40] ^= 1;
        files::write_atomic(&path, &bytes, 0o600).unwrap();
        assert!(Stamps::load(&path).files.is_empty());
        assert!(Stamps::load(&folder.path().join("none")).files.is_empty());
    }
}
