//! Files that move into a volume from elsewhere: copied beside, made durable, then linked under their names. What is
//! there already is never replaced.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fstat, linkat, openat, unlinkat};
use rustix::io::Errno;
use trackbed_core::ports::{AdoptedFile, PortError, VolumePlace};
use trackbed_core::volume::Volume;
use trackbed_stdx::random;

use crate::beneath;
use crate::place::LocalVolumes;
use crate::restore::lock;

/// Bytes that are compared at once.
const PIECE_BYTES: usize = 256 * 1024;

impl LocalVolumes {
    pub(crate) async fn adopt_files(&self, volume: &Volume, files: &[AdoptedFile]) -> Result<(), PortError> {
        let (place, name, files) = (self.place(&volume.id), volume.name.to_string(), files.to_vec());
        let adopted = tokio::task::spawn_blocking(move || adopt(&place, &name, &files)).await;
        adopted.unwrap_or_else(|error| Err(PortError::new(format!("the adoption ended badly: {error}"))))
    }
}

/// All copies are complete and durable before the first of them gets its name.
fn adopt(place: &VolumePlace, volume: &str, files: &[AdoptedFile]) -> Result<(), PortError> {
    let _lock = lock::take(&place.lock, &format!("volume `{volume}`"))?;
    let root = beneath::folder(&place.directory)
        .map_err(|error| PortError::new(format!("cannot open volume `{volume}`: {error}")))?;
    let mut copies: Vec<Copy> = Vec::new();
    let copied = files.iter().try_for_each(|file| {
        if let Some(copy) = Copy::make(&root, file)? {
            copies.push(copy);
        }
        Ok(())
    });
    let named = copied.and_then(|()| copies.iter().try_for_each(Copy::give_name));
    for copy in &copies {
        copy.clear();
    }
    // One that got its name before another was refused stays: it is what the next attempt would put there.
    named.map_err(|(file, error): (String, io::Error)| {
        let port = PortError::new(format!("cannot adopt {file} into volume `{volume}`: {error}"));
        match error.kind() {
            io::ErrorKind::AlreadyExists => port.hint("rename or remove what is there, then adopt again"),
            io::ErrorKind::StorageFull => port.hint("free some disk space; nothing has changed"),
            _ => port,
        }
    })
}

/// A copy beside the name that it gets.
struct Copy {
    to: String,
    folder: OwnedFd,
    beside: String,
    name: OsString,
}

type Named<T> = Result<T, (String, io::Error)>;

impl Copy {
    /// Copies a file, or finds that the same is there already.
    fn make(root: &OwnedFd, file: &AdoptedFile) -> Named<Option<Copy>> {
        Self::try_make(root, file).map_err(|error| (file.to.clone(), error))
    }

    fn try_make(root: &OwnedFd, file: &AdoptedFile) -> io::Result<Option<Copy>> {
        let mut parts = beneath::parts(file.to.as_bytes())?;
        let name = parts.pop().ok_or_else(|| io::Error::other("it has no name"))?;
        let owner = fstat(root)?;
        let owner = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
        let (folder, _) = beneath::make_folders(root, &parts, owner)?;
        let mut from = open(&file.from)?;
        if let Some(there) = find(&folder, &name)? {
            return match is_same(&mut from, there)? {
                true => Ok(None),
                false => Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else has that name")),
            };
        }
        let hex: String = random::bytes::<6>().iter().map(|byte| format!("{byte:02x}")).collect();
        let beside = format!(".trackbed-adopt-{hex}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut to = File::from(openat(&folder, beside.as_str(), flags, Mode::from_raw_mode(0o600))?);
        let copy = Copy { to: file.to.clone(), folder, beside, name };
        let written = (|| {
            io::copy(&mut from, &mut to)?;
            beneath::give_to(&to, owner)?;
            fchmod(&to, Mode::from_raw_mode(fstat(&from)?.st_mode & 0o777))?;
            to.sync_all()
        })();
        match written {
            Ok(()) => Ok(Some(copy)),
            Err(error) => {
                copy.clear();
                Err(error)
            }
        }
    }

    /// A hard link, because a rename would replace what came to that name meanwhile.
    fn give_name(&self) -> Named<()> {
        let linked =
            linkat(&self.folder, self.beside.as_str(), &self.folder, self.name.as_os_str(), AtFlags::empty());
        let synced = linked.map_err(io::Error::from).and_then(|()| beneath::sync(&self.folder));
        synced.map_err(|error| (self.to.clone(), error))
    }

    fn clear(&self) {
        match unlinkat(&self.folder, self.beside.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => tracing::warn!(file = self.beside, %error, "cannot remove a copy beside its name"),
        }
    }
}

/// Opens a regular file of an instance that has ended; a link is not followed.
fn open(path: &std::path::Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other(format!("{} is not a regular file", path.display()))),
    }
}

