//! What is in a volume, without opening a database of it as SQLite does: what uses the space, and which files are
//! databases, by their headers.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};

use crate::beneath;
use crate::browse::EntryKind;
use crate::transfer::MAGIC;

/// Most entries that are looked at.
const ENTRIES_MAX: u64 = 1_000_000;
/// Longest look: somebody waits for it.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Deepest folder.
const DEPTH_MAX: usize = 100;
/// Most databases that are named.
const DATABASES_MAX: usize = 1000;
/// Bytes of the header of a database.
const HEADER_BYTES: usize = 100;

/// What a folder uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FolderUse {
    /// What is in it, the largest first.
    pub entries: Vec<EntryUse>,
    /// Bytes on disk, all together.
    pub used_bytes: u64,
    /// Regular files, all together.
    pub files: u64,
    /// Whether there was more than is looked at.
    pub is_cut: bool,
}

/// What a file or folder uses, with all that is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryUse {
    /// Path within the volume, without a leading `/`.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes on disk.
    pub used_bytes: u64,
    /// Regular files.
    pub files: u64,
}

/// A database, as far as its header tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDatabase {
    /// Path within the volume, without a leading `/`.
    pub path: String,
    /// `wal`, or `delete` for every kind of rollback journal: the header knows no more.
    pub journal_mode: String,
    /// The SQLite library that wrote it last; none when it was too old to say.
    pub sqlite_version: Option<String>,
    /// Size of the file in bytes.
    pub size_bytes: u64,
}

/// Measures what is in a folder of a volume; blocks. What comes and goes meanwhile is counted or not.
///
/// # Errors
/// When `path` leaves the volume, leads over a link, or is not a folder.
pub fn folder_use(volume: &Path, path: &str) -> io::Result<FolderUse> {
    let mut folder = beneath::folder(volume)?;
    let trimmed = path.trim_matches('/');
    let mut inside = PathBuf::new();
    if !trimmed.is_empty() {
        let parts = beneath::parts(trimmed.as_bytes())?;
        inside.extend(&parts);
        folder = beneath::descend(&folder, &parts)?;
    }
    let mut walk = Walk::default();
    let mut found = FolderUse::default();
    for name in names(&folder)? {
        let mut used = EntryUse {
            path: inside.join(&name).to_string_lossy().into_owned(),
            kind: EntryKind::Other,
            used_bytes: 0,
            files: 0,
        };
        let kind = walk.enter(&folder, &name, None, 0, &mut |stat, _, _| {
            used.used_bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            used.files += u64::from(FileType::from_raw_mode(stat.st_mode).is_file());
        });
        // Gone since: an app works here.
        let Some(kind) = kind else { continue };
        used.kind = kind;
        found.used_bytes += used.used_bytes;
        found.files += used.files;
        found.entries.push(used);
    }
    found.entries.sort_by(|a, b| b.used_bytes.cmp(&a.used_bytes).then_with(|| a.path.cmp(&b.path)));
    found.is_cut = walk.is_cut;
    Ok(found)
}

/// Finds the databases in a volume, by path; blocks.
///
/// # Errors
/// When the volume cannot be read.
pub fn find_databases(volume: &Path) -> io::Result<Vec<FoundDatabase>> {
    let root = beneath::folder(volume)?;
    let (mut walk, mut found) = (Walk::default(), Vec::new());
    for name in names(&root)? {
        let top = PathBuf::from(&name);
        walk.enter(&root, &name, None, 0, &mut |stat, folder, inside| {
            let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
            if !is_file || stat.st_size < HEADER_BYTES as i64 || found.len() >= DATABASES_MAX {
                return;
            }
            let path = inside.map_or_else(|| top.clone(), |inside| top.join(inside));
            let Some(name) = path.file_name() else { return };
            let Ok(Some((journal_mode, sqlite_version))) = read_header(folder, name) else { return };
            found.push(FoundDatabase {
                path: path.to_string_lossy().into_owned(),
                journal_mode,
                sqlite_version,
                size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            });
        });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Returns whether a path within a volume is a file that begins as a database does.
pub fn is_database(volume: &Path, path: &str) -> bool {
    let look = || {
        let mut parts = beneath::parts(path.trim_matches('/').as_bytes())?;
        let Some(name) = parts.pop() else { return Ok(None) };
        read_header(&beneath::descend(&beneath::folder(volume)?, &parts)?, &name)
    };
    look().is_ok_and(|header| header.is_some())
}

/// Reads what a header tells: journal mode and version (sqlite.org/fileformat2.html, section 1.3).
fn read_header(folder: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<Option<(String, Option<String>)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, name, flags, Mode::empty())?);
    let mut header = [0; HEADER_BYTES];
    if !file.metadata()?.is_file() || file.read_exact(&mut header).is_err() || !header.starts_with(MAGIC) {
        return Ok(None);
    }
    let mode = if header[18] == 2 { "wal" } else { "delete" };
    let number = u32::from_be_bytes([header[96], header[97], header[98], header[99]]);
    let version = format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000);
    Ok(Some((mode.to_owned(), (number != 0).then_some(version))))
}

