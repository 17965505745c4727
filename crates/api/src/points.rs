//! Restore points: what one can go back to, what is known of it, and going back.

use serde::{Deserialize, Serialize};

/// The data of a volume at one instant, kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestorePoint {
    /// Its id.
    pub id: String,
    /// Name of the volume.
    pub volume: String,
    /// The instant that it holds, in milliseconds since 1970 UTC.
    pub taken_at: i64,
    /// Why it was taken: `deployment`, `schedule`, `command` or `before-restore`.
    pub why: String,
    /// The deployment that it was taken for.
    #[serde(default)]
    pub deployment: Option<String>,
    /// The schedules that it was due for.
    #[serde(default)]
    pub schedules: Vec<String>,
    /// The release that had written the data: `v3`.
    #[serde(default)]
    pub release: Option<String>,
    /// `instant`: all files are from one instant. `per-database`: each database is from an instant of its own.
    pub consistency: String,
    /// How long the app stood still for it, in milliseconds.
    pub pause_ms: u64,
    /// Regular files.
    pub files: u64,
    /// Their bytes, as an app counts them.
    pub bytes: u64,
    /// Bytes that it added on disk.
    pub stored_bytes: u64,
    /// SQLite databases among the files.
    #[serde(default)]
    pub databases: Vec<String>,
    /// What was left out, with the reason.
    #[serde(default)]
    pub skipped: Vec<String>,
    /// The last proof that it can be restored; none until the first.
    #[serde(default)]
    pub proof: Option<Proof>,
}

/// What came of restoring a point to a scratch place and looking at it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proof {
    /// When, in milliseconds since 1970 UTC.
    pub at: i64,
    /// How long it took in milliseconds.
    pub took_ms: u64,
    /// Whether every byte was there and every database was whole and held what it had held.
    pub proven: bool,
    /// Whether nobody knows: each look at it failed for another reason than what it holds.
    #[serde(default)]
    pub undecided: bool,
    /// Databases that were looked into.
    #[serde(default)]
    pub databases: u64,
    /// Their rows.
    #[serde(default)]
    pub rows: u64,
    /// What is wrong, when it is not proven.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Asks for restore points of volumes of one service, all at the same instant.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// Name of a volume; none means all of the service.
    #[serde(default)]
    pub volume: Option<String>,
}

/// Asks that the data of a point is put in the place of the volume's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// Id of a point, `proven` for the newest that is proven, or milliseconds since 1970 UTC for the newest that is not
    /// younger.
    pub at: String,
}

/// Asks for a proof of a point of the volume.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DrillRequest {
    /// Its id; none means the newest.
    #[serde(default)]
    pub point: Option<String>,
}

/// Asks that files or folders which an app keeps outside its volumes move into one, all at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AdoptionRequest {
    /// Absolute, as the app sees them, or relative to the app's folder; none means every database outside the volumes.
    #[serde(default)]
    pub paths: Vec<String>,
    /// The volume that takes them; may be left out where the service has only one.
    #[serde(default)]
    pub volume: Option<String>,
}

/// What going back to a point would change in a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Difference {
    /// The point that the volume was compared with.
    pub point: RestorePoint,
    /// How they differ.
    #[serde(flatten)]
    pub changes: Changes,
}

/// How the data of a volume differs from a point that it goes back to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Changes {
    /// Files that the volume has and the point does not: set aside by a restore.
    pub added: u64,
    /// Files whose content differs.
    pub changed: u64,
    /// Files that the point has and the volume does not: brought back by a restore.
    pub missing: u64,
    /// Some of the paths, each with `+`, `~` or `-` before it.
    pub paths: Vec<String>,
    /// Tables whose count of rows or content differs.
    pub tables: Vec<TableDifference>,
}

/// How a table differs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TableDifference {
    /// Path of the database within the volume.
    pub database: String,
    /// The table.
    pub table: String,
    /// Rows in the volume now; none when it has no such table.
    pub rows_now: Option<u64>,
    /// Rows in the point; none when it has no such table.
    pub rows_then: Option<u64>,
}

/// What a rollback with data would do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RollbackPreview {
    /// The release that would be live: `v3`.
    pub release: String,
    /// How each volume differs from what it would become.
    pub volumes: Vec<Difference>,
}
