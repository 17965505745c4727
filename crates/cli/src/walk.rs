//! Decides which files of a folder are its source. Links stay links, and none may lead out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use anyhow::{Context, Result};
use ignore::{DirEntry, WalkBuilder, WalkState};
use trackbed_stdx::listing::Node;

use crate::human;
use crate::index::Stamp;
use crate::session::Refusal;

/// Most files of a source.
const FILES_MAX: usize = 200_000;
/// Most bytes of a source: 2 GiB.
const BYTES_MAX: u64 = 2 << 30;
/// Most threads that walk.
const THREADS_MAX: usize = 4;
/// Never part of a source, wherever they stand: made anew on the box, or of no use there.
const ALWAYS_DROPPED: [&str; 4] = [".git", "node_modules", ".venv", "__pycache__"];

/// What to walk.
pub(crate) struct Walk<'a> {
    /// The folder.
    pub(crate) root: &'a Path,
    /// Data folder of the box, which is no source even when it lies inside.
    pub(crate) data_dir: &'a Path,
    /// Heed `.gitignore`. `.railwayignore` is always heeded.
    pub(crate) heed_gitignore: bool,
}

/// The files of a source.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The folder, canonical.
    pub(crate) root: PathBuf,
    /// What is in it, in the order of the bytes of the paths: the order of a listing.
    pub(crate) entries: Vec<Entry>,
    /// How many files and links.
    pub(crate) files: usize,
    /// How many bytes.
    pub(crate) bytes: u64,
}

/// Something in a source.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the root.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) kind: EntryKind,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// What tells when it changes.
        stamp: Stamp,
        /// Its mode lets everybody read it.
        is_public: bool,
    },
    /// A link and where it leads.
    Link(PathBuf),
}

impl EntryKind {
    /// Returns how many bytes the file has.
    pub(crate) fn size(&self) -> u64 {
        if let Self::File { stamp, .. } = self { stamp.size() } else { 0 }
    }

    /// Returns what a folder or link is in a listing. None for a file, which must be read first, and for a link to a name
    /// that is not UTF-8.
    pub(crate) fn node(&self) -> Option<Node> {
        match self {
            Self::Folder => Some(Node::Folder),
            Self::Link(target) => target.to_str().map(|target| Node::Link { target: target.to_owned() }),
            Self::File { .. } => None,
        }
    }
}

impl Tree {
    fn add(&mut self, entry: Entry) {
        self.files += usize::from(entry.kind != EntryKind::Folder);
        self.bytes += entry.kind.size();
        self.entries.push(entry);
    }

    fn is_too_big(&self) -> bool {
        self.files > FILES_MAX || self.bytes > BYTES_MAX
    }

    /// Refuses a file that cannot be read. Those that everybody may read are not tried.
    pub(crate) fn check_readable(&self) -> Result<()> {
        let is_tried = |entry: &&Entry| matches!(entry.kind, EntryKind::File { is_public: false, .. });
        let mut files = self.entries.iter().filter(is_tried);
        files.try_for_each(|entry| self.open(entry).map(drop).map_err(|error| unreadable(entry, &error)))
    }

    /// Opens a file.
    pub(crate) fn open(&self, entry: &Entry) -> io::Result<File> {
        File::open(self.root.join(&entry.path))
    }
}

/// Refuses a file before anything is sent.
pub(crate) fn unreadable(entry: &Entry, error: &io::Error) -> anyhow::Error {
    let message = format!("cannot read {}: {error}; nothing was uploaded", entry.path.display());
    Refusal::with_hint(message, "make it readable, or drop it by a line in .railwayignore")
}

impl Walk<'_> {
    /// Walks the folder. What cannot be deployed is refused here, before anything is read or sent.
    pub(crate) fn run(&self) -> Result<Tree> {
        let shown = self.root.display();
        let root = self.root.canonicalize().with_context(|| format!("cannot deploy {shown}"))?;
        if !root.is_dir() {
            let message = format!("cannot deploy {shown}: it is not a folder");
            return Err(Refusal::with_hint(
                message,
                "give the folder that holds the app, or nothing for the current one",
            ));
        }
        let gathered = Gathered::of(Tree { root: root.clone(), entries: Vec::new(), files: 0, bytes: 0 });
        self.walker(&root).build_parallel().run(|| {
            Box::new(|found| {
                let entry = found.with_context(|| format!("cannot read all of {shown}"));
                gathered.add(entry.and_then(|found| examine(&root, &found)))
            })
        });
        let mut tree = gathered.into_tree()?;
        if tree.is_too_big() {
            return Err(too_big(self.root, &tree));
        }
        tree.entries.sort_unstable_by(|one, other| one.path.as_os_str().cmp(other.path.as_os_str()));
        if tree.files == 0 {
            let message = format!("there is nothing to deploy in {shown}");
            return Err(Refusal::with_hint(
                message,
                "is this the right folder, and does an ignore file drop everything?",
            ));
        }
        Ok(tree)
    }

    fn walker(&self, root: &Path) -> WalkBuilder {
        // Ignore files above the folder count only up to the top of its repository: `~/.gitignore` says nothing here.
        let in_repository = root.ancestors().any(|folder| folder.join(".git").exists());
        let data_dir = self.data_dir.canonicalize().unwrap_or_else(|_| self.data_dir.to_owned());
        let mut walker = WalkBuilder::new(root);
        walker
            .standard_filters(false)
            .git_ignore(self.heed_gitignore)
            .git_exclude(self.heed_gitignore)
            .require_git(false)
            .parents(in_repository)
            .add_custom_ignore_filename(".railwayignore")
            .follow_links(false)
            .threads(thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX))
            .filter_entry(move |entry| {
                let dropped = ALWAYS_DROPPED.iter().any(|name| entry.file_name() == *name);
                entry.depth() == 0 || (!dropped && entry.path() != data_dir)
            });
        walker
    }
}