fn find(folder: &OwnedFd, name: &OsString) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(folder, name.as_os_str(), flags, Mode::empty()) {
        Ok(found) => Ok(Some(File::from(found))),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "a link has that name")),
        Err(error) => Err(error.into()),
    }
}

/// Compares by content. `from` is at its beginning afterwards no longer.
fn is_same(from: &mut File, mut there: File) -> io::Result<bool> {
    let (ours, theirs) = (from.metadata()?, there.metadata()?);
    if !theirs.is_file() || ours.len() != theirs.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut left = ours.len();
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        from.read_exact(&mut one[..count])?;
        there.read_exact(&mut other[..count])?;
        if one[..count] != other[..count] {
            return Ok(false);
        }
        left -= count as u64;
    }
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use tempfile::TempDir;

    struct Rig {
        folder: TempDir,
        place: VolumePlace,
    }

    fn rig() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let place = VolumePlace { directory: folder.path().join("data"), lock: folder.path().join("lock") };
        fs::create_dir(&place.directory).unwrap();
        fs::write(&place.lock, "").unwrap();
        Rig { folder, place }
    }

    impl Rig {
        fn file(&self, name: &str, content: &str, to: &str) -> AdoptedFile {
            let from: PathBuf = self.folder.path().join(name);
            fs::write(&from, content).unwrap();
            AdoptedFile { from, to: to.into() }
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.place.directory).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn files_are_copied_with_their_folders_and_again_changes_nothing() {
        let rig = rig();
        let files = [rig.file("a", "database", "ba.db"), rig.file("b", "deep", "chroma/x/data.bin")];
        adopt(&rig.place, "data", &files).unwrap();
        adopt(&rig.place, "data", &files).unwrap();
        assert_eq!(rig.names(), ["ba.db", "chroma"]);
        assert_eq!(fs::read(rig.place.directory.join("ba.db")).unwrap(), b"database");
        assert_eq!(fs::read(rig.place.directory.join("chroma/x/data.bin")).unwrap(), b"deep");
    }

    #[test]
    fn what_is_there_is_never_replaced_and_then_nothing_is_copied() {
        let rig = rig();
        fs::write(rig.place.directory.join("ba.db"), "other data").unwrap();
        let files = [rig.file("a", "new", "new.db"), rig.file("b", "mine", "ba.db")];
        let error = adopt(&rig.place, "data", &files).unwrap_err();
        assert!(error.message.contains("something else has that name"), "{error}");
        assert!(error.hint.is_some());
        assert_eq!(rig.names(), ["ba.db"]);
        assert_eq!(fs::read(rig.place.directory.join("ba.db")).unwrap(), b"other data");
    }

    #[test]
    fn nothing_leaves_the_volume_and_no_link_is_followed() {
        let rig = rig();
        std::os::unix::fs::symlink("/tmp", rig.place.directory.join("out")).unwrap();
        for to in ["../x", "/etc/x", "out/x", "out"] {
            let file = rig.file("a", "x", to);
            assert!(adopt(&rig.place, "data", &[file]).is_err(), "{to}");
        }
        std::os::unix::fs::symlink("/etc/passwd", rig.folder.path().join("trap")).unwrap();
        let trap = AdoptedFile { from: rig.folder.path().join("trap"), to: "passwd".into() };
        assert!(adopt(&rig.place, "data", &[trap]).is_err());
        assert_eq!(rig.names(), ["out"]);
    }

    #[test]
    fn a_volume_that_is_in_use_is_refused() {
        let rig = rig();
        let _held = trackbed_stdx::files::try_lock(&rig.place.lock).unwrap().unwrap();
        let file = rig.file("a", "x", "x");
        let error = adopt(&rig.place, "data", &[file]).unwrap_err();
        assert!(error.message.contains("in use"), "{error}");
    }
}
