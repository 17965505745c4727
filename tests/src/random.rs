//! Chance that can be repeated: the seed is printed, and given by `TRACKBED_TEST_SEED`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose victims.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from the seed of the environment or of the clock, and prints it. `name` keeps tests with one seed apart.
    pub fn seeded(name: &str) -> Random {
        let given = std::env::var("TRACKBED_TEST_SEED").ok();
        let given = given.map(|text| text.parse().expect("TRACKBED_TEST_SEED is a number"));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed: u64 = given.unwrap_or_else(|| u64::from(since.subsec_nanos()));
        eprintln!("{name}: TRACKBED_TEST_SEED={seed}");
        let name = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        Random(seed ^ name << 32)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// Returns bytes that nothing can make shorter.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(count).collect()
    }

    /// Returns whether something happens that happens so many times of a hundred.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// Returns a time below `end`, in whole milliseconds.
    pub fn time_below(&mut self, end: Duration) -> Duration {
        Duration::from_millis(self.next() % u64::try_from(end.as_millis()).expect("a short time"))
    }
}
