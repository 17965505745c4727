//! The manifest of a restore point: every entry of the volume with the name of its content. Written last, so that what it
//! names is there; never changed.
//!
//! Owners are not kept: everything in a volume belongs to the user of its service. Neither are extended attributes.
//!
//! Layout, little endian: `TBMANIF1`, length of the header (u32), the header as JSON, count of entries (u64), the
//! entries, and the SHA-256 of all before. An entry: kind (u8), mode (u16), modified (i64 seconds, u32 nanoseconds),
//! path (u32 length, bytes), then for a file its size (u64), flags (u8) and content (32 bytes), for a link its target (u32
//! length, bytes). A folder comes before what is in it.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use trackbed_core::ports::PointData;
use trackbed_core::restore_point::Capture;
use trackbed_core::{RestorePointId, VolumeId};

use crate::chunk_store::{ChunkId, StoreError};

const MAGIC: &[u8; 8] = b"TBMANIF1";
const SEAL_BYTES: usize = 32;
/// Entries that a volume may have: each costs some 150 bytes of memory while it is captured.
pub const ENTRIES_MAX: usize = 2_000_000;

/// How every SQLite database begins.
pub(crate) const DATABASE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What a restore point holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Of which point, and what it came to.
    pub header: Header,
    /// All entries, a folder before what is in it. The first, with an empty path, is the volume's own folder.
    pub entries: Vec<Entry>,
}

/// What is known of a point as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The volume.
    pub volume: VolumeId,
    /// The point.
    pub point: RestorePointId,
    /// All points that were captured at the same instant, this one included, as volume and point.
    pub together: Vec<(VolumeId, RestorePointId)>,
    /// What the capture came to.
    pub capture: Capture,
}

/// One entry of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path within the volume, without a leading `/`; any bytes but zero.
    pub path: Vec<u8>,
    /// Permission bits, with set-id and sticky.
    pub mode: u16,
    /// When it was modified: seconds since 1970 UTC and nanoseconds.
    pub modified: (i64, u32),
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File(FileContent),
    /// A symbolic link, with what it says.
    Symlink(Vec<u8>),
    /// A pipe.
    Fifo,
    /// Another name of a regular file that comes earlier, with that one's path.
    HardLink(Vec<u8>),
}

/// What a regular file holds. Equal contents are equal here, and the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileContent {
    /// Its size in bytes.
    pub size: u64,
    /// The name of its content, see [`crate::ChunkReader::recipe`]; none when all of it is zero, or it is empty.
    pub content: Option<ChunkId>,
    /// Whether it begins with the header of a SQLite database.
    pub is_database: bool,
}

impl Manifest {
    /// Returns which point it is of.
    pub fn data(&self) -> PointData {
        PointData { volume: self.header.volume.clone(), point: self.header.point.clone() }
    }

    /// Returns its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let header =
            serde_json::to_vec(&self.header).expect("a header has text for keys and nothing that can fail");
        let mut out = Vec::with_capacity(header.len() + 128 * self.entries.len());
        out.extend_from_slice(MAGIC);
        put_bytes(&mut out, &header);
        out.extend_from_slice(&(self.entries.len() as u64).to_le_bytes());
        for entry in &self.entries {
            put_entry(&mut out, entry);
        }
        let seal: [u8; 32] = Sha256::digest(&out).into();
        out.extend_from_slice(&seal);
        out
    }

    /// Reads a manifest. Paths lie within the volume, each below a folder that comes before it, none twice.
    ///
    /// # Errors
    /// When it is not what [`Manifest::encode`] wrote, naming `path`.
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self, StoreError> {
        let damaged = |why: &str| StoreError::damaged(path, why);
        let body = bytes.len().checked_sub(SEAL_BYTES).ok_or_else(|| damaged("it is too short"))?;
        let (body, seal) = bytes.split_at(body);
        let mut rest = body
            .strip_prefix(MAGIC)
            .ok_or_else(|| damaged("it does not begin as a manifest of version 1"))?;
        if Sha256::digest(body)[..] != *seal {
            return Err(damaged("its bytes do not fit the digest at its end"));
        }
        let short = || damaged("it ends too early");
        let header = take_bytes(&mut rest).ok_or_else(short)?;
        let header = serde_json::from_slice(header)
            .map_err(|error| damaged(&format!("its header is odd: {error}")))?;
        let count = u64::from_le_bytes(take(&mut rest).ok_or_else(short)?);
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(
                take_entry(&mut rest)
                    .ok_or_else(|| damaged("an entry is cut short or of an unknown kind"))?,
            );
        }
        if !rest.is_empty() {
            return Err(damaged("something follows its last entry"));
        }
        if let Some(why) = oddity(&entries) {
            return Err(damaged(&why));
        }
        Ok(Self { header, entries })
    }
}

