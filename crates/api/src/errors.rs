//! The one shape of an error.

use serde::{Deserialize, Serialize};

/// The kinds of errors; a closed list that clients may match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself is wrong.
    InvalidRequest,
    /// There is no such thing.
    NotFound,
    /// It does not fit the state things are in.
    Conflict,
    /// The source cannot be deployed as it is.
    InvalidSource,
    /// Something on the box failed.
    Internal,
}

/// The body of every answer that is not 2xx.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// Its kind.
    pub code: ErrorCode,
    /// The attempt and the value.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}
