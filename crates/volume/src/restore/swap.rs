//! Puts one folder in the place of another. Both exist at every moment, one of them as the volume's data.
//!
//! Where the disk can exchange two names at once, that is all. Elsewhere three renames do it, written down beforehand in
//! `swap.json` beside the volume's data, and whoever comes next finishes them: before that nobody finds the volume.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use trackbed_stdx::files;

use super::lock;

/// Which folder this is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FolderId {
    device: u64,
    inode: u64,
}

impl FolderId {
    /// Returns the id of a folder, or none when there is none.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                Ok(Some(Self { device: metadata.dev(), inode: metadata.ino() }))
            }
            Ok(_) => Err(io::Error::other(format!("`{}` is not a folder", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How names are exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// At once, and in steps where the disk cannot.
    Best,
    /// In steps.
    #[cfg_attr(not(test), expect(dead_code, reason = "no disk at hand forces it"))]
    Steps,
}

/// What is to be exchanged.
pub(super) struct Exchange<'a> {
    /// The folder of the volume, with `data` in it.
    pub(super) volume: &'a Path,
    /// The name of the stage, whose `data` becomes the volume's.
    pub(super) stage: &'a str,
    pub(super) way: Way,
    /// Called before each step; a test interrupts there.
    pub(super) before: &'a dyn Fn(&str) -> io::Result<()>,
}

/// The three renames, so far as they are not done.
#[derive(Debug, Serialize, Deserialize)]
struct Intent {
    stage: String,
    incoming: FolderId,
}

const DATA: &str = "data";
const INTENT: &str = "swap.json";

pub(super) fn stage_folder(volume: &Path, stage: &str) -> PathBuf {
    volume.join("stages").join(stage)
}

impl Exchange<'_> {
    /// Exchanges the data of volume and stage. The caller has the volume's lock and has finished what was begun earlier.
    pub(super) fn run(&self) -> io::Result<()> {
        let (data, stage) = (self.volume.join(DATA), stage_folder(self.volume, self.stage));
        let staged = stage.join(DATA);
        if self.way == Way::Best {
            (self.before)("exchange")?;
            match renameat_with(CWD, &data, CWD, &staged, RenameFlags::EXCHANGE) {
                Ok(()) => {
                    (self.before)("sync")?;
                    files::sync_folder(&stage)?;
                    return files::sync_folder(self.volume);
                }
                // A disk, or a kernel, that cannot.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let incoming = FolderId::of(&staged)?
            .ok_or_else(|| io::Error::other(format!("nothing is staged in `{}`", stage.display())))?;
        let intent = Intent { stage: self.stage.to_owned(), incoming };
        (self.before)("intent")?;
        files::write_atomic(&self.volume.join(INTENT), &serde_json::to_vec(&intent)?, 0o600)?;
        finish_steps(self.volume, &intent, self.before)
    }
}

/// Finishes an exchange that was begun in steps, if there is one. The caller has the volume's lock.
pub(super) fn finish_locked(volume: &Path) -> io::Result<()> {
    match read_intent(volume)? {
        Some(intent) => finish_steps(volume, &intent, &|_| Ok(())),
        None => Ok(()),
    }
}

/// As [`finish_locked`], for whoever is about to use the volume and has no lock yet.
///
/// # Errors
/// When somebody has the lock: between the steps nobody may.
pub(crate) fn finish(volume: &Path, lock: &Path) -> io::Result<()> {
    if read_intent(volume)?.is_none() {
        return Ok(());
    }
    match lock::take_free(lock)? {
        Some(_lock) => finish_locked(volume),
        None => Err(io::Error::other("its data is being replaced at this moment")),
    }
}

fn read_intent(volume: &Path) -> io::Result<Option<Intent>> {
    let path = volume.join(INTENT);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| io::Error::other(format!("`{}` is not readable: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn finish_steps(volume: &Path, intent: &Intent, before: &dyn Fn(&str) -> io::Result<()>) -> io::Result<()> {
    let stage = stage_folder(volume, &intent.stage);
    let (data, staged, aside) = (volume.join(DATA), stage.join(DATA), stage.join("replaced"));
    let rename = |what: &str, from: &Path, to: &Path| {
        before(what)?;
        if FolderId::of(to)?.is_some() {
            return Err(io::Error::other(format!("`{}` is in the way", to.display())));
        }
        fs::rename(from, to)?;
        files::sync_folder(volume)?;
        files::sync_folder(&stage)
    };
    if FolderId::of(&data)?.is_some_and(|id| id != intent.incoming) {
        rename("aside", &data, &aside)?;
    }
    if FolderId::of(&data)?.is_none() {
        rename("in", &staged, &data)?;
    }
    if FolderId::of(&aside)?.is_some() {
        rename("keep", &aside, &staged)?;
    }
    before("forget")?;
    fs::remove_file(volume.join(INTENT))?;
    files::sync_folder(volume)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use super::*;
    use std::cell::Cell;

    struct World {
        folder: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (path, text) in [("data", "old"), ("stages/s/data", "new")] {
                fs::create_dir_all(folder.path().join(path)).unwrap();
                fs::write(folder.path().join(path).join("file"), text).unwrap();
            }
            Self { folder }
        }

        fn read(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.folder.path().join(path).join("file")).ok()
        }

        fn run(&self, way: Way, before: &dyn Fn(&str) -> io::Result<()>) -> io::Result<()> {
            Exchange { volume: self.folder.path(), stage: "s", way, before }.run()
        }
    }

    #[test]
    fn an_exchange_that_is_interrupted_at_any_step_is_as_before_or_is_finished_by_the_next() {
        for way in [Way::Best, Way::Steps] {
            for interrupted_at in 0.. {
                let world = World::new();
                let step = Cell::new(0);
                let before = |_: &str| {
                    step.set(step.get() + 1);
                    if step.get() > interrupted_at { Err(io::Error::other("power cut")) } else { Ok(()) }
                };
                let done = world.run(way, &before);
                let all = (world.read("data"), world.read("stages/s/data"), world.read("stages/s/replaced"));
                let texts = [&all.0, &all.1, &all.2];
                for text in ["old", "new"] {
                    let count = texts.iter().filter(|found| found.as_deref() == Some(text)).count();
                    assert_eq!(count, 1, "{text} at step {interrupted_at}: {all:?}");
                }
                finish(world.folder.path(), &world.folder.path().join("lock")).unwrap();
                let end = (world.read("data").unwrap(), world.read("stages/s/data").unwrap());
                let (old, new) = ("old".to_owned(), "new".to_owned());
                assert!(end == (old.clone(), new.clone()) || end == (new.clone(), old), "{end:?}");
                assert!(!world.folder.path().join(INTENT).exists());
                if done.is_ok() {
                    assert_eq!(end.0, new);
                    assert!(interrupted_at >= 2, "{way:?} has steps");
                    break;
                }
            }
        }
    }
}
