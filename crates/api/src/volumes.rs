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
    /// Who holds its lock now: an instance's id.
    pub held_by: Option<String>,
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
