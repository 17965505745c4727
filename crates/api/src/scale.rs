//! How many copies of each process of a service run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A process of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScaledProcess {
    /// Its name: `worker`.
    pub name: String,
    /// Its command in the live release; none when that has no such process.
    pub command: Option<String>,
    /// How many copies the live release runs.
    pub count: u32,
    /// How many its owner wants, whatever the source says; none means what the source says.
    pub wanted: Option<u32>,
}

/// A change of several counts at once; all or nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ScaleChange {
    /// New counts by process; none takes back what was set.
    pub set: BTreeMap<String, Option<u32>>,
}
