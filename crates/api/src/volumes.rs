//! Volumes.

use serde::{Deserialize, Serialize};

/// A volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Where it is mounted.
    pub mount: String,
    /// Bytes used.
    pub used_bytes: u64,
    /// Bytes free on its disk.
    pub free_bytes: u64,
    /// Who holds its lock now: an instance's id; the latest when it is shared.
    pub held_by: Option<String>,
    /// Everybody who holds its lock now, as the kernel and the lock file say.
    #[serde(default)]
    pub holders: Vec<VolumeHolder>,
    /// Grows with each holder: whoever has a smaller one came before.
    #[serde(default)]
    pub fence: u64,
    /// The bytes that it may hold before its owner is warned and uploads are refused; none when it has no limit of its own.
    #[serde(default)]
    pub limit_bytes: Option<u64>,
    /// When restore points are taken by themselves: `hourly`, `daily`, `weekly`, `monthly`; empty means never.
    #[serde(default)]
    pub schedules: Vec<String>,
    /// SQLite databases that were found in it, known by their headers.
    #[serde(default)]
    pub databases: Vec<DatabaseSeen>,
    /// How many restore points it has.
    #[serde(default)]
    pub restore_points: u64,
    /// Its newest restore point, in milliseconds since 1970 UTC.
    #[serde(default)]
    pub last_restore_point: Option<i64>,
    /// The newest restore point that is proven restorable, likewise: what could be had back for certain.
    #[serde(default)]
    pub last_proven: Option<i64>,
    /// When that was proven, likewise.
    #[serde(default)]
    pub last_proof: Option<i64>,
    /// What its owner should hear: a proof that is overdue or failed, a disk or a limit that is nearly full.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// When its owner removed it, likewise.
    #[serde(default)]
    pub removed_at: Option<i64>,
    /// Until when a removed volume can be had back, likewise.
    #[serde(default)]
    pub kept_until: Option<i64>,
}

/// A SQLite database, as far as its header tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DatabaseSeen {
    /// Path within the volume.
    pub path: String,
    /// `wal` or `delete`.
    pub journal_mode: String,
    /// The SQLite library that wrote it last: `3.45.1`; none when the header does not say.
    #[serde(default)]
    pub sqlite_version: Option<String>,
    /// Size of its file in bytes.
    pub size_bytes: u64,
}

/// A holder of a volume's lock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeHolder {
    /// The instance; none when it is a process that Trackbed did not start.
    pub instance: Option<String>,
    /// The release that it runs: `v3`.
    pub release: Option<String>,
    /// The deployment that brought the release.
    pub deployment: Option<String>,
    /// Whether it lets others hold the lock, too.
    pub shared: bool,
}

/// Asks for a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeRequest {
    /// Its name.
    pub name: String,
    /// Where it is mounted.
    pub mount: String,
}

/// A file in a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path within the volume.
    pub path: String,
    /// `file`, `dir`, `link` or `other`.
    pub kind: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Milliseconds since 1970 UTC.
    pub modified_at: i64,
}

/// Changes a volume; what is not given stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct VolumeChange {
    /// The schedules, all of them; an empty list means never.
    #[serde(default)]
    pub schedules: Option<Vec<String>>,
    /// The limit in bytes; 0 means none.
    #[serde(default)]
    pub limit_bytes: Option<u64>,
}

/// Asks for a new volume with the data of another one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CloneRequest {
    /// Name of the new one.
    pub name: String,
    /// Where it is mounted; none means beside the other one, by its own name.
    #[serde(default)]
    pub mount: Option<String>,
    /// A point, as in [`crate::RestoreRequest`]; none means now.
    #[serde(default)]
    pub at: Option<String>,
}

/// What a folder of a volume uses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FolderUsage {
    /// Bytes on disk, all together.
    pub used_bytes: u64,
    /// Regular files, all together.
    pub files: u64,
    /// Bytes free on its disk.
    pub free_bytes: u64,
    /// The limit of the volume.
    pub limit_bytes: Option<u64>,
    /// What is in the folder, the largest first.
    pub entries: Vec<EntryUsage>,
    /// Whether there was more than could be counted in time.
    #[serde(default)]
    pub truncated: bool,
}

/// What a file or folder uses, with all that is below it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EntryUsage {
    /// Path within the volume.
    pub path: String,
    /// `file`, `dir`, `link` or `other`.
    pub kind: String,
    /// Bytes on disk.
    pub used_bytes: u64,
    /// Regular files.
    pub files: u64,
}
