//! What `trackbed check` finds. No call of the API answers with it: the look is taken where the source lies.

use serde::{Deserialize, Serialize};

/// What a look at a source found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The worst first.
    pub findings: Vec<Finding>,
    /// How many files of code were read.
    pub files_read: usize,
    /// Whether a service on a box lent its variables and volumes.
    pub is_service_known: bool,
    /// Everything that was looked for; not part of `--json`.
    #[serde(skip)]
    pub rules: Vec<CheckRule>,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Id of the rule: `data-outside-volume`.
    pub rule: String,
    /// `error`, `warning` or `note`.
    pub level: String,
    /// File relative to the source.
    pub file: Option<String>,
    /// Line in it, from 1.
    pub line: Option<u32>,
    /// What stands there.
    pub what: String,
    /// What comes of it.
    pub why: String,
    /// What to do about it.
    pub mend: String,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckRule {
    /// Its id.
    pub id: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// What it means and what to do.
    pub help: &'static str,
    /// Its level at worst.
    pub level: &'static str,
}
