//! Walking a volume by descriptors, while an app may rename anything at any moment: never over a link, never out of it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::chunk_store::StoreError;
use crate::manifest::ENTRIES_MAX;

/// ext2 to ext4, XFS, btrfs, F2FS, by their numbers in statfs(2).
const MOVE_TIMES: [u64; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010];

/// What moves when a file changes. Whoever writes moves the last one and cannot set it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    /// Seconds and nanoseconds.
    pub(crate) modified: (i64, u32),
    pub(crate) changed: (i64, u32),
}

/// An entry as it was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Within the volume; empty for its own folder.
    pub(crate) path: Vec<u8>,
    pub(crate) mode: u16,
    pub(crate) stamp: Stamp,
    /// Names of it.
    pub(crate) links: u64,
    /// Bytes that it takes on disk.
    pub(crate) allocated: u64,
    pub(crate) kind: FoundKind,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FoundKind {
    Folder,
    File,
    Symlink(Vec<u8>),
    Fifo,
    /// Something that cannot be kept: what it is.
    Other(&'static str),
}

/// A volume's folder, open.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    folder: OwnedFd,
}

impl Root {
    /// Opens the folder of a volume.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| StoreError::disk("open the volume", path, error))?;
        Ok(Self { path: path.to_owned(), folder })
    }

    /// Returns the descriptor of the folder.
    pub(crate) fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    /// Returns where a path within it lies, for messages.
    pub(crate) fn show(&self, path: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.path.join(std::ffi::OsStr::from_bytes(path))
    }

    /// Returns whether the file system moves the times of a file before a write through a mapping happens. Of one that is
    /// not known to, every file is read again while its writers stand still. tmpfs does not.
    pub(crate) fn moves_times(&self) -> bool {
        rustix::fs::fstatfs(&self.folder)
            .is_ok_and(|disk| MOVE_TIMES.contains(&u64::from_ne_bytes(disk.f_type.to_ne_bytes())))
    }

    /// Opens a regular file to read it. What is not one (any more), or is reached over a link, is not found.
    pub(crate) fn open_file(&self, path: &[u8]) -> io::Result<File> {
        // Non-blocking: a pipe that took the file's name must not hold us.
        let fd = self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
        if kind != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it is not a regular file any more"));
        }
        Ok(File::from(fd))
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let name = if path.is_empty() { b".".as_slice() } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match rustix::fs::openat2(&self.folder, name, flags, Mode::empty(), resolve) {
            // No such call here, or a path beyond its limit: name by name then.
            Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG | Errno::INVAL) => {}
            other => return other,
        }
        let mut parts = name.split(|byte| *byte == b'/').peekable();
        let mut here: Option<OwnedFd> = None;
        while let Some(part) = parts.next() {
            let above = here.as_ref().unwrap_or(&self.folder);
            let step = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let flags = if parts.peek().is_some() { step } else { flags };
            here = Some(rustix::fs::openat(above, part, flags, Mode::empty())?);
        }
        here.ok_or(Errno::NOENT)
    }

    /// Returns every entry, a folder before what is in it, else by name. What goes while it walks is left out.
    /// With `all`, a folder that cannot be read is an error; else it is left out, too.
    pub(crate) fn walk(&self, all: bool) -> Result<Vec<Found>, StoreError> {
        let top = rustix::fs::fstat(&self.folder);
        let top = top.map_err(|error| StoreError::disk("look at the volume", &self.path, error))?;
        let device = top.st_dev;
        let mut found = vec![describe(Vec::new(), &top, FoundKind::Folder)];
        let mut folders = vec![Vec::new()];
        while let Some(folder) = folders.pop() {
            let first = found.len();
            match self.list(&folder, device, &mut found) {
                Ok(()) => {}
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(_) if !all => continue,
                Err(error) => return Err(StoreError::disk("read the folder", &self.show(&folder), error)),
            }
            if found.len() > ENTRIES_MAX {
                return Err(StoreError::Refused(format!(
                    "`{}` has more than {ENTRIES_MAX} entries: that many cannot be captured",
                    self.path.display()
                )));
            }
            let below = found[first..].iter().rev().filter(|found| found.kind == FoundKind::Folder);
            folders.extend(below.map(|found| found.path.clone()));
        }
        Ok(found)
    }

    fn list(&self, folder: &[u8], device: u64, found: &mut Vec<Found>) -> Result<(), Errno> {
        let fd = self.open_beneath(folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
            if found.len() + names.len() > ENTRIES_MAX + 1 {
                break;
            }
        }
        names.sort_unstable();
        for name in names {
            let stat = match rustix::fs::statat(&fd, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                _ if stat.st_dev != device => FoundKind::Other("another file system"),
                FileType::Directory => FoundKind::Folder,
                FileType::RegularFile => FoundKind::File,
                FileType::Symlink => match rustix::fs::readlinkat(&fd, &name[..], Vec::new()) {
                    Err(Errno::NOENT | Errno::INVAL) => continue,
                    other => FoundKind::Symlink(other?.into_bytes()),
                },
                FileType::Fifo => FoundKind::Fifo,
                FileType::Socket => FoundKind::Other("a socket"),
                FileType::CharacterDevice | FileType::BlockDevice => FoundKind::Other("a device"),
                FileType::Unknown => FoundKind::Other("of an unknown kind"),
            };
            let mut path = folder.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            found.push(describe(path, &stat, kind));
        }
        Ok(())
    }
}

/// Returns the stamp of an open file.
pub(crate) fn stamp_of(file: &File) -> io::Result<Stamp> {
    Ok(stamp(&rustix::fs::fstat(file)?))
}

#[allow(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "the kernel gives neither below zero, and nanoseconds fit"
)]
fn stamp(stat: &rustix::fs::Stat) -> Stamp {
    Stamp {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: stat.st_size as u64,
        modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
        changed: (stat.st_ctime, stat.st_ctime_nsec as u32),
    }
}

#[allow(clippy::useless_conversion, reason = "the count of links is narrower on other processors")]
#[allow(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "twelve bits fit, blocks are not below zero"
)]
fn describe(path: Vec<u8>, stat: &rustix::fs::Stat, kind: FoundKind) -> Found {
    Found {
        path,
        mode: (stat.st_mode & 0o7777) as u16,
        stamp: stamp(stat),
        links: u64::from(stat.st_nlink),
        allocated: stat.st_blocks as u64 * 512,
        kind,
    }
}
