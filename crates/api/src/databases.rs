//! SQLite databases in volumes, and statements on them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A database of a volume, looked into in a restore point.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Database {
    /// Name of the volume.
    pub volume: String,
    /// Path within the volume.
    pub path: String,
    /// `wal`, `delete`, …; as its header says.
    pub journal_mode: String,
    /// The SQLite library that wrote it last: `3.45.1`.
    #[serde(default)]
    pub sqlite_version: Option<String>,
    /// Its tables, by name.
    pub tables: Vec<Table>,
    /// Why its content could not be read, although its bytes are kept.
    #[serde(default)]
    pub unreadable: Option<String>,
    /// The restore point that was looked into.
    pub point: String,
    /// The instant of it, in milliseconds since 1970 UTC.
    pub taken_at: i64,
}

/// A table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Rows.
    pub rows: u64,
}

/// Asks to run a SQL statement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueryRequest {
    /// Path of the database within the volume.
    pub database: String,
    /// One statement.
    pub sql: String,
    /// The restore point to read, or the one that was taken before the first of several writes; none takes one now.
    #[serde(default)]
    pub point: Option<String>,
    /// Run it on the live database, and let it change that.
    #[serde(default)]
    pub write: bool,
}

/// What a statement came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueryResult {
    /// The restore point that was read, or that was taken before a write.
    pub point: String,
    /// The instant of it, in milliseconds since 1970 UTC.
    pub taken_at: i64,
    /// Names of the columns; none for a statement that returns no rows.
    pub columns: Vec<String>,
    /// The rows: numbers, text, null, and `{"blob": "the first bytes in hex", "bytes": 1234}`.
    pub rows: Vec<Vec<Value>>,
    /// Whether there were more rows, or longer values, than an answer may hold.
    #[serde(default)]
    pub truncated: bool,
    /// Rows that a write changed.
    #[serde(default)]
    pub changed: Option<u64>,
    /// How long it took in milliseconds.
    pub took_ms: u64,
}
