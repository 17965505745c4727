//! Opening a database that may be hostile.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// What SQLite may take of the memory.
pub(super) const HEAP_BYTES: i64 = 384 << 20;
/// What of a copy is mapped; the rest is read.
const MAPPED_BYTES: i64 = 1 << 30;
/// The longest text or blob that is read. A longer one makes its table unreadable, not the process too big.
const VALUE_BYTES: i32 = 128 << 20;
/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 20_000;
/// What may lie beside a database.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A copy of a database, open. Whatever it holds is only looked at: nothing of its schema is run, and neither its file
/// nor its write-ahead log is changed (a hot journal is rolled back).
pub(super) struct Copy {
    pub(super) connection: Option<Connection>,
    /// What opening may bring forth and closing has to remove.
    absent: Vec<std::path::PathBuf>,
}

impl Copy {
    /// Opens a copy.
    pub(super) fn open(path: &Path, time: Duration) -> rusqlite::Result<Self> {
        let beside = |suffix: &&str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            std::path::PathBuf::from(name)
        };
        let absent = COMPANIONS.iter().map(beside).filter(|path| path.symlink_metadata().is_err()).collect();
        let mut copy = Self { connection: None, absent };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let connection = copy.connection.insert(Connection::open_with_flags(path, flags)?);
        harden(connection, time)?;
        // Nobody changes a copy while it is read, so its pages need not be copied once more.
        pragma(connection, "mmap_size", MAPPED_BYTES)?;
        // What the log holds stays there.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(copy)
    }
}

impl std::ops::Deref for Copy {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("it is open until it is dropped")
    }
}

impl std::ops::DerefMut for Copy {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is open until it is dropped")
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        drop(self.connection.take());
        for path in &self.absent {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Trusts nothing that stands in the file, and bounds what reading it may take.
pub(super) fn harden(connection: &mut Connection, time: Duration) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
    let end = deadline(time);
    connection.progress_handler(STEPS, Some(move || Instant::now() > end))?;
    pragma(connection, "hard_heap_limit", HEAP_BYTES)?;
    pragma(connection, "mmap_size", 0)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Sets a pragma that answers with its new value.
fn pragma(connection: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, name, value, |_| Ok(()))
}

fn deadline(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now)
}

/// Returns whether an error says more about this moment than about the file: there was too little time.
pub(super) fn is_interrupted(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}

/// Returns what an error means for whoever owns the database.
pub(super) fn explain(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is encrypted or no SQLite database".into(),
        Some(ErrorCode::OperationInterrupted) => "it takes too long to read".into(),
        Some(ErrorCode::OutOfMemory | ErrorCode::TooBig) => {
            "it needs more memory to be read than the look into it may take".into()
        }
        _ => error.to_string(),
    }
}
