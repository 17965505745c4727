//! Files out of a volume and into it, while an app may use it: no link is followed, and a file is there whole or not at
//! all.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, openat, renameat, statat, unlinkat,
};
use trackbed_stdx::random;

use crate::beneath;

/// How every SQLite database begins.
pub(crate) const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Bytes copied at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Deepest folder that goes into a tar.
const DEPTH_MAX: usize = 100;
/// The mode of a file that was not there before.
const NEW_FILE: u32 = 0o644;

/// Something to be read out of a volume.
#[derive(Debug)]
pub enum Reading {
    /// A regular file.
    File {
        /// Open for reading. An app may write it meanwhile: take it for what it is.
        file: File,
        /// Its size when it was opened.
        size_bytes: u64,
    },
    /// A folder, to be read as a tar.
    Folder(FolderReading),
}

/// A folder that can be read as a tar.
#[derive(Debug)]
pub struct FolderReading {
    folder: OwnedFd,
}

/// Whether a file may take the place of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Only of other files: an app that has the database open would go on with the old one, and a log beside it would be
    /// applied to the new one.
    Files,
    /// Also of a database, because nobody has it open; logs that lie beside it are removed.
    DatabasesToo,
}

/// Opens a file or folder of a volume for reading.
///
/// # Errors
/// When `path` leaves the volume, leads over a link, is not there, or is neither file nor folder.
pub fn read_file(volume: &Path, path: &str) -> io::Result<Reading> {
    let root = beneath::folder(volume)?;
    let trimmed = path.trim_matches('/');
    if trimmed.is_empty() {
        return Ok(Reading::Folder(FolderReading { folder: root }));
    }
    let mut parts = beneath::parts(trimmed.as_bytes())?;
    let Some(name) = parts.pop() else { return Ok(Reading::Folder(FolderReading { folder: root })) };
    let folder = beneath::descend(&root, &parts)?;
    let stat = look(&folder, &name)?.ok_or_else(|| refuse(path, "is not in the volume"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            Ok(Reading::Folder(FolderReading { folder: beneath::descend(&folder, &[name])? }))
        }
        FileType::RegularFile => {
            let file = open_regular(&folder, &name)?;
            let size_bytes = file.metadata()?.len();
            Ok(Reading::File { file, size_bytes })
        }
        FileType::Symlink => Err(refuse(path, "is a symbolic link")),
        _ => Err(refuse(path, "is neither a file nor a folder")),
    }
}

