//! What the databases of a folder hold.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trackbed_core::restore_point::DatabaseContent;

use super::database::{self, Copy};
use super::digest;
use super::wire::{Inspected, Line};

/// How every SQLite database begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The part of the header that is looked at.
const HEADER_BYTES: usize = 100;
/// Most databases of a folder; the others are not looked into, and that is an error.
const DATABASES_MAX: usize = 10_000;
/// Most tables of a database.
const TABLES_MAX: usize = 20_000;
/// Lines of an integrity check.
const DAMAGE_MAX: u32 = 20;
/// Letters of such a line.
const LINE_MAX: usize = 300;
/// Time for any database, and what a megabyte of it adds on a busy disk at low priority.
const TIME: Duration = Duration::from_secs(30);
const TIME_PER_MEGABYTE: Duration = Duration::from_millis(400);

/// Looks into every database below the working folder.
pub(super) fn all(skip: &[String], say: &mut dyn FnMut(Line) -> io::Result<()>) -> io::Result<()> {
    for path in find(Path::new("."))? {
        let name = path.strip_prefix(".").unwrap_or(&path).to_string_lossy().into_owned();
        if skip.contains(&name) {
            continue;
        }
        let bytes =
            fs::metadata(&path)?.len() + fs::metadata(beside(&path, "-wal")).map_or(0, |wal| wal.len());
        let time = TIME + TIME_PER_MEGABYTE * u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        say(Line::Begins {
            path: name.clone(),
            limit_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        })?;
        say(Line::Found(Box::new(one(&path, name, time)?)))?;
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns every regular file that begins as a database does, in the order of their names. Follows no link.
pub(super) fn find(root: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && header(&entry.path())?.is_some() {
                found.push(entry.path());
            }
        }
        if found.len() > DATABASES_MAX {
            return Err(io::Error::other(format!("there are more than {DATABASES_MAX} databases")));
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the header of a database, or none for another file.
fn header(path: &Path) -> io::Result<Option<[u8; HEADER_BYTES]>> {
    let opened = File::options().read(true).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(path);
    let mut file = match opened {
        Ok(file) => file,
        // Its owner has taken the right to read it from itself: whatever it is, nobody looks into it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; HEADER_BYTES];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes.starts_with(MAGIC).then_some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn one(path: &Path, name: String, time: Duration) -> io::Result<Inspected> {
    let bytes = header(path)?.ok_or_else(|| io::Error::other("it has lost its header"))?;
    let number = u32::from_be_bytes([bytes[96], bytes[97], bytes[98], bytes[99]]);
    let version = format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000);
    let journal_mode = match (bytes[18], bytes[19]) {
        (2, 2) => "wal",
        (1, 1) => "delete",
        _ => "unknown",
    };
    let mut found = Inspected {
        content: DatabaseContent {
            path: name,
            journal_mode: journal_mode.into(),
            sqlite_version: (number != 0).then_some(version),
            tables: Vec::new(),
            unreadable: None,
        },
        damage: Vec::new(),
        is_limited: false,
    };
    if let Err(error) = Copy::open(path, time).and_then(|copy| look(&copy, path, time, &mut found)) {
        found.is_limited |= database::is_interrupted(&error);
        found.content.unreadable.get_or_insert_with(|| database::explain(&error));
    }
    Ok(found)
}

/// Checks the structure and reads the tables, both at once.
fn look(copy: &Copy, path: &Path, time: Duration, found: &mut Inspected) -> rusqlite::Result<()> {
    // Whoever cannot read even that has no database before him, as far as SQLite can tell.
    found.content.tables.push(digest::schema(copy)?);
    let names = tables(copy)?;
    std::thread::scope(|scope| {
        let checking = scope.spawn(|| Copy::open(path, time).and_then(|copy| integrity(&copy)));
        let read: Vec<_> = names.iter().map(|name| (name, digest::table(copy, name))).collect();
        match checking.join() {
            Ok(Ok(damage)) => found.damage = damage,
            Ok(Err(error)) => note(found, &error, "its integrity cannot be checked"),
            // As for a process that dies.
            Err(_) => found.is_limited = true,
        }
        for (name, table) in read {
            match table {
                Ok(table) => found.content.tables.push(table),
                Err(error) => note(found, &error, &format!("table `{name}`")),
            }
        }
    });
    Ok(())
}

/// Writes down why something of a database could not be read. What is malformed is damage; for the rest, the first reason
/// stands.
fn note(found: &mut Inspected, error: &rusqlite::Error, what: &str) {
    let reason: String = format!("{what}: {}", database::explain(error)).chars().take(LINE_MAX).collect();
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt) {
        if found.damage.len() < DAMAGE_MAX as usize {
            found.damage.push(reason);
        }
        return;
    }
    found.is_limited |= database::is_interrupted(error);
    found.content.unreadable.get_or_insert(reason);
}

/// Returns what is wrong with the structure of the file; nothing when it is whole.
fn integrity(copy: &Copy) -> rusqlite::Result<Vec<String>> {
    let mut statement = copy.prepare(&format!("PRAGMA integrity_check({DAMAGE_MAX})"))?;
    let mut rows = statement.query([])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        let line: String = row.get_ref(0)?.as_bytes().map(String::from_utf8_lossy).unwrap_or_default().into();
        lines.push(line.chars().take(LINE_MAX).collect::<String>());
    }
    let is_whole = lines == ["ok"];
    Ok(if is_whole { Vec::new() } else { lines })
}

/// Returns the tables that are in the file. A virtual table is in it as the tables that its module keeps.
fn tables(copy: &Copy) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 \
               AND name NOT LIKE 'sqlite_stat%' ORDER BY name LIMIT ?1";
    let mut statement = copy.prepare(sql)?;
    let names = statement.query_map([i64::try_from(TABLES_MAX).unwrap_or(i64::MAX)], |row| row.get(0))?;
    names.collect()
}