/// Returns what is wrong with the paths: whoever restores must never leave the place, whatever a manifest says.
fn oddity(entries: &[Entry]) -> Option<String> {
    let (mut folders, mut seen): (HashSet<&[u8]>, HashSet<&[u8]>) = (HashSet::new(), HashSet::new());
    for (at, entry) in entries.iter().enumerate() {
        let shown = String::from_utf8_lossy(&entry.path);
        if (at == 0) != entry.path.is_empty() || (at == 0 && entry.kind != Kind::Folder) {
            return Some("the volume's own folder is not its first entry".to_owned());
        }
        if at > 0 {
            let is_odd = |name: &[u8]| name.is_empty() || name == b"." || name == b".." || name.contains(&0);
            if entry.path.split(|byte| *byte == b'/').any(is_odd) {
                return Some(format!("`{shown}` is not a path within a volume"));
            }
            let parent =
                entry.path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |end| &entry.path[..end]);
            if !folders.contains(parent) {
                return Some(format!("`{shown}` is in no folder that comes before it"));
            }
        }
        if !seen.insert(&entry.path) {
            return Some(format!("`{shown}` is there twice"));
        }
        match &entry.kind {
            Kind::Folder => {
                folders.insert(&entry.path);
            }
            Kind::HardLink(to) if !seen.contains(to.as_slice()) => {
                return Some(format!("`{shown}` is a link to a file that does not come before it"));
            }
            Kind::HardLink(_) | Kind::File(_) | Kind::Symlink(_) | Kind::Fifo => {}
        }
    }
    entries.is_empty().then(|| "it has no entries".to_owned())
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("paths, links and headers are far smaller than 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.push(match &entry.kind {
        Kind::Folder => 1,
        Kind::File(_) => 2,
        Kind::Symlink(_) => 3,
        Kind::Fifo => 4,
        Kind::HardLink(_) => 5,
    });
    out.extend_from_slice(&entry.mode.to_le_bytes());
    out.extend_from_slice(&entry.modified.0.to_le_bytes());
    out.extend_from_slice(&entry.modified.1.to_le_bytes());
    put_bytes(out, &entry.path);
    match &entry.kind {
        Kind::Folder | Kind::Fifo => {}
        Kind::File(file) => {
            out.extend_from_slice(&file.size.to_le_bytes());
            out.push(u8::from(file.content.is_some()) | u8::from(file.is_database) << 1);
            out.extend_from_slice(&file.content.map_or([0; 32], |id| id.0));
        }
        Kind::Symlink(target) | Kind::HardLink(target) => put_bytes(out, target),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*first)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(take(rest)?) as usize;
    let (bytes, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(bytes)
}

fn take_entry(rest: &mut &[u8]) -> Option<Entry> {
    let [kind] = take(rest)?;
    let mode = u16::from_le_bytes(take(rest)?);
    let modified = (i64::from_le_bytes(take(rest)?), u32::from_le_bytes(take(rest)?));
    let path = take_bytes(rest)?.to_vec();
    let kind = match kind {
        1 => Kind::Folder,
        2 => {
            let size = u64::from_le_bytes(take(rest)?);
            let [flags] = take(rest)?;
            let id = ChunkId(take(rest)?);
            let content = (flags & 1 != 0).then_some(id);
            Kind::File(FileContent { size, content, is_database: flags & 2 != 0 })
        }
        3 => Kind::Symlink(take_bytes(rest)?.to_vec()),
        4 => Kind::Fifo,
        5 => Kind::HardLink(take_bytes(rest)?.to_vec()),
        _ => return None,
    };
    Some(Entry { path, mode, modified, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use trackbed_core::restore_point::Consistency;

    fn manifest(entries: Vec<Entry>) -> Manifest {
        let (volume, point) = (VolumeId::from_random([1; 10]), RestorePointId::from_random([2; 10]));
        let capture = Capture {
            consistency: Consistency::Instant,
            pause_ms: 3,
            files: 1,
            bytes: 9,
            stored_bytes: 8,
            databases: vec!["a/b.db".to_owned()],
            skipped: Vec::new(),
        };
        let together = vec![(volume.clone(), point.clone())];
        Manifest { header: Header { volume, point, together, capture }, entries }
    }

    fn entry(path: &[u8], kind: Kind) -> Entry {
        Entry { path: path.to_vec(), mode: 0o640, modified: (-5, 999_999_999), kind }
    }

    fn file() -> Kind {
        Kind::File(FileContent { size: 9, content: Some(ChunkId::of(b"x")), is_database: true })
    }

    #[test]
    fn a_manifest_comes_back_whole() {
        let manifest = manifest(vec![
            entry(b"", Kind::Folder),
            entry(b"a", Kind::Folder),
            entry(b"a/b.db", file()),
            entry(b"a/again", Kind::HardLink(b"a/b.db".to_vec())),
            entry(b"caf\xe9", Kind::Symlink(b"/etc/pass\xffwd".to_vec())),
            entry(b"empty", Kind::File(FileContent { size: 0, content: None, is_database: false })),
            entry(b"pipe", Kind::Fifo),
        ]);
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes, Path::new("m")).unwrap(), manifest);
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 0x20;
            let error = Manifest::decode(&bent, Path::new("points/m")).unwrap_err();
            assert!(error.is_damage() && error.to_string().contains("points/m"), "{error}");
        }
    }

    #[test]
    fn a_manifest_that_leads_out_of_the_volume_is_refused() {
        let root = || entry(b"", Kind::Folder);
        for entries in [
            vec![],
            vec![entry(b"a", file())],
            vec![root(), entry(b"../a", file())],
            vec![root(), entry(b"/a", file())],
            vec![root(), entry(b"a/", file())],
            vec![root(), entry(b"l", Kind::Symlink(b"/".to_vec())), entry(b"l/a", file())],
            vec![root(), entry(b"a", file()), entry(b"a", file())],
            vec![root(), entry(b"a", Kind::HardLink(b"../b".to_vec()))],
        ] {
            let bytes = manifest(entries).encode();
            assert!(Manifest::decode(&bytes, Path::new("m")).is_err());
        }
    }
}
