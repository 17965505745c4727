//! What goes between the one who asks and the process that looks: one line of JSON each.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use trackbed_core::restore_point::DatabaseContent;
use trackbed_core::schema::DatabaseSchema;

/// What is asked for; the paths are arguments.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    /// Databases that are not looked into, by path within the folder.
    pub(super) skip: Vec<String>,
    /// SQL of a query.
    pub(super) sql: String,
    /// Limits of a query.
    pub(super) limits: QueryLimits,
    /// What a query may do.
    pub(super) mode: QueryMode,
    /// Milliseconds that a backup waits for a lock.
    pub(super) patience_ms: u64,
    /// Whether to be nice.
    pub(super) low_priority: bool,
}

/// What the process says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// It begins with a database, and takes at most so long.
    Begins { path: String, limit_ms: u64 },
    /// What it found in the database.
    Found(Box<Inspected>),
    /// What a database looks like.
    Schema(Box<DatabaseSchema>),
    /// What a query gave.
    Answer(Answer),
    /// It is done. A process that ends without saying so has been ended.
    Done,
    /// It could not do what it was asked for.
    Failed { reason: String },
}

/// What was found in a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// What it holds.
    pub content: DatabaseContent,
    /// What `PRAGMA integrity_check` has to say against it; at most some lines.
    pub damage: Vec<String>,
    /// Whether the look was cut short, by the clock or by the end of the process: another one may come further.
    pub is_limited: bool,
}

/// What a query may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryMode {
    /// Only read.
    #[default]
    Read,
    /// Change rows and schema, also of a live database: with SQLite's own locks, waiting for them.
    Write,
}

/// How much a query may give and take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryLimits {
    /// Most rows.
    pub rows: usize,
    /// Most bytes of text and blobs, all rows together.
    pub bytes: usize,
    /// Longest time.
    pub time: Duration,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { rows: 1000, bytes: 4 << 20, time: Duration::from_secs(20) }
    }
}

/// What a query gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The names of its columns; empty for a statement that gives no rows.
    pub columns: Vec<String>,
    /// Rows, as many as the limits allow.
    pub rows: Vec<Vec<Value>>,
    /// Whether there were more.
    pub is_cut: bool,
    /// Rows that the statement changed.
    pub changed: u64,
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// NULL.
    Null,
    /// A whole number.
    Integer(i64),
    /// A finite number; infinity is told as text.
    Real(f64),
    /// Text; what is no UTF-8 is replaced.
    Text(String),
    /// Bytes: how many, and the first of them in hex.
    Blob {
        /// How many.
        bytes: u64,
        /// The first ones.
        head: String,
    },
}
