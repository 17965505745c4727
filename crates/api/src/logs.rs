//! What apps and builds wrote.

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogLine {
    /// Milliseconds since 1970 UTC.
    pub at: i64,
    /// `out`, `err` or `system`.
    pub stream: String,
    /// The line without its end.
    pub text: String,
    /// The instance that wrote it; none for a build.
    pub instance: Option<String>,
    /// Which process wrote it (`web`, `worker.1`), where there is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
}

/// Some lines, oldest first, and where to go on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogPage {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// Pass this as `from` to go on; opaque.
    pub next: String,
    /// Nothing will be added any more (a finished build).
    pub ended: bool,
}

/// Asks to run a command in the live instance of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRequest {
    /// Program and arguments.
    pub command: Vec<String>,
}

/// One line of the answer to [`RunRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum RunEvent {
    /// The command wrote a line.
    Line {
        /// `out` or `err`.
        stream: String,
        /// The line.
        text: String,
    },
    /// It ended; the last event.
    Exit {
        /// Its exit code, 128 + signal when a signal ended it.
        code: i32,
        /// In words, when it did not return by itself.
        message: Option<String>,
    },
    /// It could not be run; the last event.
    Error {
        /// Why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}
