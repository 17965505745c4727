//! The layers of images on disk: `layers/<digest>/` and, written last, `layers/<digest>.ok`. What has no `.ok` is not there.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use trackbed_core::image::Layer;
use trackbed_core::ports::{BuildRequest, PortError};
use trackbed_core::{Digest, Secret};
use trackbed_stdx::{files, random};

/// How often, and with which pauses, a folder is removed that a dying job still writes to.
const REMOVAL_TRIES: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(200);

/// What is written into `.ok`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Bytes of all files.
    pub(crate) size_bytes: u64,
    /// What it is, for people: `12 packages`.
    pub(crate) summary: String,
    /// Whether the layer has a `.venv` of its own, so that none may lie below it.
    pub(crate) has_venv: bool,
}

/// The layers of a data directory.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    data_dir: PathBuf,
}

impl Layers {
    /// Uses `layers` and `build` below the data directory.
    pub(crate) fn new(data_dir: PathBuf) -> Self {
        Self { data_dir }
    }

    /// Finds a finished layer.
    pub(crate) fn find(&self, digest: &Digest) -> Option<(Layer, Record)> {
        let record = fs::read(self.data_dir.join(format!("layers/{digest}.ok"))).ok()?;
        let record: Record = serde_json::from_slice(&record).ok()?;
        let path = format!("layers/{digest}");
        self.data_dir
            .join(&path)
            .is_dir()
            .then(|| (Layer { digest: digest.clone(), path, size_bytes: record.size_bytes }, record))
    }

    /// Makes an empty folder to build in, which goes away when dropped.
    pub(crate) fn stage(&self) -> Result<Staging, PortError> {
        let parent = self.data_dir.join("build");
        let tail: String = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
        let path = parent.join(tail);
        let made = fs::create_dir_all(&parent)
            .and_then(|()| fs::set_permissions(&parent, Permissions::from_mode(0o700)))
            .and_then(|()| fs::create_dir(&path))
            // The job runs as another user; nobody else comes through the parent.
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o777)));
        made.map_err(|error| disk(&format!("cannot make {}", path.display()), &error))?;
        Ok(Staging { path })
    }

    /// Takes a folder as a layer: normalises owner and modes, makes it durable, renames it, and marks it finished.
    pub(crate) fn keep(
        &self,
        digest: &Digest,
        from: &Path,
        summary: &str,
    ) -> Result<(Layer, Record), PortError> {
        let kept = (|| {
            let folder = self.data_dir.join("layers");
            fs::create_dir_all(&folder)?;
            let target = folder.join(digest.as_str());
            let size_bytes = settle(from)?;
            let record =
                Record { size_bytes, summary: summary.to_owned(), has_venv: from.join(".venv").is_dir() };
            nix::unistd::syncfs(File::open(from)?)?;
            if self.find(digest).is_none() {
                // Left by a crash between rename and mark.
                files::remove_tree(&target)?;
                fs::rename(from, &target)?;
                files::sync_folder(&folder)?;
                let text = serde_json::to_vec(&record).map_err(io::Error::other)?;
                files::write_atomic(&folder.join(format!("{digest}.ok")), &text, 0o644)?;
            }
            io::Result::Ok(())
        })();
        kept.map_err(|error| disk("cannot keep the layer", &error))?;
        self.find(digest)
            .ok_or_else(|| PortError::new(format!("layer {} vanished while it was kept", digest.short())))
    }

    /// Removes what earlier runs left half made.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        for (folder, prefix) in [("build", ""), ("tmp", "source-")] {
            for entry in fs::read_dir(self.data_dir.join(folder)).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(prefix) {
                    files::remove_tree(&entry.path())?;
                }
            }
        }
        for entry in fs::read_dir(self.data_dir.join("layers")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.parse::<Digest>().is_ok_and(|digest| self.find(&digest).is_none()) {
                files::remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// A folder to build in.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
}

impl Staging {
    /// Returns the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if files::remove_tree(&self.path).is_ok() {
            return;
        }
        // A job that is just being ended may still write here. A thread, not a task: the runtime may be on its way down.
        // What cannot be removed even so is removed by the next sweep.
        let path = std::mem::take(&mut self.path);
        std::thread::spawn(move || {
            for _ in 0..REMOVAL_TRIES {
                std::thread::sleep(REMOVAL_PAUSE);
                if files::remove_tree(&path).is_ok() {
                    return;
                }
            }
        });
    }
}

/// Names a layer by everything that it depends on, each part with its label and length.
pub(crate) fn key(parts: &[(&str, &[u8])]) -> Digest {
    let mut hasher = Sha256::new();
    for (label, part) in parts {
        hasher.update(format!("{label} {}\n", part.len()));
        hasher.update(part);
    }
    Digest::from_bytes(hasher.finalize().into())
}

/// Names the owner's variables that a build command sees: a page with another `VITE_API` in it is another page. What the
/// platform itself gives changes with every deployment and is left out. The values cannot be read back from the name.
pub(crate) fn variables_key(variables: &[(String, Secret<String>)]) -> Digest {
    let is_owners = |name: &str| !name.starts_with("RAILWAY_") && !name.starts_with("TRACKBED_");
    let mut parts: Vec<(&str, &[u8])> = variables
        .iter()
        .filter(|(name, _)| is_owners(name))
        .map(|(name, value)| (name.as_str(), value.expose().as_bytes()))
        .collect();
    parts.sort_unstable();
    key(&parts)
}

