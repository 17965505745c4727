//! What the databases of a point must hold, and whether they do.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trackbed_core::restore_point::{DatabaseContent, TableContent};
use trackbed_stdx::files;

use crate::inspect::Inspected;
use crate::manifest::{Entry, FileContent, Kind, Manifest};

/// Most that is read of a record.
const RECORD_MAX_BYTES: u64 = 256 << 20;
/// What belongs to a database and decides what it holds. The shared memory does not: SQLite makes it anew.
pub(super) const LOGS: [&[u8]; 2] = [b"-wal", b"-journal"];
/// All that may lie beside a database because of it.
pub(super) const COMPANIONS: [&[u8]; 3] = [b"-wal", b"-journal", b"-shm"];

/// What the databases of a point held when they were looked into for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) databases: Vec<DatabaseContent>,
    /// From which bytes.
    recipes: Vec<Recipe>,
}

/// The names of the bytes that a database is made of: equal ones hold the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recipe {
    path: String,
    /// Of the file, its log and its journal.
    parts: Vec<Option<(u64, Option<String>)>>,
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The data is not what it was.
    Broken(String),
    /// It could not be looked at.
    Box(String),
}

/// What was found to be as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sound {
    pub(super) databases: u64,
    pub(super) rows: u64,
}

/// Returns what the databases of a manifest are made of.
pub(super) fn recipes(manifest: &Manifest) -> Vec<Recipe> {
    let files: HashMap<&[u8], FileContent> = manifest
        .entries
        .iter()
        .filter_map(|entry| match entry.kind {
            Kind::File(content) => Some((entry.path.as_slice(), content)),
            Kind::Folder | Kind::Symlink(_) | Kind::Fifo | Kind::HardLink(_) => None,
        })
        .collect();
    let part = |path: &[u8]| files.get(path).map(|file| (file.size, file.content.map(|id| id.to_string())));
    databases(&manifest.entries)
        .map(|entry| {
            let mut parts = vec![part(&entry.path)];
            parts.extend(LOGS.iter().map(|log| part(&[&entry.path, *log].concat())));
            Recipe { path: String::from_utf8_lossy(&entry.path).into_owned(), parts }
        })
        .collect()
}

/// Returns the databases among entries.
pub(super) fn databases(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    entries.iter().filter(|entry| matches!(entry.kind, Kind::File(file) if file.is_database))
}

/// Returns those of `entries` that databases are made of, with the folders that they lie in. Only databases for which
/// `is_wanted` says so, by path.
pub(super) fn only_databases(entries: &[Entry], is_wanted: impl Fn(&[u8]) -> bool) -> Vec<Entry> {
    let mut wanted: std::collections::HashSet<Vec<u8>> = std::collections::HashSet::new();
    for entry in databases(entries).filter(|entry| is_wanted(&entry.path)) {
        wanted.insert(entry.path.clone());
        wanted.extend(LOGS.iter().map(|log| [&entry.path, *log].concat()));
        let slashes = entry.path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        wanted.extend(slashes.map(|(at, _)| entry.path[..at].to_vec()));
    }
    let is_part = |entry: &&Entry| {
        let is_kept = matches!(entry.kind, Kind::Folder | Kind::File(_));
        entry.path.is_empty() || (is_kept && wanted.contains(&entry.path))
    };
    entries.iter().filter(is_part).cloned().collect()
}

/// Returns whether a database has a journal that has to be rolled back before it can be read.
pub(super) fn with_journal(entries: &[Entry]) -> Vec<Vec<u8>> {
    let journals: std::collections::HashSet<&[u8]> = entries
        .iter()
        .filter(|entry| matches!(entry.kind, Kind::File(file) if file.size > 0))
        .filter_map(|entry| entry.path.strip_suffix(b"-journal"))
        .collect();
    databases(entries)
        .filter(|entry| journals.contains(entry.path.as_slice()))
        .map(|e| e.path.clone())
        .collect()
}

