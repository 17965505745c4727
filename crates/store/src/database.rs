//! Opening, migrating and calling the database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::Mutex;

use crate::seal::{Key, SealError};

/// Every migration, in order. They only add; a later one may contract what nobody reads any more.
const MIGRATIONS: [&str; 7] = [
    include_str!("../migrations/1-first.sql"),
    include_str!("../migrations/2-stopped.sql"),
    include_str!("../migrations/3-order.sql"),
    include_str!("../migrations/4-data.sql"),
    include_str!("../migrations/5-git.sql"),
    include_str!("../migrations/6-hooks.sql"),
    include_str!("../migrations/7-scale.sql"),
];

/// How long to wait for another process that holds the database: only a second `serve`, which the data directory's
/// lock already refuses, or a person with the `sqlite3` shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the state database refused")]
    Sql(#[from] rusqlite::Error),
    /// A row holds something this version cannot read.
    #[error("a row of the state database cannot be read")]
    Body(#[from] serde_json::Error),
    /// A row holds a name or id that is none.
    #[error("a row of the state database holds a bad name")]
    Parse(#[from] trackbed_core::ids::ParseError),
    /// A secret cannot be opened or the key file cannot be used.
    #[error("a secret in the state database cannot be read")]
    Seal(#[from] SealError),
    /// The database is from a later version.
    #[error(
        "the state database {path} has format {found}, newer than this trackbed knows ({known}); use the newer trackbed"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: usize,
        /// The newest format that this binary knows.
        known: usize,
    },
    /// It does not fit what is there.
    #[error("{0}")]
    Conflict(String),
    /// The runtime is shutting down.
    #[error("the state database is closed")]
    Closed,
}

/// A handle to the one connection. Clones share it; it is closed with the last of them.
///
/// Calls run one after the other, in the order in which they were made, as blocking tasks of the runtime: never more
/// than one thread is taken, and tokio's paused clock stands still while a call runs, so that tests of waits are true.
#[derive(Clone)]
pub struct Store {
    pub(crate) opened: Arc<Mutex<Opened>>,
}

pub(crate) struct Opened {
    pub(crate) connection: Connection,
    key: Key,
}

/// One transaction. Typed queries are added by the files of this crate.
pub struct Db<'a> {
    pub(crate) sql: Transaction<'a>,
    pub(crate) key: &'a Key,
}

impl Store {
    /// Opens or makes the database and brings it to this version's format. A copy of an older format is kept beside it.
    ///
    /// # Errors
    /// When it is from a later version, is not a database, or the disk refuses.
    pub fn open(path: &Path, key: Key) -> Result<Store, StoreError> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection
            .execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")?;
        migrate(&mut connection, path)?;
        Ok(Store { opened: Arc::new(Mutex::new(Opened { connection, key })) })
    }

    /// Runs `work` as one transaction: all of it is stored, or (when it returns an error) none. Dropping the future
    /// does not stop a transaction that has been handed over.
    ///
    /// # Errors
    /// Whatever `work` returns, or that the transaction could not be committed.
    pub async fn with<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Db<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let mut opened = self.opened.clone().lock_owned().await;
        let call = tokio::task::spawn_blocking(move || {
            let Opened { connection, key } = &mut *opened;
            transact(connection, key, work)
        });
        match call.await {
            Ok(outcome) => outcome,
            // A panic of `work` rolled its transaction back; it is the caller's to suffer.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StoreError::Closed),
            },
        }
    }
}

fn transact<T>(
    connection: &mut Connection,
    key: &Key,
    work: impl FnOnce(&Db<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let sql = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let db = Db { sql, key };
    let value = work(&db)?;
    db.sql.commit()?;
    Ok(value)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    if found > MIGRATIONS.len() {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: MIGRATIONS.len() });
    }
    if found > 0 && found < MIGRATIONS.len() {
        let copy = path.with_extension(format!("before-format-{}", MIGRATIONS.len()));
        let _ = std::fs::remove_file(&copy);
        connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(found) {
        let sql = connection.transaction()?;
        sql.execute_batch(migration)?;
        sql.pragma_update(None, "user_version", i64::try_from(index + 1).unwrap_or(i64::MAX))?;
        sql.commit()?;
    }
    Ok(())
}

/// Returns the row, or none when there is none.
pub(crate) fn optional<T>(found: Result<T, rusqlite::Error>) -> Result<Option<T>, StoreError> {
    match found {
        Ok(row) => Ok(Some(row)),
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_sqlite_has_the_wal_reset_fix() {
        // Corruption bug of 3.7.0 to 3.51.2 (sqlite.org/wal.html): a checkpoint racing a writer.
        assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
    }

    #[tokio::test]
    async fn a_newer_database_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let Err(error) = Store::open(&path, Key::for_tests()) else { panic!("must refuse") };
        assert!(error.to_string().contains("newer than this trackbed"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_paused_clock_stands_still_while_a_call_runs() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state.db"), Key::for_tests()).unwrap();
        let slow = store.with(|_| {
            std::thread::sleep(Duration::from_millis(20));
            Ok(())
        });
        tokio::time::timeout(Duration::from_secs(1), slow).await.expect("no virtual time passes").unwrap();
    }

    #[tokio::test]
    async fn a_database_of_the_first_format_is_copied_and_brought_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.execute_batch(
            "INSERT INTO projects VALUES ('prj_0000000000000000', 'web', 1);
             INSERT INTO environments VALUES ('env_0000000000000000', 'prj_0000000000000000', 'production');
             INSERT INTO services VALUES ('svc_0000000000000000', 'env_0000000000000000', 'web', 'web.localhost',
                 1, 'stopped', NULL, 1);
             INSERT INTO deployments VALUES
                 ('dep_0000000000000002', 'svc_0000000000000000', 'queued', '{}', 20, 0),
                 ('dep_0000000000000001', 'svc_0000000000000000', 'success', '{}', 10, 1);
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(old);
        let store = Store::open(&path, Key::for_tests()).unwrap();
        let services = store.with(|db| db.list_services()).await.unwrap();
        assert_eq!(services[0].name.as_str(), "web");
        let newest = store
            .with(|db| {
                let sql = "SELECT id FROM deployments ORDER BY number DESC LIMIT 1";
                Ok(db.sql.query_row(sql, [], |row| row.get::<_, String>(0))?)
            })
            .await
            .unwrap();
        assert_eq!(newest, "dep_0000000000000002", "in the order in which they were asked for");
        let asked_later = newest.parse().unwrap();
        assert!(!store.with(move |db| db.was_stopped_after(&asked_later)).await.unwrap());
        assert!(path.with_extension(format!("before-format-{}", MIGRATIONS.len())).exists());
    }

    #[tokio::test]
    async fn a_failed_call_stores_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state.db"), Key::for_tests()).unwrap();
        let failed: Result<(), _> = store
            .with(|db| {
                db.sql.execute("INSERT INTO settings VALUES ('a', 'b')", [])?;
                Err(StoreError::Conflict("no".into()))
            })
            .await;
        assert!(failed.is_err());
        let count: i64 = store
            .with(|db| Ok(db.sql.query_row("SELECT count(*) FROM settings", [], |row| row.get(0))?))
            .await
            .unwrap();
        assert_eq!(count, 0);
    }
}
