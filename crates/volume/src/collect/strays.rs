//! What a crash left: packs without an index, files that were half written, scratch space.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use trackbed_core::VolumeId;
use trackbed_stdx::{clock, files};

use super::{names_in, remove_file};
use crate::chunk_store::{SnapshotStore, StoreError};

/// Files that are written beside others are let lie for so long: not only captures write such.
const HALF_WRITTEN_KEPT_MS: i64 = 60 * 60 * 1000;

/// Removes what belongs to nothing, and returns the bytes that it freed. No capture may be under way. `exists` says whether
/// a volume does.
pub(super) fn remove(store: &SnapshotStore, exists: impl Fn(&VolumeId) -> bool) -> Result<u64, StoreError> {
    let mut freed = 0;
    let packs = store.packs();
    let names = names_in(&packs)?;
    let indexed: HashSet<&str> = names.iter().filter_map(|name| name.strip_suffix(".index")).collect();
    for name in &names {
        let of_pack = name.strip_suffix(".pack").or_else(|| name.strip_suffix(".doubt"));
        if of_pack.is_some_and(|pack| !indexed.contains(pack)) {
            freed += remove_file(&packs.join(name))?;
        }
    }
    freed += remove_half_written(&packs, &names)?;
    for volume in names_in(&store.points())? {
        let folder = store.points().join(&volume);
        let names = names_in(&folder)?;
        freed += remove_half_written(&folder, &names)?;
        for point in names.iter().filter_map(|name| name.strip_suffix(".content.json")) {
            if !point.starts_with('.') && !names.contains(&format!("{point}.manifest")) {
                freed += remove_file(&folder.join(format!("{point}.content.json")))?;
            }
        }
    }
    let stamps = store.stamps();
    let names = names_in(&stamps)?;
    freed += remove_half_written(&stamps, &names)?;
    for name in names {
        if name.parse::<VolumeId>().is_ok_and(|volume| !exists(&volume)) {
            freed += remove_file(&stamps.join(name))?;
        }
    }
    for name in names_in(&store.scratch())? {
        let folder = store.scratch().join(name);
        for file in names_in(&folder)? {
            freed += remove_file(&folder.join(file))?;
        }
        files::remove_tree(&folder).map_err(|error| StoreError::disk("remove", &folder, error))?;
    }
    Ok(freed)
}

fn remove_half_written(folder: &Path, names: &[String]) -> Result<u64, StoreError> {
    let mut freed = 0;
    for name in names.iter().filter(|name| name.starts_with('.') && name.ends_with(".tmp")) {
        let path = folder.join(name);
        let Ok(modified) = fs::symlink_metadata(&path).map(|metadata| {
            use std::os::unix::fs::MetadataExt;
            metadata.mtime().saturating_mul(1000)
        }) else {
            continue;
        };
        if clock::now_ms() - modified > HALF_WRITTEN_KEPT_MS {
            freed += remove_file(&path)?;
        }
    }
    Ok(freed)
}
