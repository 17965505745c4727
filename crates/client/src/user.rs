//! Who we are, without a system call of our own.

/// Returns the effective user id of this process, as proc(5) tells it.
pub fn user_id() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Real, effective, saved, file system.
    line.and_then(|ids| ids.split_whitespace().nth(1)).and_then(|id| id.parse().ok()).unwrap_or(0)
}
