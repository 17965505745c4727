//! Variables of a service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A variable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value as it was set; only when asked to be shown.
    pub value: Option<String>,
    /// Shared by the whole project.
    pub shared: bool,
    /// Milliseconds since 1970 UTC.
    pub updated_at: i64,
}

/// A change of several variables at once; all or nothing.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct VariableChange {
    /// New values, byte for byte.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Names to remove.
    #[serde(default)]
    pub unset: Vec<String>,
    /// Change those shared by the project instead of the service's own.
    #[serde(default)]
    pub shared: bool,
}
