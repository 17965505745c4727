//! Finds what a path of a folder stands for, and opens it: beneath the folder, through no link that leads out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, ResolveFlags, fgetxattr, openat, openat2};
use rustix::io::Errno;

use super::kinds::Kind;
use super::path::Path;
use super::{Fallback, Site};

/// The attribute in which the builder left the digest of a file's content.
const DIGEST: &str = "user.trackbed.digest";
/// Most bytes of it that make a tag: a digest is 32.
const DIGEST_BYTES_MAX: usize = 64;
/// The path at which a site is healthy, whatever is in it: Railway's own static sites answer there, and the
/// `healthcheckPath` of their owners says so.
const HEALTH: &[u8] = b"health";

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Sought {
    /// None where no file can be.
    pub(super) path: Option<Path>,
    /// Whether the client takes brotli.
    pub(super) brotli: bool,
    /// Whether the client takes gzip.
    pub(super) gzip: bool,
    /// Whether a browser goes to a page, and loads no part of one.
    pub(super) wants_page: bool,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// A file.
    File(Opened),
    /// A folder, asked for without the slash at its end: its link.
    Folder(String),
    /// None, but the site has a page that says so.
    MissingPage(Opened),
    /// None.
    Missing,
    /// None, but it is where health is asked for.
    Health,
}

/// A file, open.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) length: u64,
    /// In whole seconds, as HTTP writes it.
    pub(super) modified: SystemTime,
    /// With its quotes.
    pub(super) tag: String,
    pub(super) kind: Kind,
    /// The encoding of a compressed twin.
    pub(super) encoding: Option<&'static str>,
}

/// How far a look may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// What the kernel has in memory. Where that is not enough it says [`io::ErrorKind::WouldBlock`].
    Memory,
    /// The disk: not on a thread that others wait for.
    Disk,
}

impl Site {
    /// Looks for what is sought.
    ///
    /// # Errors
    /// When the folder is gone or the disk fails; [`io::ErrorKind::WouldBlock`] when the reach is too short.
    pub(super) fn find(&self, sought: &Sought, reach: Reach) -> io::Result<Found> {
        let look = Look { site: self, root: self.root()?.as_fd(), sought, reach };
        let Some(path) = &sought.path else { return look.missing() };
        if !path.is_folder {
            match look.open(&path.bytes)? {
                Some(Entry::File(file)) => return look.file(&path.bytes, file).map(Found::File),
                Some(Entry::Folder) => {
                    if let Some(Entry::File(_)) = look.open(&path.index())? {
                        return Ok(Found::Folder(path.link()));
                    }
                }
                None => {}
            }
            let page = path.with(".html");
            if let Some(Entry::File(file)) = look.open(&page)? {
                return look.file(&page, file).map(Found::File);
            }
        } else if let Some(Entry::File(file)) = look.open(&path.index())? {
            return look.file(&path.index(), file).map(Found::File);
        }
        if path.bytes == HEALTH {
            return Ok(Found::Health);
        }
        if self.fallback == Fallback::Index && (sought.wants_page || !path.name().contains(&b'.')) {
            let index = b"index.html";
            if let Some(Entry::File(file)) = look.open(index)? {
                return look.file(index, file).map(Found::File);
            }
        }
        look.missing()
    }
}

/// What stands at a path.
enum Entry {
    File(File),
    Folder,
}

struct Look<'a> {
    site: &'a Site,
    root: std::os::fd::BorrowedFd<'a>,
    sought: &'a Sought,
    reach: Reach,
}

