//! Places at which a test may end the process, as a crash of the box would.

/// Ends the process here when the environment of a test says so.
#[cfg(test)]
pub(crate) fn point(name: &str) {
    if std::env::var("TRACKBED_TEST_CRASH_AT").is_ok_and(|at| at == name) {
        std::process::abort();
    }
}

/// Does nothing outside tests.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn point(_name: &str) {}