/// Gives everything to us, takes write permission from everybody else, lets everybody read; returns the size.
fn settle(path: &Path) -> io::Result<u64> {
    let metadata = fs::symlink_metadata(path)?;
    let me = nix::unistd::geteuid();
    if me.is_root() && metadata.uid() != 0 {
        lchown(path, Some(0), Some(0))?;
    }
    if metadata.is_symlink() {
        return Ok(0);
    }
    let executable = metadata.is_dir() || metadata.mode() & 0o100 != 0;
    let mode = if executable { 0o755 } else { 0o644 };
    if metadata.mode() & 0o7777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    fs::read_dir(path)?.try_fold(0, |size, entry| Ok(size + settle(&entry?.path())?))
}

/// Copies a tree so that a job of another user may change it.
pub(crate) fn copy_writable(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let metadata = fs::symlink_metadata(entry.path())?;
        if metadata.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else if metadata.is_dir() {
            if !target.is_dir() {
                fs::create_dir(&target)?;
            }
            fs::set_permissions(&target, Permissions::from_mode(0o777))?;
            copy_writable(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            let mode = 0o666 | (metadata.mode() & 0o111);
            fs::set_permissions(&target, Permissions::from_mode(mode))?;
            // The interpreter trusts bytecode by the time of its source file.
            File::open(&target)?.set_modified(metadata.modified()?)?;
        }
    }
    Ok(())
}

/// The source as it is, as a layer.
pub(crate) fn source_layer(data_dir: &Path, request: &BuildRequest) -> Layer {
    let path = request.source.path.strip_prefix(data_dir).unwrap_or(&request.source.path);
    Layer {
        digest: request.source.digest.clone(),
        path: path.display().to_string(),
        size_bytes: size_of(&request.source.path),
    }
}

fn size_of(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Writes a file that a job may change, in folders that it may write to.
pub(crate) fn write_for_job(folder: &Path, path: &str, text: &[u8]) -> io::Result<()> {
    let path = folder.join(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
        // Every folder on the way belongs to the job too.
        fs::set_permissions(parent, Permissions::from_mode(0o777))?;
    }
    files::write_atomic(&path, text, 0o666)
}

/// Whether two trees have the same names, sizes and times, bytecode apart.
pub(crate) fn same(one: &Path, other: &Path) -> bool {
    let names = |path: &Path| -> Option<Vec<std::ffi::OsString>> {
        let mut names: Vec<_> = fs::read_dir(path).ok()?.flatten().map(|entry| entry.file_name()).collect();
        names.retain(|name| name != "__pycache__");
        names.sort();
        Some(names)
    };
    let (Some(left), Some(right)) = (names(one), names(other)) else { return false };
    left == right
        && left.iter().all(|name| {
            let (one, other) = (one.join(name), other.join(name));
            let (Ok(a), Ok(b)) = (fs::symlink_metadata(&one), fs::symlink_metadata(&other)) else {
                return false;
            };
            if a.is_dir() && b.is_dir() {
                return same(&one, &other);
            }
            if a.is_symlink() || b.is_symlink() {
                return fs::read_link(&one).ok() == fs::read_link(&other).ok();
            }
            a.len() == b.len() && a.modified().ok() == b.modified().ok()
        })
}

/// The hint of a full disk, until [`name_disk`] says which: at the wall of the crate, where the data directory is known.
pub(crate) const DISK_FULL: &str = "free space on the disk of the box; then deploy again";

/// An error of the disk, which names a full one.
pub(crate) fn disk(attempt: &str, error: &io::Error) -> PortError {
    let said = PortError::new(format!("{attempt}: {error}"));
    if error.kind() == io::ErrorKind::StorageFull {
        return said.hint(DISK_FULL);
    }
    said
}

/// Names the disk in the hint of an error that a full one made.
pub(crate) fn name_disk(error: PortError, data_dir: &Path) -> PortError {
    if error.hint.as_deref() != Some(DISK_FULL) {
        return error;
    }
    let message = error.message.clone();
    PortError::new(message).hint(format!(
        "free space on the disk of {}, or make it larger; then deploy again",
        data_dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_there_only_when_it_was_finished() {
        let data_dir = tempfile::tempdir().unwrap();
        let layers = Layers::new(data_dir.path().to_owned());
        let digest = key(&[("a", b"b")]);
        let staging = layers.stage().unwrap();
        fs::create_dir(staging.path().join("x")).unwrap();
        files::write_atomic(&staging.path().join("x/y"), b"12345", 0o600).unwrap();
        let (layer, record) = layers.keep(&digest, &staging.path().join("x"), "s").unwrap();
        assert_eq!((layer.size_bytes, record.has_venv), (5, false));
        let file = data_dir.path().join(&layer.path).join("y");
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o644);
        drop(staging);
        fs::remove_file(data_dir.path().join(format!("layers/{digest}.ok"))).unwrap();
        assert!(layers.find(&digest).is_none());
        fs::create_dir_all(data_dir.path().join("build/left/over")).unwrap();
        layers.sweep().unwrap();
        assert_eq!(fs::read_dir(data_dir.path().join("build")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(data_dir.path().join("layers")).unwrap().count(), 0);
        assert_ne!(key(&[("a", b"bc")]), key(&[("a", b"b"), ("c", b"")]));
    }

    #[test]
    fn a_full_disk_is_named() {
        let data_dir = Path::new("/data/box");
        let full = name_disk(disk("cannot keep the layer", &io::ErrorKind::StorageFull.into()), data_dir);
        assert!(full.hint.is_some_and(|hint| hint.starts_with("free space on the disk of /data/box")));
        let other = disk("cannot keep the layer", &io::ErrorKind::PermissionDenied.into());
        assert_eq!(name_disk(other, data_dir).hint, None);
    }
}