/// A bounded walk that follows no link and stays on the way beneath its folder.
struct Walk {
    left: u64,
    until: Instant,
    is_cut: bool,
}

impl Default for Walk {
    #[allow(clippy::disallowed_methods, reason = "a limit of work that blocks, not a stamp")]
    fn default() -> Self {
        Self { left: ENTRIES_MAX, until: Instant::now() + TIME_MAX, is_cut: false }
    }
}

/// Hears of an entry: what it is, the folder that holds it, and its path below the one that was entered.
type Visit<'a> = dyn FnMut(&rustix::fs::Stat, &OwnedFd, Option<&Path>) + 'a;

impl Walk {
    /// Looks at an entry of a folder and all below it. Returns what it is; none when it is gone.
    fn enter(
        &mut self,
        folder: &OwnedFd,
        name: &OsString,
        inside: Option<&Path>,
        depth: usize,
        visit: &mut Visit<'_>,
    ) -> Option<EntryKind> {
        if self.left == 0 || Instant::now() > self.until {
            self.is_cut = true;
            return None;
        }
        self.left -= 1;
        let stat = statat(folder, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        visit(&stat, folder, inside);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Folder,
            FileType::Symlink => EntryKind::Link,
            _ => EntryKind::Other,
        };
        if kind != EntryKind::Folder {
            return Some(kind);
        }
        if depth == DEPTH_MAX {
            self.is_cut = true;
            return Some(kind);
        }
        // What cannot be read, or is gone, holds nothing.
        let below = beneath::descend(folder, std::slice::from_ref(name));
        let Ok((below, names)) = below.and_then(|below| names(&below).map(|names| (below, names))) else {
            return Some(kind);
        };
        for child in names {
            let path = inside.map_or_else(|| PathBuf::from(&child), |inside| inside.join(&child));
            self.enter(&below, &child, Some(&path), depth + 1, visit);
        }
        Some(kind)
    }
}

fn names(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name.as_slice() != b"." && name.as_slice() != b".." {
            names.push(OsString::from_vec(name));
        }
        if names.len() as u64 >= ENTRIES_MAX {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn databases_are_known_by_their_headers_and_not_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        for (name, mode) in [("a.bin", "wal"), ("sub/b.sqlite3", "delete")] {
            let database = Connection::open(folder.path().join(name)).unwrap();
            database.pragma_update(None, "journal_mode", mode).unwrap();
            database.execute_batch("CREATE TABLE t (x)").unwrap();
        }
        std::fs::write(folder.path().join("c.db"), vec![b'x'; 4096]).unwrap();
        std::os::unix::fs::symlink("a.bin", folder.path().join("d.db")).unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("etc")).unwrap();
        let found = find_databases(folder.path()).unwrap();
        let told: Vec<_> =
            found.iter().map(|found| (found.path.as_str(), found.journal_mode.as_str())).collect();
        assert_eq!(told, [("a.bin", "wal"), ("sub/b.sqlite3", "delete")]);
        assert_eq!(found[0].sqlite_version.as_deref(), Some(rusqlite::version()));
    }

    #[test]
    fn a_folder_is_measured_with_all_below_it_and_the_largest_stands_first() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("big/deep")).unwrap();
        std::fs::write(folder.path().join("big/deep/x"), vec![1; 1 << 20]).unwrap();
        std::fs::write(folder.path().join("big/y"), "y").unwrap();
        std::fs::write(folder.path().join("small"), "z").unwrap();
        let used = folder_use(folder.path(), "/").unwrap();
        let told: Vec<_> =
            used.entries.iter().map(|entry| (entry.path.as_str(), entry.kind, entry.files)).collect();
        assert_eq!(told, [("big", EntryKind::Folder, 2), ("small", EntryKind::File, 1)]);
        assert!(used.entries[0].used_bytes >= 1 << 20 && used.files == 3 && !used.is_cut);
        assert_eq!(folder_use(folder.path(), "/big/deep").unwrap().entries[0].path, "big/deep/x");
        for bad in ["..", "/big/../..", "small", "none"] {
            assert!(folder_use(folder.path(), bad).is_err(), "{bad}");
        }
    }
}
