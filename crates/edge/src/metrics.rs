//! What is counted per service. Each worker counts in cells of its own, so counting costs no shared cache line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::wire::Answers;

/// Buckets of a latency histogram: bucket `n` holds what took less than 2^n microseconds; the last one, some 9 minutes
/// and more, holds the rest.
pub(crate) const BUCKETS: usize = 30;

/// The counters of one worker. Aligned to two cache lines, which processors fetch together.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    /// Finished requests: 1xx to 5xx by their first digit, at 0 those whose client left.
    answers: [AtomicU64; 6],
    /// Time until the answer's head. Streams count here like all others: only their end is late.
    first_byte: [AtomicU64; BUCKETS],
}

impl Counters {
    /// Counts a finished request by the first digit of its status, or as left by its client at 0.
    pub(crate) fn count_answer(&self, class: usize) {
        bump(&self.answers[class]);
    }

    /// Counts an answer's head that came after this time.
    pub(crate) fn count_first_byte(&self, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        bump(&self.first_byte[bucket.min(BUCKETS - 1)]);
    }

    /// Adds these counters up.
    pub(crate) fn add_to(&self, sum: &mut Answers) {
        let [left, _, ok, redirects, client_errors, server_errors] =
            [0, 1, 2, 3, 4, 5].map(|class| self.answers[class].load(Ordering::Relaxed));
        sum.ok += ok;
        sum.redirects += redirects;
        sum.client_errors += client_errors;
        sum.server_errors += server_errors;
        sum.left += left;
        sum.first_byte.resize(BUCKETS, 0);
        for (sum, bucket) in sum.first_byte.iter_mut().zip(&self.first_byte) {
            *sum += bucket.load(Ordering::Relaxed);
        }
    }
}

/// Adds one. Only one thread writes, so no locked instruction is needed.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_bucket_of_its_power_of_two() {
        let counters = Counters::default();
        for micros in [0, 1, 2, 3, 1000, u64::MAX / 1000] {
            counters.count_first_byte(Duration::from_micros(micros));
        }
        let mut sum = Answers::default();
        counters.add_to(&mut sum);
        let filled: Vec<_> = sum.first_byte.iter().enumerate().filter(|(_, count)| **count > 0).collect();
        assert_eq!(filled, [(0, &1), (1, &1), (2, &2), (10, &1), (BUCKETS - 1, &1)]);
    }
}
