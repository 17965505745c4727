//! The database: one connection to one SQLite file, used by one request after the other.
//!
//! Its tables are those of the Python edition, so a volume may go from one edition to the other.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// Switching a new file to WAL ignores the busy timeout, so processes that start together try again.
const PREPARE_ATTEMPTS: u32 = 50;
const PREPARE_PAUSE: Duration = Duration::from_millis(100);
const REASON_MAX_CHARS: usize = 200;

/// A moment as both editions write it, in UTC.
pub const NOW: &str = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'";
/// The same moment as the API tells it.
pub const TOLD_CREATED_AT: &str = "replace(created_at, ' ', 'T') || 'Z'";

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS threads (
        id INTEGER NOT NULL PRIMARY KEY,
        owner VARCHAR(255) NOT NULL,
        title VARCHAR(200) NOT NULL,
        created_at DATETIME NOT NULL
    );
    CREATE INDEX IF NOT EXISTS ix_threads_owner ON threads (owner);
    -- `interrupted` marks a reply that ended early: the client left, the process stopped or the model failed.
    CREATE TABLE IF NOT EXISTS messages (
        id INTEGER NOT NULL PRIMARY KEY,
        thread_id INTEGER NOT NULL REFERENCES threads (id),
        role VARCHAR(16) NOT NULL,
        content TEXT NOT NULL,
        interrupted BOOLEAN NOT NULL,
        created_at DATETIME NOT NULL
    );
    CREATE INDEX IF NOT EXISTS ix_messages_thread_id ON messages (thread_id);
";

/// Why the database cannot be used; short enough for a health answer.
#[derive(Debug)]
pub struct DatabaseUnavailable(pub String);

impl From<rusqlite::Error> for DatabaseUnavailable {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string().chars().take(REASON_MAX_CHARS).collect())
    }
}

/// The one database of the process.
#[derive(Clone)]
pub struct Database {
    // Each query takes microseconds, so one connection is enough, and nobody waits for a pool.
    connection: Arc<Mutex<Connection>>,
    file: PathBuf,
    identity: Identity,
}

type Identity = (u64, u64);

impl Database {
    /// Opens the file and creates the tables that are missing; several processes may do so at once. Blocking.
    pub fn open(file: &Path) -> Result<Self, DatabaseUnavailable> {
        let cannot = |why: &dyn std::fmt::Display| {
            DatabaseUnavailable(format!("cannot open database {}: {why}", file.display()))
        };
        let file = std::path::absolute(file).map_err(|error| cannot(&error))?;
        if !file.parent().is_some_and(Path::is_dir) {
            return Err(cannot(&"its directory does not exist (is the volume mounted?)"));
        }
        let mut attempt = 1;
        let connection = loop {
            match prepare(&file) {
                Ok(connection) => break connection,
                Err(error) if is_busy(&error) && attempt < PREPARE_ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(PREPARE_PAUSE);
                }
                Err(error) => return Err(cannot(&error)),
            }
        };
        let identity = identity(&file).map_err(|error| cannot(&error))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), file, identity })
    }

    /// Runs queries that only read, all on the same state of the data.
    pub async fn read<T, F>(&self, queries: F) -> Result<T, DatabaseUnavailable>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction) -> rusqlite::Result<T> + Send + 'static,
    {
        self.run(TransactionBehavior::Deferred, queries).await
    }

    /// Runs queries that write, whole or not at all. A transaction that reads first and writes later can lose the race
    /// for the write lock without any waiting, so this one takes the lock at its beginning.
    pub async fn write<T, F>(&self, queries: F) -> Result<T, DatabaseUnavailable>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction) -> rusqlite::Result<T> + Send + 'static,
    {
        self.run(TransactionBehavior::Immediate, queries).await
    }

    /// Fails unless a table can be read from the file on disk.
    pub async fn check(&self) -> Result<(), DatabaseUnavailable> {
        // SQLite goes on answering from a file that was unlinked under it; what is written there is lost, so a file
        // that changed its identity counts as gone.
        match identity(&self.file) {
            Err(_) => return Err(DatabaseUnavailable("the database file is gone".to_owned())),
            Ok(current) if current != self.identity => {
                return Err(DatabaseUnavailable("the database file was replaced while in use".to_owned()));
            }
            Ok(_) => {}
        }
        // `SELECT 1` alone never touches the file; naming a table makes it do so.
        let query = self
            .read(|tx| tx.query_row("SELECT count(*) FROM (SELECT 1 FROM threads LIMIT 1)", [], |_| Ok(())));
        let late = |_| DatabaseUnavailable("no answer in time".to_owned());
        tokio::time::timeout(CHECK_TIMEOUT, query).await.map_err(late)?
    }

    async fn run<T, F>(&self, behavior: TransactionBehavior, queries: F) -> Result<T, DatabaseUnavailable>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction) -> rusqlite::Result<T> + Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        let work = move || {
            // A query that panicked has rolled its transaction back, so the connection is still good.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(behavior)?;
            let found = queries(&transaction)?;
            transaction.commit()?;
            Ok(found)
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| DatabaseUnavailable(error.to_string()))?
    }
}

fn prepare(file: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(file)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLES)?;
    transaction.commit()?;
    Ok(connection)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn identity(file: &Path) -> io::Result<Identity> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}
