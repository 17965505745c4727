//! How long something has been going on, across restarts and jumps of the clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Since when something is being done that has a deadline, as far as it must outlive the control plane that began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopwatch {
    /// When it was begun, by the wall clock of then.
    pub began_at: Timestamp,
    /// How often it was taken up again since, by another control plane or after an error of our own.
    pub resumed: u32,
}

impl Stopwatch {
    /// Begins now.
    pub fn begin(now: Timestamp) -> Self {
        Self { began_at: now, resumed: 0 }
    }

    /// Returns how much of a limit is left for the control plane that takes the work up `now`; it measures that by a
    /// clock that does not jump.
    ///
    /// The wall clock may have jumped while nobody measured, so it is believed within bounds: forwards, there is still
    /// half of the limit at the first resumption, a quarter at the second, and so on; backwards, there is no more than
    /// that either. So nothing is ended for a jump alone, and all lives together spend less than twice the limit if
    /// the clock lies, however often there is another one.
    pub fn left(self, limit: Duration, now: Timestamp) -> Duration {
        let least = limit / 2u32.saturating_pow(self.resumed.min(31));
        if now < self.began_at {
            return least;
        }
        limit.saturating_sub(now.since(self.began_at)).max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopwatch_gives_what_is_left_of_a_limit() {
        let limit = Duration::from_secs(100);
        let watch = |resumed| Stopwatch { began_at: Timestamp(1_000_000), resumed };
        let after = |seconds: i64| Timestamp(1_000_000 + seconds * 1000);
        assert_eq!(watch(0).left(limit, after(0)), limit);
        assert_eq!(watch(1).left(limit, after(30)).as_secs(), 70);
        assert_eq!(
            watch(1).left(limit, after(80)).as_secs(),
            50,
            "the other 30 s may be a jump of the clock"
        );
    }

    #[test]
    fn a_clock_that_jumps_neither_ends_a_step_at_once_nor_keeps_it_for_ever() {
        let limit = Duration::from_secs(100);
        for jump in [-1_000_000_000, 1_000_000_000] {
            let now = Timestamp(5_000_000_000 + jump);
            let watch = |resumed| Stopwatch { began_at: Timestamp(5_000_000_000), resumed };
            assert!(watch(1).left(limit, now) >= limit / 2);
            let lives: Duration = (1..50).map(|resumed| watch(resumed).left(limit, now)).sum();
            // Rounding adds a little.
            assert!(
                lives <= limit + Duration::from_secs(1),
                "however many control planes come and go: {lives:?}"
            );
        }
    }
}
