//! A plan: what will be built and run, and where each value came from. Made from a source without running any of it.

use serde::{Deserialize, Serialize};

use crate::settings::{Origin, ServiceConfig};

/// Something in the source that is odd but does not stop a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// File relative to the source, when there is one.
    pub file: Option<String>,
    /// Line in that file, from 1.
    pub line: Option<u32>,
    /// What is odd, and the mend.
    pub message: String,
}

/// One line of `trackbed plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSetting {
    /// Dotted key: `deploy.startCommand`.
    pub key: String,
    /// The value as text.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
    /// The place in words: `railway.json:4`.
    pub place: String,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The provider that will build it, such as `python`.
    pub provider: String,
    /// What the provider found, for people: `python 3.12 (.python-version), requirements.txt, uv`.
    pub summary: String,
    /// Every setting and its origin.
    pub settings: Vec<PlannedSetting>,
    /// The configuration that a release of this plan gets.
    pub config: ServiceConfig,
    /// What the provider must remember between plan and build; only it reads this.
    pub recipe: serde_json::Value,
    /// What is odd.
    pub warnings: Vec<Warning>,
}
