//! Copies off the box: where they go, and what is known of them.

use serde::{Deserialize, Serialize};

use crate::{Secret, Timestamp};

/// Where copies of the box go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsiteTarget {
    /// `s3://bucket/prefix?region=…`, `gs://…`, `az://…` or `file:///path`; holds no secret.
    pub url: String,
    /// Settings of the object store, by the names of its kind (`access_key_id`); most are credentials.
    pub options: Vec<(String, Secret<String>)>,
    /// The age identity (`AGE-SECRET-KEY-1…`) that opens the copies.
    pub identity: Secret<String>,
    /// Most bytes a second to and from the target; none means as fast as it goes.
    pub bandwidth_bytes: Option<u64>,
}

/// What a pass of the mirror came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MirrorReport {
    /// The number of the head that the target has now; grows with each.
    pub sequence: u64,
    /// Whether a new head was written; none is when nothing is new.
    pub is_new: bool,
    /// Objects that were sent.
    pub sent_objects: u64,
    /// Their bytes, before encryption.
    pub sent_bytes: u64,
    /// Objects that the head names.
    pub objects: u64,
    /// Their bytes, before encryption.
    pub bytes: u64,
    /// Objects that were read back whole, decrypted and compared.
    pub read_back: u64,
    /// Objects that were removed, because the box has not had them for long enough.
    pub removed: u64,
    /// Objects that were found damaged or missing. Those that the box still has are sent again by the next pass.
    pub damaged: Vec<String>,
}

/// What the box has and the target does not, as far as the box knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Missing {
    /// Objects.
    pub objects: u64,
    /// Their bytes, before encryption.
    pub bytes: u64,
}

/// What is remembered of the mirror of a target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MirrorRecord {
    /// When a pass last ended well: all that the box had when it began is at the target.
    pub succeeded_at: Option<Timestamp>,
    /// What that pass came to.
    pub report: Option<MirrorReport>,
    /// Since when passes fail, and why; none when the last one ended well.
    pub failing: Option<MirrorFailure>,
    /// The last proof of a point from the target alone.
    pub drill: Option<OffsiteDrill>,
}

/// Passes that fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorFailure {
    /// Since when.
    pub since: Timestamp,
    /// Why the last one failed, with the way out.
    pub reason: String,
}

/// A point that was restored from the target alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsiteDrill {
    /// When.
    pub at: Timestamp,
    /// Its manifest.
    pub point: String,
    /// What is wrong with it; none when every byte and every row is there.
    pub broken: Option<String>,
    /// Bytes that were fetched for it, before encryption.
    pub fetched_bytes: u64,
}
