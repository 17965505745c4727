//! Looking into a volume without opening any of its files: an app may hold locks on them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Most entries that are listed or measured; a volume with more is told as at least that much.
const ENTRIES_MAX: usize = 100_000;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link; never followed.
    Link,
    /// A socket, pipe or device.
    Other,
}

/// A file or folder in a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path within the volume, without a leading `/`.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Milliseconds since 1970 UTC.
    pub modified_at: i64,
}

/// Space used and left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes on disk used by the volume.
    pub used_bytes: u64,
    /// Bytes free on its disk for ordinary users.
    pub free_bytes: u64,
}

/// Lists one folder of a volume, by name.
///
/// # Errors
/// When `path` leaves the volume (`..`, a link on the way), or is not a folder in it.
pub fn list_files(volume: &Path, path: &str) -> io::Result<Vec<Entry>> {
    let (folder, relative) = enter(volume, path)?;
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)?.take(ENTRIES_MAX) {
        let entry = entry?;
        // Gone since: an app works here, and SQLite's journals come and go.
        let Ok(metadata) = entry.metadata() else { continue };
        entries.push(Entry {
            path: relative.join(entry.file_name()).to_string_lossy().into_owned(),
            kind: kind_of(&metadata),
            size_bytes: metadata.len(),
            modified_at: metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000,
        });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// Measures a volume.
///
/// # Errors
/// When it cannot be read.
pub fn usage(volume: &Path) -> io::Result<Usage> {
    let disk = nix::sys::statvfs::statvfs(volume)?;
    let free_bytes = disk.blocks_available() * disk.fragment_size();
    let (mut used_bytes, mut seen, mut folders) = (0, 0, vec![volume.to_owned()]);
    while let Some(folder) = folders.pop() {
        // Files come and go while an app runs: one that is gone uses nothing.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            used_bytes += metadata.blocks() * 512;
            seen += 1;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
        if seen > ENTRIES_MAX {
            break;
        }
    }
    Ok(Usage { used_bytes, free_bytes })
}

fn enter(volume: &Path, path: &str) -> io::Result<(PathBuf, PathBuf)> {
    let refuse = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("`{path}` {why}"));
    let (mut folder, mut relative) = (volume.to_owned(), PathBuf::new());
    for part in Path::new(path).components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                folder.push(name);
                relative.push(name);
                let metadata = fs::symlink_metadata(&folder).map_err(|_| refuse("is not in the volume"))?;
                if metadata.is_symlink() {
                    return Err(refuse("leads over a symbolic link"));
                }
                if !metadata.is_dir() {
                    return Err(refuse("is not a folder"));
                }
            }
            Component::ParentDir | Component::Prefix(_) => return Err(refuse("leaves the volume")),
        }
    }
    Ok((folder, relative))
}

fn kind_of(metadata: &fs::Metadata) -> EntryKind {
    let kind = metadata.file_type();
    match (kind.is_file(), kind.is_dir(), kind.is_symlink()) {
        (true, _, _) => EntryKind::File,
        (_, true, _) => EntryKind::Folder,
        (_, _, true) => EntryKind::Link,
        _ => EntryKind::Other,
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use super::*;

    #[test]
    fn listing_never_leaves_the_volume() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/file"), "12345").unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("out")).unwrap();
        let names = |path: &str| {
            list_files(folder.path(), path).map(|list| list.into_iter().map(|e| e.path).collect::<Vec<_>>())
        };
        assert_eq!(names("/").unwrap(), ["out", "sub"]);
        assert_eq!(names("/sub").unwrap(), ["sub/file"]);
        for bad in ["..", "/sub/../..", "/out", "/out/ssl", "/sub/file", "/none"] {
            assert!(names(bad).is_err(), "{bad}");
        }
    }
}
