//! Finds what an app has written outside its volumes. The app is hostile: no link is followed, nothing but a regular file
//! is opened, and only so much is looked at.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use trackbed_core::ports::StrayFile;

use crate::records::{AppRoot, Order};

/// Entries of directories that are looked at.
const ENTRIES_LIMIT: usize = 200_000;
/// Directories that wait for their turn.
const FOLDERS_LIMIT: usize = 20_000;
/// Longest path; no program could open a longer one by name.
const PATH_LIMIT_BYTES: usize = 4000;
/// Files that are kept beyond those asked for, until the next sorting.
const SPARE_FILES: usize = 1000;
/// The first bytes of every SQLite database that holds anything.
const DATABASE: &[u8; 16] = b"SQLite format 3\0";

/// Directories that tools fill and fill again: nothing in them is anybody's data.
const NOISE: [&str; 12] = [
    "__pycache__",
    ".cache",
    ".git",
    ".mypy_cache",
    ".npm",
    ".pytest_cache",
    ".ruff_cache",
    ".venv",
    "node_modules",
    "site-packages",
    "venv",
    ".next",
];
/// Ends of files of the same kind.
const NOISE_ENDS: [&str; 4] = [".pyc", ".pyo", ".pid", ".swp"];

/// Finds files below `/app` that are neither in a volume nor the image's own: at most `limit`, databases first, then the
/// largest. `folder` is the directory of the instance.
///
/// # Errors
/// When the top of the tree cannot be read.
pub(crate) fn find(order: &Order, folder: &Path, limit: usize) -> io::Result<Vec<StrayFile>> {
    let AppRoot::Layers(layers) = &order.app else { return Ok(Vec::new()) };
    let is_copy = order.level > trackbed_core::isolation::IsolationLevel::Userns;
    let top = folder.join(if is_copy { "root/app" } else { "upper" });
    let root = match open(&top, FOLDER, Mode::empty()) {
        // It has not come so far, or never did.
        Err(nix::errno::Errno::ENOENT) => return Ok(Vec::new()),
        root => root?,
    };
    let layers = layers.iter().filter_map(|layer| open(layer, FOLDER, Mode::empty()).ok()).collect();
    let mut walk = Walk {
        top,
        root,
        layers,
        seen: 0,
        folders: VecDeque::from([PathBuf::new()]),
        found: Vec::new(),
        limit,
    };
    while let Some(next) = walk.folders.pop_front() {
        walk.look_into(&next);
    }
    if walk.seen >= ENTRIES_LIMIT {
        tracing::debug!(instance = %order.id, "only the first {ENTRIES_LIMIT} entries outside the volumes were looked at");
    }
    walk.shorten(limit);
    Ok(walk.found)
}

const FOLDER: OFlag =
    OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_RDONLY).union(OFlag::O_CLOEXEC);

/// Breadth first, so that a full `uploads` hides nothing that lies further up.
struct Walk {
    top: PathBuf,
    root: OwnedFd,
    /// The topmost first.
    layers: Vec<OwnedFd>,
    seen: usize,
    folders: VecDeque<PathBuf>,
    found: Vec<StrayFile>,
    limit: usize,
}

impl Walk {
    fn look_into(&mut self, inside: &Path) {
        // Gone, replaced by something else, or closed to us by its owner.
        let Some(folder) = open_below(&self.root, inside) else { return };
        // The descriptor's own link leads to the very directory that was opened.
        let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd())) else { return };
        for entry in entries.flatten() {
            if self.seen >= ENTRIES_LIMIT {
                return;
            }
            self.seen += 1;
            let (name, path) = (entry.file_name(), inside.join(entry.file_name()));
            let Some(stat) = look_at(&folder, &name).filter(|_| path.as_os_str().len() <= PATH_LIMIT_BYTES)
            else {
                continue;
            };
            if is_kind(&stat, SFlag::S_IFDIR) {
                if !NOISE.iter().any(|noise| name == *noise) && self.folders.len() < FOLDERS_LIMIT {
                    self.folders.push_back(path);
                }
            } else if is_kind(&stat, SFlag::S_IFREG) && !is_noise(&name) && !self.is_of_image(&path, &stat) {
                self.add(&folder, &name, &path, &stat);
            }
        }
    }

    fn add(&mut self, folder: &OwnedFd, name: &OsStr, path: &Path, stat: &FileStat) {
        self.found.push(StrayFile {
            path: Path::new("/app").join(path).to_string_lossy().into_owned(),
            host_path: self.top.join(path),
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            is_database: is_database(folder, name),
        });
        if self.found.len() >= self.limit.saturating_add(SPARE_FILES) {
            self.shorten(self.limit);
        }
    }

    fn shorten(&mut self, limit: usize) {
        let rank = |file: &StrayFile| (!file.is_database, std::cmp::Reverse(file.size_bytes));
        self.found.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.path.cmp(&b.path)));
        self.found.truncate(limit);
    }

    /// Returns whether the topmost layer that has something there has this very file: a copy of it, or one that was only
    /// opened for writing, as SQLite does with every database.
    fn is_of_image(&self, path: &Path, stat: &FileStat) -> bool {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return false };
        let mut in_layers = self.layers.iter().filter_map(|layer| look_at(&open_below(layer, parent)?, name));
        in_layers.next().is_some_and(|own| {
            is_kind(&own, SFlag::S_IFREG)
                && (own.st_size, own.st_mtime, own.st_mtime_nsec)
                    == (stat.st_size, stat.st_mtime, stat.st_mtime_nsec)
        })
    }
}

/// Opens a directory, one name after the other, so that none of them leads elsewhere.
fn open_below(root: &OwnedFd, path: &Path) -> Option<OwnedFd> {
    let mut folder = root.try_clone().ok()?;
    for name in path.components() {
        folder = openat(&folder, name.as_os_str(), FOLDER, Mode::empty()).ok()?;
    }
    Some(folder)
}

fn look_at(folder: &OwnedFd, name: &OsStr) -> Option<FileStat> {
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
}

fn is_kind(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

fn is_noise(name: &OsStr) -> bool {
    NOISE_ENDS.iter().any(|end| name.as_bytes().ends_with(end.as_bytes()))
}

/// Not even a FIFO that has taken the place of a file since may hold us up.
fn is_database(folder: &OwnedFd, name: &OsStr) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let Ok(file) = openat(folder, name, flags, Mode::empty()) else { return false };
    let mut start = [0; DATABASE.len()];
    File::from(file).read_exact(&mut start).is_ok() && start == *DATABASE
}