impl Look<'_> {
    /// Opens what stands at a path; none when nothing does, or nothing that is served.
    fn open(&self, path: &[u8]) -> io::Result<Option<Entry>> {
        let opened = match open_beneath(self.root, path, self.reach) {
            Ok(opened) => opened,
            // Links in a circle or out of the folder, names that are too long, and files in place of folders.
            Err(
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::LOOP
                | Errno::XDEV
                | Errno::NAMETOOLONG
                | Errno::NXIO
                | Errno::INVAL,
            ) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let file = File::from(opened);
        let kind = file.metadata()?.file_type();
        Ok(match (kind.is_file(), kind.is_dir()) {
            (true, _) => Some(Entry::File(file)),
            (_, true) => Some(Entry::Folder),
            // A pipe or a device.
            _ => None,
        })
    }

    /// Takes an open file, or the compressed twin beside it that the client takes.
    fn file(&self, path: &[u8], file: File) -> io::Result<Opened> {
        let kind = Kind::of(path);
        if kind.may_have_twin() {
            let twins = [(self.sought.brotli, ".br", "br"), (self.sought.gzip, ".gz", "gzip")];
            for (_, end, encoding) in twins.into_iter().filter(|(is_taken, ..)| *is_taken) {
                let twin = [path, end.as_bytes()].concat();
                if let Some(Entry::File(twin)) = self.open(&twin)? {
                    return self.opened(twin, kind, Some(encoding));
                }
            }
        }
        self.opened(file, kind, None)
    }

    fn opened(&self, file: File, kind: Kind, encoding: Option<&'static str>) -> io::Result<Opened> {
        let metadata = file.metadata()?;
        let seconds = u64::try_from(metadata.mtime()).unwrap_or_default();
        let tag = match digest(&file) {
            Some(digest) => format!("\"{digest}\""),
            // Nothing in the folder changes: time and size tell the files of one path apart, the folder's name the rest.
            None => format!(
                "\"{}-{:x}{:x}-{:x}\"",
                self.site.name,
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.len()
            ),
        };
        let modified = UNIX_EPOCH + Duration::from_secs(seconds);
        Ok(Opened { length: metadata.len(), modified, tag, kind, encoding, file })
    }

    fn missing(&self) -> io::Result<Found> {
        let page = b"404.html";
        Ok(match (self.site.fallback, self.open(page)?) {
            (Fallback::Missing, Some(Entry::File(file))) => Found::MissingPage(self.file(page, file)?),
            _ => Found::Missing,
        })
    }
}

/// Returns the digest that a file carries.
fn digest(file: &File) -> Option<String> {
    let mut bytes = [0; DIGEST_BYTES_MAX];
    let length = fgetxattr(file, DIGEST, &mut bytes).ok()?;
    let digest = std::str::from_utf8(bytes.get(..length)?).ok()?;
    let is_plain = !digest.is_empty() && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain.then(|| digest.to_owned())
}

/// What is opened never waits for a writer at a pipe, and never becomes a terminal of ours.
const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::NOATIME);

fn open_beneath(root: impl AsFd, path: &[u8], reach: Reach) -> rustix::io::Result<OwnedFd> {
    let path = std::ffi::OsStr::from_bytes(if path.is_empty() { b"." } else { path });
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if reach == Reach::Memory {
        resolve |= ResolveFlags::CACHED;
    }
    let opened = match openat2(&root, path, FLAGS, Mode::empty(), resolve) {
        // Only the owner of a file may leave its time of access alone.
        Err(Errno::PERM) => openat2(&root, path, FLAGS.difference(OFlags::NOATIME), Mode::empty(), resolve),
        opened => opened,
    };
    match (opened, reach) {
        // A kernel before 5.12, or a filter in front of it, does not know the call or the flag.
        (Err(Errno::NOSYS | Errno::INVAL | Errno::PERM), Reach::Memory) => Err(Errno::AGAIN),
        (Err(Errno::NOSYS | Errno::PERM), Reach::Disk) => open_by_steps(&root, path.as_bytes()),
        (opened, _) => opened,
    }
}

/// As the kernel's own way, for one that has none: step by step, over no link at all.
fn open_by_steps(root: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(&root, ".", step, Mode::empty())?;
    let mut parts = path.split(|byte| *byte == b'/').peekable();
    while let Some(part) = parts.next() {
        let name = std::ffi::OsStr::from_bytes(part);
        if parts.peek().is_none() {
            let flags = FLAGS.difference(OFlags::NOATIME) | OFlags::NOFOLLOW;
            return openat(&at, name, flags, Mode::empty());
        }
        at = openat(&at, name, step, Mode::empty())?;
    }
    Err(Errno::NOENT)
}
