//! How well an instance is kept apart from the rest of the box, told honestly.

use serde::{Deserialize, Serialize};

/// The level reached on this box, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsolationLevel {
    /// Root: own file tree, processes, users, network and resource limits.
    Full,
    /// Ordinary user with user namespaces: own file tree and processes; network shared with the box.
    Userns,
    /// No namespaces: file access narrowed by Landlock only.
    Landlock,
    /// Nothing: an ordinary child process.
    Plain,
}

impl IsolationLevel {
    /// Returns the word used in output and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            IsolationLevel::Full => "full",
            IsolationLevel::Userns => "userns",
            IsolationLevel::Landlock => "landlock",
            IsolationLevel::Plain => "plain",
        }
    }
}

impl std::str::FromStr for IsolationLevel {
    type Err = crate::ids::ParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "full" => Ok(IsolationLevel::Full),
            "userns" => Ok(IsolationLevel::Userns),
            "landlock" => Ok(IsolationLevel::Landlock),
            "plain" => Ok(IsolationLevel::Plain),
            _ => Err(crate::ids::ParseError {
                value: text.to_owned(),
                wanted: "an isolation level (`full`, `userns`, `landlock` or `plain`)",
            }),
        }
    }
}

/// What the engine found when it probed this box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// The level that instances get.
    pub level: IsolationLevel,
    /// What is missing compared with `full`, each with its reason: `memory limit: no delegated cgroup`.
    pub missing: Vec<String>,
}
