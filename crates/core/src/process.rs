//! The processes of a release: the main one, which listens, and those that run beside it in the same instance.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::ids::ParseError;
use crate::instance::Exit;

/// Most copies of one process.
pub const COUNT_MAX: u32 = 16;
/// Most processes of an instance in all, the main one included: each costs two pipes, and they share its limits.
pub const PROCESSES_MAX: u32 = 16;
/// Longest name in bytes: it stands before each line of the log.
const NAME_MAX_BYTES: usize = 32;

/// The name of a process, as a `Procfile` has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProcessName(String);

impl ProcessName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The process that gets the requests on every platform that has processes.
impl Default for ProcessName {
    fn default() -> Self {
        Self("web".to_owned())
    }
}

impl FromStr for ProcessName {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let inner = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if inner && !text.is_empty() && text.len() <= NAME_MAX_BYTES {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError {
            value: text.to_owned(),
            wanted: "the name of a process (1 to 32 letters, digits, `-` or `_`)",
        })
    }
}

impl TryFrom<String> for ProcessName {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<ProcessName> for String {
    fn from(name: ProcessName) -> String {
        name.0
    }
}

impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A process that a release runs beside its main one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideProcess {
    /// Its name.
    pub name: ProcessName,
    /// Run by `/bin/sh -c` in `/app`.
    pub command: String,
    /// How many copies run, from 0 to [`COUNT_MAX`].
    pub count: u32,
    /// Whether that is what the owner has set on the box, not what the source says.
    #[serde(default)]
    pub is_scaled: bool,
}

/// One copy of a process beside the main one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// Its name and number: `worker.1`.
    pub name: String,
    /// Run by `/bin/sh -c`.
    pub command: String,
}

/// The processes of one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formation {
    /// What the main process is called.
    pub main: ProcessName,
    /// What runs beside it; empty for most.
    pub beside: Vec<Beside>,
}

/// How a process beside the main one does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its name and number: `worker.1`.
    pub name: String,
    /// How often it has ended in this instance, whichever way.
    pub ends: u32,
    /// How often of these by anything but code 0.
    pub failures: u32,
    /// How it ended last.
    pub last: Option<Exit>,
    /// Since when it runs; none while it waits to be started again.
    pub since: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_a_procfile_may_have() {
        for name in ["web", "worker", "celery_beat", "Worker-2"] {
            assert_eq!(name.parse::<ProcessName>().unwrap().as_str(), name);
        }
        for name in ["", "a b", "worker.1", "a:b", "a/b", "\u{e4}", &"x".repeat(33)] {
            assert!(name.parse::<ProcessName>().is_err(), "{name}");
        }
    }
}
