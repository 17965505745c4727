//! The box itself.

use serde::{Deserialize, Serialize};

use crate::BackupTarget;

/// What a box says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BoxInfo {
    /// Version of the running binary.
    pub version: String,
    /// Its data directory.
    pub data_dir: String,
    /// Root domain: services answer at `<service>.<domain>`.
    pub domain: String,
    /// Process id of `serve`.
    pub pid: u32,
    /// Resident memory of `serve` in bytes.
    pub resident_bytes: u64,
    /// The edge, when it answers.
    pub edge: Option<EdgeInfo>,
    /// How well instances are kept apart.
    pub isolation: IsolationInfo,
    /// Where copies of the box go, and how they do; none when no target is set.
    #[serde(default)]
    pub backup: Option<BackupTarget>,
}

/// The edge process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EdgeInfo {
    /// Process id.
    pub pid: u32,
    /// The address it listens on.
    pub listen: String,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Version of its program; empty when it is too old to say.
    #[serde(default)]
    pub version: String,
    /// Replaced edges that still finish requests and streams.
    #[serde(default)]
    pub draining: u32,
}

/// The isolation level and what is missing compared with `full`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IsolationInfo {
    /// `full`, `userns`, `landlock` or `plain`.
    pub level: String,
    /// Each with its reason.
    pub missing: Vec<String>,
}

/// Asks the box to stop.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StopBox {
    /// Stop every instance too; otherwise they run on and a later `serve` adopts them.
    pub instances: bool,
}