/// What the threads of a walk have found.
struct Gathered(Mutex<(Tree, Option<anyhow::Error>)>);

impl Gathered {
    fn of(tree: Tree) -> Self {
        Self(Mutex::new((tree, None)))
    }

    /// Adds what one thread found. Of several refusals the first in the alphabet is told, so that it is the same each time.
    fn add(&self, examined: Result<Option<Entry>>) -> WalkState {
        let (tree, refusal) = &mut *self.lock();
        match examined {
            Ok(None) => {}
            Ok(Some(entry)) => tree.add(entry),
            Err(error) => {
                if refusal.as_ref().is_none_or(|earlier| format!("{error:#}") < format!("{earlier:#}")) {
                    *refusal = Some(error);
                }
            }
        }
        if tree.is_too_big() { WalkState::Quit } else { WalkState::Continue }
    }

    fn lock(&self) -> MutexGuard<'_, (Tree, Option<anyhow::Error>)> {
        self.0.lock().expect("no holder of this lock panics")
    }

    fn into_tree(self) -> Result<Tree> {
        let (tree, refusal) = self.0.into_inner().expect("no holder of this lock panics");
        refusal.map_or(Ok(tree), Err)
    }
}

/// Tells what was found, and refuses what cannot be taken along. None for the root itself.
fn examine(root: &Path, found: &DirEntry) -> Result<Option<Entry>> {
    if found.depth() == 0 {
        return Ok(None);
    }
    let whole = found.path();
    let path = whole.strip_prefix(root).context("the walk left its folder")?.to_owned();
    let shown = path.display();
    if found.file_type().is_some_and(|kind| kind.is_dir()) {
        return Ok(Some(Entry { path, kind: EntryKind::Folder }));
    }
    let metadata = whole.symlink_metadata().with_context(|| format!("cannot read {shown}"))?;
    let kind = metadata.file_type();
    if kind.is_symlink() {
        let target = fs::read_link(whole).with_context(|| format!("cannot read the link {shown}"))?;
        if leads_out(root, &path, &target) {
            let message = format!("the link {shown} leads out of the folder, to {}", target.display());
            return Err(Refusal::with_hint(
                message,
                "copy what it leads to, or drop the link by a line in .railwayignore",
            ));
        }
        return Ok(Some(Entry { path, kind: EntryKind::Link(plain(&target)) }));
    }
    if kind.is_file() {
        let is_public = metadata.mode() & 0o444 == 0o444;
        return Ok(Some(Entry { path, kind: EntryKind::File { stamp: Stamp::of(&metadata), is_public } }));
    }
    let what = match () {
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    let message = format!("{shown} is {what}, which cannot be deployed");
    Err(Refusal::with_hint(message, "remove it, or drop it by a line in .railwayignore"))
}

/// Returns where a link leads without what says nothing: a tar has one way to write `a//b` and `a/./b`.
fn plain(target: &Path) -> PathBuf {
    let plain: PathBuf = target.components().filter(|part| *part != Component::CurDir).collect();
    if plain.as_os_str().is_empty() { PathBuf::from(".") } else { plain }
}

/// Returns whether a link leads out of the root: by its text, or by where it really ends.
fn leads_out(root: &Path, path: &Path, target: &Path) -> bool {
    if target.is_absolute() {
        return true;
    }
    let mut depth = path.components().count() - 1;
    for component in target.components() {
        match component {
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    // A dangling link goes along as it is.
    root.join(path).canonicalize().is_ok_and(|end| !end.starts_with(root))
}

fn too_big(root: &Path, tree: &Tree) -> anyhow::Error {
    let mut folders: BTreeMap<PathBuf, (usize, u64)> = BTreeMap::new();
    for entry in tree.entries.iter().filter(|entry| entry.kind != EntryKind::Folder) {
        let top: PathBuf = entry.path.components().take(entry.path.components().count().min(3) - 1).collect();
        let (files, bytes) = folders.entry(top).or_default();
        (*files, *bytes) = (*files + 1, *bytes + entry.kind.size());
    }
    let mut folders: Vec<_> = folders.into_iter().collect();
    folders.sort_by_key(|(_, (files, bytes))| {
        // Whichever limit a folder uses up more of, in thousandths.
        std::cmp::Reverse((*files as u64 * 1000 / FILES_MAX as u64).max(*bytes / (BYTES_MAX / 1000)))
    });
    let biggest = folders.iter().take(3).map(|(folder, (files, bytes))| {
        let name = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        format!("{} ({files} files, {})", name.display(), human::size(*bytes))
    });
    let message = format!(
        "{} holds more than {FILES_MAX} files or {}; the biggest folders so far: {}",
        root.display(),
        human::size(BYTES_MAX),
        biggest.collect::<Vec<_>>().join(", ")
    );
    Refusal::with_hint(message, "drop what the app does not need by lines in .railwayignore or .gitignore")
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
