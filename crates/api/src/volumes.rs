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