impl FolderReading {
    /// Writes the folder and all below it as a tar; blocks. Sockets, pipes and devices are left out, and what is gone by
    /// the time it is reached. A file that grows meanwhile is cut off at the size that it had, one that shrinks is filled
    /// up with zeros.
    ///
    /// # Errors
    /// When a file cannot be read, or `out` refuses.
    pub fn write_tar(self, out: impl Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(out);
        tar.mode(tar::HeaderMode::Complete);
        append(&mut tar, &self.folder, Path::new(""), 0)?;
        tar.finish()
    }
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    folder: &OwnedFd,
    prefix: &Path,
    depth: usize,
) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!("`{}` lies deeper than {DEPTH_MAX} folders", prefix.display())));
    }
    let mut names: Vec<OsString> = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(std::os::unix::ffi::OsStringExt::from_vec(name));
        }
    }
    names.sort();
    for name in names {
        // Gone since: an app works here.
        let Some(stat) = look(folder, &name)? else { continue };
        let path = prefix.join(&name);
        let mut header = tar::Header::new_gnu();
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(u64::from(stat.st_uid));
        header.set_gid(u64::from(stat.st_gid));
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(0);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, &path, io::empty())?;
                append(tar, &beneath::descend(folder, &[name])?, &path, depth + 1)?;
            }
            FileType::RegularFile => {
                let file = open_regular(folder, &name)?;
                let size = file.metadata()?.len();
                header.set_size(size);
                tar.append_data(&mut header, &path, file.chain(io::repeat(0)).take(size))?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name.as_os_str(), Vec::new())?;
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, &path, std::ffi::OsStr::from_bytes(target.as_bytes()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes a file into a folder of a volume: beside, made durable, then renamed into its place. It gets the mode and owner
/// of the file that it replaces, else those of the folder's files. Folders that are missing on the way are made, and belong
/// to the owner of the volume. Returns its size; blocks.
///
/// # Errors
/// When `path` leaves the volume, leads over a link, or names something else than a file; when it would replace a database and may not; when `contents` breaks off or holds more than `bytes_max`. Then nothing has
/// changed.
pub fn write_file(
    volume: &Path,
    path: &str,
    contents: &mut dyn Read,
    bytes_max: u64,
    replace: Replace,
) -> io::Result<u64> {
    let root = beneath::folder(volume)?;
    let mut parts = beneath::parts(path.trim_start_matches('/').as_bytes())?;
    let name = parts.pop().ok_or_else(|| refuse(path, "names no file"))?;
    let owner = rustix::fs::fstat(&root)?;
    let owner = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
    let (folder, made) = beneath::make_folders(&root, &parts, owner)?;
    let written = write_into(&folder, path, &name, contents, bytes_max, replace);
    if written.is_err() {
        beneath::remove_folders(&root, &parts, made);
    }
    written
}

fn write_into(
    folder: &OwnedFd,
    path: &str,
    name: &OsString,
    contents: &mut dyn Read,
    bytes_max: u64,
    replace: Replace,
) -> io::Result<u64> {
    let owner = rustix::fs::fstat(folder)?;
    let (uid, gid, mode) = match look(folder, name)? {
        None => (owner.st_uid, owner.st_gid, NEW_FILE),
        Some(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777),
            FileType::Directory => return Err(refuse(path, "is a folder; name the file in it")),
            FileType::Symlink => return Err(refuse(path, "is a symbolic link")),
            _ => return Err(refuse(path, "is neither a file nor a folder")),
        },
    };
    if replace == Replace::Files && is_database(folder, name)? {
        return Err(refuse(path, "is a database, which an app may have open; stop the service first"));
    }
    let hex: String = random::bytes::<6>().iter().map(|byte| format!("{byte:02x}")).collect();
    let beside = format!(".trackbed-put-{hex}");
    let written = (|| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(folder, beside.as_str(), flags, Mode::from_raw_mode(0o600))?);
        let size = copy(contents, &mut file, bytes_max, path)?;
        let metadata = file.metadata()?;
        if (metadata.uid(), metadata.gid()) != (uid, gid) {
            fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        fchmod(&file, Mode::from_raw_mode(mode))?;
        file.sync_all()?;
        if replace == Replace::DatabasesToo {
            for companion in companions(name) {
                match unlinkat(folder, companion.as_os_str(), AtFlags::empty()) {
                    Err(errno) if errno != rustix::io::Errno::NOENT => return Err(errno.into()),
                    _ => {}
                }
            }
        }
        renameat(folder, beside.as_str(), folder, name.as_os_str())?;
        Ok(size)
    })();
    if written.is_err() {
        let _ = unlinkat(folder, beside.as_str(), AtFlags::empty());
        return written;
    }
    beneath::sync(folder)?;
    written
}

fn copy(from: &mut dyn Read, to: &mut File, bytes_max: u64, path: &str) -> io::Result<u64> {
    let (mut size, mut piece) = (0, vec![0; PIECE_BYTES]);
    loop {
        let count = match from.read(&mut piece) {
            Ok(0) => return Ok(size),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        size += count as u64;
        if size > bytes_max {
            return Err(refuse(path, &format!("is larger than the {bytes_max} bytes that are allowed")));
        }
        to.write_all(&piece[..count])?;
    }
}

/// Returns whether a name is that of a database, or of what belongs to one.
fn is_database(folder: &OwnedFd, name: &OsString) -> io::Result<bool> {
    let base = ["-wal", "-shm", "-journal"]
        .iter()
        .find_map(|suffix| name.as_bytes().strip_suffix(suffix.as_bytes()));
    let base: OsString =
        base.map_or_else(|| name.clone(), |base| std::ffi::OsStr::from_bytes(base).to_owned());
    let is_file = look(folder, &base)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
    if !is_file {
        return Ok(false);
    }
    let mut magic = Vec::new();
    open_regular(folder, &base)?.take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    Ok(magic == MAGIC)
}

fn companions(name: &OsString) -> impl Iterator<Item = OsString> {
    ["-wal", "-shm", "-journal"].iter().map(move |suffix| {
        let mut companion = name.clone();
        companion.push(suffix);
        companion
    })
}

/// Opens a regular file that may turn into a pipe or a link before we come to it.
fn open_regular(folder: &OwnedFd, name: &OsString) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(folder, name.as_os_str(), flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(refuse(&name.to_string_lossy(), "is not a file")) }
}

