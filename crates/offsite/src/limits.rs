//! Every limit of the work with a target, in one place.

use std::time::Duration;

/// Limits; tests have smaller ones.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A request that moves no data, and each wait for more of a body.
    pub request: Duration,
    /// The slowest line that is still used, in bytes a second: a part must arrive within the time that follows from it.
    pub slowest_bytes: u64,
    /// Wait before the first repetition.
    pub retry_first: Duration,
    /// Longest wait between repetitions.
    pub retry_ceiling: Duration,
    /// How long one object is tried again and again.
    pub retry_total: Duration,
    /// Bytes of a part of a large object. S3 wants at least 5 MiB and at most 10,000 parts: 80 GB an object.
    pub part_bytes: usize,
    /// Parts of one object under way at once.
    pub parts_at_once: usize,
    /// Objects under way at once. Times the parts, times two for what waits: 64 MiB of memory.
    pub objects_at_once: usize,
    /// How long what the box has removed stays at the target, and how long older heads' states can be had back.
    pub kept: Duration,
    /// Objects of the rotating sample that a pass reads back.
    pub sample_objects: usize,
    /// And most of their bytes.
    pub sample_bytes: u64,
    /// An object of the sample is not read again before this much time.
    pub sample_rest: Duration,
    /// A new head is written after this much time even when nothing is new: the target is seen to work.
    pub heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            request: Duration::from_secs(30),
            slowest_bytes: 64 * 1024,
            retry_first: Duration::from_millis(500),
            retry_ceiling: Duration::from_secs(30),
            retry_total: Duration::from_secs(5 * 60),
            part_bytes: 8 * 1024 * 1024,
            parts_at_once: 2,
            objects_at_once: 2,
            kept: 7 * DAY,
            sample_objects: 4,
            sample_bytes: 64 * 1024 * 1024,
            sample_rest: DAY,
            heartbeat: DAY,
        }
    }
}

impl Limits {
    /// Returns how long a request may take that moves so many bytes.
    pub(crate) fn deadline(&self, bytes: usize) -> Duration {
        let seconds = bytes as u64 / self.slowest_bytes.max(1);
        self.request.saturating_add(Duration::from_secs(seconds))
    }
}
