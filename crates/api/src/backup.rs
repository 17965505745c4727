//! Copies off the box.

use serde::{Deserialize, Serialize};

/// The target of the copies and how they do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Backup {
    /// The target; none when none is set.
    pub target: Option<BackupTarget>,
}

/// A target.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BackupTarget {
    /// Its address.
    pub url: String,
    /// Who can open the copies: `age1…`.
    pub recipient: String,
    /// Names of the settings that were given; their values are shown nowhere.
    pub options: Vec<String>,
    /// The cap in bytes a second.
    pub bandwidth_bytes: Option<u64>,
    /// Whether a pass is under way.
    pub is_running: bool,
    /// Passes that ended since `serve` started.
    pub passes: u64,
    /// When the last good pass began: all that the box had then is at the target. Milliseconds since 1970 UTC.
    pub succeeded_at: Option<i64>,
    /// Since when passes fail.
    pub failing_since: Option<i64>,
    /// Why the last one failed.
    pub failure: Option<String>,
    /// Objects that were not sent yet.
    pub missing_objects: u64,
    /// Their bytes; folders are measured when they are sent.
    pub missing_bytes: u64,
    /// Objects at the target, as the newest head names them.
    pub objects: u64,
    /// Their bytes before encryption.
    pub bytes: u64,
    /// The number of the newest head.
    pub sequence: u64,
    /// Objects that were found damaged by the last pass that did something.
    pub damaged: Vec<String>,
    /// When a point was last restored from the target alone.
    pub drilled_at: Option<i64>,
    /// What was wrong with it.
    pub drill_broken: Option<String>,
    /// A loud warning, when there is one.
    pub warning: Option<String>,
}

/// Copies of one moment, as `recover --list` tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupCopy {
    /// Their number, for `recover --at`; none when it cannot be read any more.
    pub number: Option<u64>,
    /// The object that holds their head.
    pub head: String,
    /// When the copied state was the box's, by the clock of the box. Milliseconds since 1970 UTC.
    pub taken_at: Option<i64>,
    /// Objects that they consist of.
    pub objects: u64,
    /// Their bytes before encryption.
    pub bytes: u64,
    /// Restore points among them.
    pub points: u64,
    /// What is wrong with them; empty when all of it is there.
    pub faults: Vec<String>,
}

/// Sets the target.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct BackupTargetRequest {
    /// `s3://BUCKET/PREFIX?region=…&endpoint=…`, `gs://…`, `az://…`, `file:///PATH`.
    pub url: String,
    /// Settings and credentials of the store.
    #[serde(default)]
    pub options: Vec<(String, String)>,
    /// An identity to go on with; none keeps the one there is, or makes one.
    #[serde(default)]
    pub identity: Option<String>,
    /// A cap in bytes a second.
    #[serde(default)]
    pub bandwidth_bytes: Option<u64>,
    /// Take the prefix from another box.
    #[serde(default)]
    pub take_over: bool,
    /// No other box writes there, although the store cannot make sure of it.
    #[serde(default)]
    pub assume_exclusive: bool,
}

impl std::fmt::Debug for BackupTargetRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupTargetRequest").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The key of the copies.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct BackupKey {
    /// `AGE-SECRET-KEY-1…`; none when a target was set with a key that its owner has already.
    pub identity: Option<String>,
}

impl std::fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BackupKey(…)")
    }
}