/// Returns what a name stands for, or none when it is not there.
fn look(folder: &OwnedFd, name: &OsString) -> io::Result<Option<Stat>> {
    match statat(folder, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn refuse(path: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("`{path}` {why}"))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn put(volume: &Path, path: &str, text: &str, replace: Replace) -> io::Result<u64> {
        write_file(volume, path, &mut text.as_bytes(), 100, replace)
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path();
        fs::create_dir(volume.join("sub")).unwrap();
        fs::write(volume.join("sub/file"), "old").unwrap();
        fs::set_permissions(volume.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(put(volume, "/sub/file", "new text", Replace::Files).unwrap(), 8);
        assert_eq!(fs::read_to_string(volume.join("sub/file")).unwrap(), "new text");
        assert_eq!(fs::metadata(volume.join("sub/file")).unwrap().mode() & 0o777, 0o640);
        assert_eq!(put(volume, "fresh", "", Replace::Files).unwrap(), 0);
        assert_eq!(fs::metadata(volume.join("fresh")).unwrap().mode() & 0o777, 0o644);
        let long = "x".repeat(101);
        assert!(put(volume, "sub/file", &long, Replace::Files).unwrap_err().to_string().contains("larger"));
        assert_eq!(fs::read_to_string(volume.join("sub/file")).unwrap(), "new text");
        assert_eq!(fs::read_dir(volume.join("sub")).unwrap().count(), 1);
    }

    #[test]
    fn folders_on_the_way_are_made_and_go_when_the_file_does_not_come() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path();
        put(volume, "a/b/c/file", "text", Replace::Files).unwrap();
        assert_eq!(fs::read_to_string(volume.join("a/b/c/file")).unwrap(), "text");
        let long = "x".repeat(101);
        fs::create_dir(volume.join("empty")).unwrap();
        for path in ["empty/new/deep/file", "a/b/new/file"] {
            assert!(put(volume, path, &long, Replace::Files).is_err());
        }
        assert_eq!(fs::read_dir(volume.join("empty")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(volume.join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn what_root_puts_belongs_to_the_owner_of_the_folder() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(54_321), Some(54_322)).unwrap();
        put(folder.path(), "sub/file", "x", Replace::Files).unwrap();
        for path in ["sub", "sub/file"] {
            let metadata = fs::metadata(folder.path().join(path)).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (54_321, 54_322), "{path}");
        }
    }

    #[test]
    fn nothing_is_put_outside_over_a_link_or_over_what_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let (volume, outside) = (folder.path().join("data"), folder.path().join("outside"));
        fs::create_dir_all(volume.join("sub")).unwrap();
        fs::write(&outside, "kept").unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        std::os::unix::fs::symlink(folder.path(), volume.join("out")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(volume.join("socket")).unwrap();
        for bad in [
            "link",
            "out/outside",
            "../outside",
            "sub/../../outside",
            "sub",
            "socket",
            "",
            "/",
            "none/../file",
            "link/file",
            "socket/file",
            "a//b",
        ] {
            assert!(put(&volume, bad, "bad", Replace::DatabasesToo).is_err(), "{bad}");
        }
        for bad in ["link", "out/outside", "../outside", "socket", "none"] {
            assert!(read_file(&volume, bad).is_err(), "{bad}");
        }
        assert_eq!(fs::read_to_string(&outside).unwrap(), "kept");
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 4);
    }

    #[test]
    fn a_database_is_replaced_only_when_nobody_has_it_open_and_then_without_its_logs() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path();
        fs::write(volume.join("app.db"), [MAGIC.as_slice(), b"rest"].concat()).unwrap();
        fs::write(volume.join("app.db-wal"), "log").unwrap();
        for path in ["app.db", "app.db-wal", "app.db-journal"] {
            let error = put(volume, path, "x", Replace::Files).unwrap_err();
            assert!(error.to_string().contains("is a database"), "{error}");
        }
        put(volume, "app.db", "x", Replace::DatabasesToo).unwrap();
        assert!(!volume.join("app.db-wal").exists());
    }

    #[test]
    fn a_folder_comes_as_a_tar_without_what_is_behind_links() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path();
        let long = "d".repeat(120);
        fs::create_dir_all(volume.join(&long)).unwrap();
        fs::write(volume.join(&long).join("file"), "text").unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(volume.join("socket")).unwrap();
        let Reading::Folder(reading) = read_file(volume, "/").unwrap() else { panic!("it is a folder") };
        let mut bytes = Vec::new();
        reading.write_tar(&mut bytes).unwrap();
        let mut tar = tar::Archive::new(bytes.as_slice());
        let paths: Vec<String> = tar
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(paths, [long.clone(), format!("{long}/file"), "link".into()]);
        let Reading::File { mut file, size_bytes } = read_file(volume, &format!("{long}/file")).unwrap()
        else {
            panic!("it is a file")
        };
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), size_bytes), ("text", 4));
    }
}
