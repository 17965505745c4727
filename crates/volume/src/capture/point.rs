//! From a volume as it was read to a restore point: the manifest, written when all that it names is durable.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;

use trackbed_core::ports::PointData;
use trackbed_core::restore_point::{Capture, Consistency};
use trackbed_stdx::files;

use super::live::{Pass, is_shared_memory};
use crate::chunk_store::{SnapshotStore, StoreError};
use crate::crash;
use crate::manifest::{Entry, FileContent, Header, Kind, Manifest};
use crate::walk::FoundKind;

/// Entries that were left out and are named; more are counted.
const SKIPPED_NAMED_MAX: usize = 20;

/// What a capture came to beyond the files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) consistency: Consistency,
    pub(crate) pause_ms: u64,
    pub(crate) stored_bytes: u64,
}

/// Makes the manifest of a point. `notes` are more things that its owner should know of, besides what is left out.
pub(crate) fn manifest(
    data: &PointData,
    together: &[PointData],
    pass: &Pass,
    facts: Facts,
    notes: Vec<String>,
) -> Manifest {
    let mut entries = Vec::with_capacity(pass.found.len());
    let mut first_names: HashMap<u64, &[u8]> = HashMap::new();
    let (mut skipped, mut left_out) = (notes, 0usize);
    let mut capture = Capture {
        consistency: facts.consistency,
        pause_ms: facts.pause_ms,
        files: 0,
        bytes: 0,
        stored_bytes: facts.stored_bytes,
        databases: Vec::new(),
        skipped: Vec::new(),
    };
    for found in &pass.found {
        let shown = || String::from_utf8_lossy(&found.path);
        let mut skip = |why: &str| {
            left_out += 1;
            if left_out <= SKIPPED_NAMED_MAX {
                skipped.push(format!("{}: {why}", shown()));
            }
        };
        let kind = match &found.kind {
            FoundKind::Folder => Kind::Folder,
            FoundKind::Symlink(target) => Kind::Symlink(target.clone()),
            FoundKind::Fifo => Kind::Fifo,
            FoundKind::Other(what) => {
                skip(what);
                continue;
            }
            FoundKind::File if is_shared_memory(&found.path, &pass.stamps) => continue,
            FoundKind::File => {
                match (first_names.get(&found.stamp.inode), pass.stamps.files.get(&found.path)) {
                    (Some(first), _) => Kind::HardLink(first.to_vec()),
                    (None, Some(known)) => {
                        if found.links > 1 {
                            first_names.insert(found.stamp.inode, &found.path);
                        }
                        capture.files += 1;
                        capture.bytes += known.file.size;
                        if known.file.is_database {
                            capture.databases.push(shown().into_owned());
                        }
                        Kind::File(FileContent { ..known.file })
                    }
                    (None, None) => {
                        skip("it was gone or could not be read when its turn came");
                        continue;
                    }
                }
            }
        };
        entries.push(Entry {
            path: found.path.clone(),
            mode: found.mode,
            modified: found.stamp.modified,
            kind,
        });
    }
    if let Some(more) = left_out.checked_sub(SKIPPED_NAMED_MAX).filter(|more| *more > 0) {
        skipped.push(format!("and {more} more"));
    }
    capture.skipped = skipped;
    let together = together.iter().map(|data| (data.volume.clone(), data.point.clone())).collect();
    let header = Header { volume: data.volume.clone(), point: data.point.clone(), together, capture };
    Manifest { header, entries }
}

/// Writes manifests, all or none of them as far as the disk can be asked. With it the points exist.
pub(crate) fn write(store: &SnapshotStore, manifests: &[Manifest]) -> Result<(), StoreError> {
    crash::point("before manifests");
    let mut written = Vec::new();
    for manifest in manifests {
        let path = store.manifest_path(&manifest.data());
        let folder = path.parent().unwrap_or(&path).to_owned();
        let wrote = (|| {
            if !folder.is_dir() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
                files::sync_folder(folder.parent().unwrap_or(&folder))?;
            }
            files::write_atomic(&path, &manifest.encode(), 0o600)
        })();
        written.push(path.clone());
        if let Err(error) = wrote {
            for path in written {
                // Worse than left over: a point of which the caller does not know. A collection removes it.
                let _ = files::remove_tree(&path);
            }
            return Err(StoreError::disk("write the manifest", &path, error));
        }
        crash::point("a manifest");
    }
    Ok(())
}
