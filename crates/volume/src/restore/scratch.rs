//! Places that last as long as somebody looks at them. What a crash leaves behind is removed by the next one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;
use trackbed_stdx::{files, random};

/// How often a fresh name is tried, when somebody sweeps at the same moment.
const ATTEMPTS: u32 = 10;
const LOCK: &str = "lock";

/// A folder that is removed when this is dropped. Whoever lives holds the lock beside it.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: PathBuf,
    lock_path: PathBuf,
    lock: Option<Flock<File>>,
}

impl Scratch {
    /// Removes what nobody holds any more, and makes a new place.
    pub(super) fn make(root: &Path) -> io::Result<Self> {
        // Others may pass through to what is theirs, not look.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(root)?;
        sweep(root)?;
        for _ in 0..ATTEMPTS {
            let name: String = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
            let lock_path = root.join(format!("{name}.{LOCK}"));
            let Some(lock) = files::try_lock(&lock_path)? else { continue };
            // A sweep may have removed the file between its making and its locking.
            let is_there = fs::metadata(&lock_path).is_ok_and(|path| {
                lock.metadata().is_ok_and(|held| (held.dev(), held.ino()) == (path.dev(), path.ino()))
            });
            if is_there {
                let folder = root.join(name);
                fs::DirBuilder::new().mode(0o711).create(&folder)?;
                return Ok(Self { folder, lock_path, lock: Some(lock) });
            }
        }
        Err(io::Error::other(format!("cannot make a place in {}", root.display())))
    }

    /// Makes an empty folder in it.
    pub(super) fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (folder, lock_path, lock) = (self.folder.clone(), self.lock_path.clone(), self.lock.take());
        let remove = move || {
            if let Err(error) = files::remove_tree(&folder).and_then(|()| files::remove_tree(&lock_path)) {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove a scratch place");
            }
            drop(lock);
        };
        // Where it is dropped on a thread that others need, another one does it.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Removes the places that nobody holds.
pub(super) fn sweep(root: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let lock_path = if path.extension().is_some_and(|end| end == LOCK) {
            path.clone()
        } else {
            path.with_extension(LOCK)
        };
        if let Some(lock) = files::try_lock(&lock_path)? {
            files::remove_tree(&lock_path.with_extension(""))?;
            files::remove_tree(&lock_path)?;
            drop(lock);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_goes_with_its_holder_and_what_a_crash_left_goes_with_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("scratch");
        let living = Scratch::make(&root).unwrap();
        fs::create_dir_all(root.join("0011223344556677/data/sub")).unwrap();
        let other = Scratch::make(&root).unwrap();
        assert!(!root.join("0011223344556677").exists());
        assert!(living.folder("data").unwrap().is_dir() && other.folder("data").unwrap().is_dir());
        drop((living, other));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }
}