impl Record {
    pub(super) fn new(found: &[Inspected], recipes: Vec<Recipe>) -> Self {
        Self { databases: found.iter().map(|found| found.content.clone()).collect(), recipes }
    }

    /// Reads the record of a point; none when it was never looked at, or the record is no longer one.
    pub(super) fn load(path: &Path) -> io::Result<Option<Self>> {
        use io::Read;
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(RECORD_MAX_BYTES).read_to_end(&mut bytes)?;
        let record = serde_json::from_slice(&bytes);
        if let Err(error) = &record {
            tracing::warn!(path = %path.display(), %error, "what a point's databases hold has to be found out again");
        }
        Ok(record.ok())
    }

    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        files::write_atomic(path, &serde_json::to_vec(self)?, 0o600)
    }

    /// Finds a point of the same volume whose databases were made of the same bytes, and takes over what they hold.
    pub(super) fn borrow(own: &Path, recipes: &[Recipe]) -> io::Result<Option<Self>> {
        let Some(folder) = own.parent() else { return Ok(None) };
        let mut others: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let is_record = path.file_name().is_some_and(|name| name.as_bytes().ends_with(b".content.json"));
            if is_record && path != own {
                others.push(path);
            }
        }
        // The latest is the likeliest.
        others.sort_by_key(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok());
        for path in others.iter().rev().take(BORROWED_MAX) {
            if let Some(record) = Self::load(path)?.filter(|record| record.recipes == recipes) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    pub(super) fn sound(&self) -> Sound {
        let rows = self.databases.iter().map(rows).sum();
        Sound { databases: self.databases.len() as u64, rows }
    }
}

/// Records of other points that are read to save a look.
const BORROWED_MAX: usize = 50;

/// Counts the rows of an app: not what SQLite keeps for itself.
pub(super) fn rows(database: &DatabaseContent) -> u64 {
    let is_own = |table: &&TableContent| !table.name.starts_with("sqlite_");
    database.tables.iter().filter(is_own).map(|table| table.rows).sum()
}

/// Compares what was found with what was recorded, when that is known.
pub(super) fn check(found: &[Inspected], record: Option<&Record>) -> Result<Sound, Fault> {
    for one in found {
        let (path, reason) = (&one.content.path, one.content.unreadable.as_deref().unwrap_or_default());
        if let Some(damage) = one.damage.first() {
            let more = match one.damage.len() {
                1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            return Err(Fault::Broken(format!("`{path}` is damaged: integrity check: {damage}{more}")));
        }
        if one.is_limited {
            return Err(Fault::Box(format!("`{path}` could not be looked into: {reason}")));
        }
    }
    for then in record.iter().flat_map(|record| &record.databases) {
        let now = found.iter().find(|now| now.content.path == then.path);
        let Some(now) = now else {
            return Err(Fault::Broken(format!("`{}` is no database any more", then.path)));
        };
        compare(&now.content, then).map_err(Fault::Broken)?;
    }
    let sum = found.iter().map(|one| rows(&one.content)).sum();
    Ok(Sound { databases: found.len() as u64, rows: sum })
}

fn compare(now: &DatabaseContent, then: &DatabaseContent) -> Result<(), String> {
    if let (Some(reason), None) = (&now.unreadable, &then.unreadable) {
        return Err(format!("`{}` cannot be read any more: {reason}", now.path));
    }
    for then_table in &then.tables {
        let name = format!("`{}`, table `{}`", now.path, then_table.name);
        match now.tables.iter().find(|table| table.name == then_table.name) {
            None => return Err(format!("{name}: is gone, and had {} rows", then_table.rows)),
            Some(table) if table.rows != then_table.rows => {
                return Err(format!(
                    "{name}: has {} rows, and had {} when the point was taken",
                    table.rows, then_table.rows
                ));
            }
            Some(table) if table.digest != then_table.digest => {
                return Err(format!(
                    "{name}: its {} rows do not hold what they held when the point was taken",
                    table.rows
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
