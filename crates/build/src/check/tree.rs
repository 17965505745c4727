//! The files of a source, listed and read within limits. Links are not followed, and what is no text is passed over.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::text;

/// Most names listed; as many as a source may have.
const NAMES_MAX: usize = 200_000;
/// Most files read, most bytes of one and of all: what takes well below a second.
const FILES_MAX: usize = 4_000;
const FILE_MAX_BYTES: u64 = 1 << 20;
const BYTES_MAX: u64 = 64 << 20;
/// Nothing more is read after this long.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Folders that are never the app's own code.
const DROPPED: [&str; 8] =
    [".git", "node_modules", ".venv", "venv", "__pycache__", "site-packages", "vendor", "target"];
/// Folders whose code is not what is deployed, unless the app imports it.
const BESIDE: [&str; 22] = [
    "test",
    "tests",
    "__tests__",
    "spec",
    "e2e",
    "doc",
    "docs",
    "example",
    "examples",
    "script",
    "scripts",
    "tools",
    "migrations",
    "alembic",
    "benches",
    "bench",
    "benchmarks",
    "frontend",
    "client",
    "public",
    "static",
    "fixtures",
];

/// The files of a source.
pub(crate) struct Tree {
    root: PathBuf,
    names: BTreeSet<String>,
    begun: Instant,
    files_read: Cell<usize>,
    bytes_read: Cell<u64>,
    left_out: RefCell<Option<String>>,
}

impl Tree {
    /// Lists the files of a folder, or takes a list that somebody made; paths are relative. What is not UTF-8 is left out:
    /// no program imports it.
    pub(crate) fn new(root: &Path, listed: Option<&[PathBuf]>) -> Self {
        let tree = Self {
            root: root.to_owned(),
            names: BTreeSet::new(),
            begun: Instant::now(),
            files_read: Cell::new(0),
            bytes_read: Cell::new(0),
            left_out: RefCell::new(None),
        };
        let names = match listed {
            Some(listed) => listed.iter().filter_map(|path| path.to_str().map(str::to_owned)).collect(),
            None => tree.list(),
        };
        Self { names, ..tree }
    }

    fn list(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut todo = vec![String::new()];
        while let Some(at) = todo.pop() {
            for entry in fs::read_dir(self.root.join(&at)).into_iter().flatten().flatten() {
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
                let Ok(kind) = entry.file_type() else { continue };
                let path = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
                if kind.is_dir() && !DROPPED.contains(&name.as_str()) {
                    todo.push(path);
                } else if kind.is_file() {
                    names.insert(path);
                }
                if names.len() >= NAMES_MAX || self.begun.elapsed() > TIME_MAX {
                    self.leave_out(format!("only {} files were listed", names.len()));
                    return names;
                }
            }
        }
        names
    }

    /// Returns the folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns every file.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Returns whether there is such a file.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Reads a file as text. None when it is none, is too big, or the limits are reached.
    pub(crate) fn read(&self, name: &str) -> Option<String> {
        if !self.has(name) {
            return None;
        }
        let path = self.root.join(name);
        let metadata = path.symlink_metadata().ok().filter(fs::Metadata::is_file)?;
        if metadata.len() > FILE_MAX_BYTES {
            self.leave_out(format!("{name} is larger than {} MB", FILE_MAX_BYTES >> 20));
            return None;
        }
        let is_enough = self.files_read.get() >= FILES_MAX
            || self.bytes_read.get() + metadata.len() > BYTES_MAX
            || self.begun.elapsed() > TIME_MAX;
        if is_enough {
            let (files, megabytes) = (self.files_read.get(), self.bytes_read.get() >> 20);
            self.leave_out(format!("only {files} files of code ({megabytes} MB) were read"));
            return None;
        }
        let mut bytes = Vec::new();
        fs::File::open(&path).ok()?.take(FILE_MAX_BYTES).read_to_end(&mut bytes).ok()?;
        self.files_read.set(self.files_read.get() + 1);
        self.bytes_read.set(self.bytes_read.get() + bytes.len() as u64);
        text::decode(&bytes).ok().filter(|text| !text.contains('\0'))
    }

    /// Returns how many files were read.
    pub(crate) fn files_read(&self) -> usize {
        self.files_read.get()
    }

    /// Returns what was left out first, and why.
    pub(crate) fn left_out(&self) -> Option<String> {
        self.left_out.borrow().clone()
    }

    fn leave_out(&self, what: String) {
        self.left_out.borrow_mut().get_or_insert(what);
    }
}

/// Returns whether a file of code is the app's own by its name: not a test, and not in a folder for other things.
pub(crate) fn is_of_app(path: &str) -> bool {
    let mut parts: Vec<&str> = path.split('/').collect();
    let name = parts.pop().unwrap_or_default();
    let is_beside = |part: &&str| part.starts_with('.') || BESIDE.contains(part) || DROPPED.contains(part);
    let is_test = name.starts_with("test_")
        || ["conftest.py", "build.rs", "setup.py"].contains(&name)
        || ["_test.py", "_test.go", ".d.ts"].iter().any(|end| name.ends_with(end))
        || [".test.", ".spec.", ".config."].iter().any(|part| name.contains(part));
    !is_test && !parts.iter().any(is_beside)
}
