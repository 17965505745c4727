//! The one place that reads the wall clock. Everything below the border takes `now` as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns milliseconds since 1970-01-01 UTC, or 0 when the box believes to be earlier.
#[allow(clippy::disallowed_methods, reason = "this is the clock's one home")]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
