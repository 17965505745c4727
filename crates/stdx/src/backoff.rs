//! Waits that double, with a ceiling.

use std::time::Duration;

/// Returns how long to wait before attempt `attempt` (0 for the first retry): `first`, twice that, … up to `ceiling`.
pub fn exponential(first: Duration, ceiling: Duration, attempt: u32) -> Duration {
    first.saturating_mul(2u32.saturating_pow(attempt.min(31))).min(ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_ceiling() {
        let wait = |attempt| exponential(Duration::from_secs(1), Duration::from_secs(30), attempt).as_secs();
        assert_eq!([wait(0), wait(1), wait(4), wait(5), wait(u32::MAX)], [1, 2, 16, 30, 30]);
    }
}
