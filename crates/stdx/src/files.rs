//! Files that are whole or absent: written beside, synced, renamed, and the folder synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};

/// Replaces a file with `contents`, mode `mode`. After a crash the path holds the old contents or the new, never a mix.
///
/// # Errors
/// When the folder is missing or the disk refuses; the old file is untouched then.
pub fn write_atomic(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("a file needs a folder"))?;
    let beside = temporary_beside(path)?;
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    sync_folder(folder)
}

/// Makes the entries of a folder durable.
///
/// # Errors
/// When it cannot be opened or synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Stamps a file or folder with the present time.
///
/// # Errors
/// When it is missing or not ours.
pub fn touch(path: &Path) -> io::Result<()> {
    let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(crate::clock::now_ms()).unwrap_or(0));
    File::open(path)?.set_modified(now)
}

/// Returns a fresh hidden name in the same folder: `.name.<random>.tmp`.
///
/// # Errors
/// When the path has no file name.
pub fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("a file needs a name"))?;
    let tail: String = crate::random::bytes::<6>().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(path.with_file_name(format!(".{}.{tail}.tmp", name.to_string_lossy())))
}

/// Removes a tree or file; one that is already gone is fine. Makes folders writable on the way when it owns them.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let removed = if kind.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && kind.is_dir() => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open_up(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// Takes an exclusive lock on a file, made when absent. Returns none when somebody else holds it. The lock lasts
/// until the returned value is dropped or the process ends, however it ends (flock(2)).
///
/// # Errors
/// When the file cannot be opened.
pub fn try_lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    try_lock_as(path, FlockArg::LockExclusiveNonblock)
}

/// As [`try_lock`], together with others that ask for it in this way.
///
/// # Errors
/// When the file cannot be opened.
pub fn try_lock_shared(path: &Path) -> io::Result<Option<Flock<File>>> {
    try_lock_as(path, FlockArg::LockSharedNonblock)
}

fn try_lock_as(path: &Path, how: FlockArg) -> io::Result<Option<Flock<File>>> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        let tail: String = crate::random::bytes::<6>().iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = std::env::temp_dir().join(format!("trackbed-files-{tail}"));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn an_atomic_write_replaces_the_whole_file_and_leaves_nothing_beside() {
        let folder = scratch();
        let path = folder.join("state");
        write_atomic(&path, b"one, and longer", 0o600).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        remove_tree(&folder).unwrap();
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = scratch();
        fs::create_dir(folder.join("taken")).unwrap();
        assert!(write_atomic(&folder.join("taken"), b"x", 0o600).is_err());
        assert!(folder.join("taken").is_dir());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        remove_tree(&folder).unwrap();
    }

    #[test]
    fn a_shared_lock_keeps_out_those_who_do_not_share() {
        let folder = scratch();
        let path = folder.join("lock");
        let one = try_lock_shared(&path).unwrap();
        let two = try_lock_shared(&path).unwrap();
        assert!(one.is_some() && two.is_some());
        assert!(try_lock(&path).unwrap().is_none());
        drop((one, two));
        let alone = try_lock(&path).unwrap();
        assert!(alone.is_some() && try_lock_shared(&path).unwrap().is_none());
        remove_tree(&folder).unwrap();
    }

    #[test]
    fn a_lock_has_one_holder() {
        let folder = scratch();
        let path = folder.join("lock");
        let held = try_lock(&path).unwrap();
        assert!(held.is_some());
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
        remove_tree(&folder).unwrap();
    }
}
