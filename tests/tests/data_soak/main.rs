//! Snapshots and restores while everything is killed again and again: what a restore point claims to hold is there.
//!
//! An app commits several hundred transactions a second; a [`Ledger`] outside the volume remembers the last one that a
//! caller heard of. Each cycle takes snapshots at random instants, kills app, supervisor, `serve` or all at once in
//! between, and restores a random point to a scratch volume, where every byte must follow from the number of its last
//! transaction, and no transaction may be missing that was acknowledged before the snapshot was asked for.
//!
//! `TRACKBED_SOAK_CYCLES` sets the number of cycles (`cargo xtask bench data` takes 200), `TRACKBED_TEST_SEED` repeats a run.

mod chance;
mod ledger;
mod verdict;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use trackbed_tests::{App, FileSystem, Random, TestBox};

use ledger::Ledger;
use verdict::Claim;

/// Cycles of an ordinary test run.
const CYCLES: usize = 6;
const SERVICE: &str = "ledger";
/// From a restart to the next committed transaction.
const RECOVERY: Duration = Duration::from_secs(90);

struct Soak {
    town: TestBox,
    random: Random,
    ledger: Ledger,
    /// What each point claims to hold.
    claims: Vec<Claim>,
    kills: BTreeMap<chance::Victim, usize>,
    /// Snapshots that were answered with an error because of a kill.
    refused: usize,
    restored: usize,
    rows_held: u64,
    longest_pause_ms: u64,
}

impl Soak {
    fn start(name: &str, town: TestBox) -> Soak {
        let random = Random::seeded(name);
        town.up_ok(&App::ledger(SERVICE).path());
        let ledger = Ledger::listen(town.port(), SERVICE);
        Soak {
            town,
            random,
            ledger,
            claims: Vec::new(),
            kills: BTreeMap::new(),
            refused: 0,
            restored: 0,
            rows_held: 0,
            longest_pause_ms: 0,
        }
    }

    fn run(mut self, name: &str, cycles: usize) {
        let began = Instant::now();
        for cycle in 1..=cycles {
            self.go_round(cycle);
            if cycle % 10 == 0 {
                eprintln!("{name}: {cycle} cycles in {} s: {}", began.elapsed().as_secs(), self.told());
            }
        }
        let acknowledged = self.ledger.last();
        self.check_live(acknowledged);
        eprintln!("{name}: {cycles} cycles in {} s: {}", began.elapsed().as_secs(), self.told());
        assert!(self.restored >= cycles / 2, "too few restores to prove anything: {}", self.told());
    }

    fn told(&self) -> String {
        format!(
            "{} points, {} restores, 0 corrupt, 0 rows missing of {} acknowledged; {} kills {:?}; {} snapshots refused \
             in a kill; the box says that the app stood still for at most {} ms",
            self.claims.len(),
            self.restored,
            self.rows_held,
            self.kills.values().sum::<usize>(),
            self.kills,
            self.refused,
            self.longest_pause_ms
        )
    }
}

fn cycles(ordinary: usize) -> usize {
    std::env::var("TRACKBED_SOAK_CYCLES")
        .map_or(ordinary, |text| text.parse().expect("TRACKBED_SOAK_CYCLES is a number"))
}

#[test]
fn whatever_is_killed_a_restore_point_holds_what_it_claims() {
    Soak::start("copied", TestBox::start()).run("copied", cycles(CYCLES));
}

#[test]
fn whatever_is_killed_a_restore_point_of_shared_blocks_holds_what_it_claims() {
    if FileSystem::XfsReflink.is_here("a soak with reflinks") {
        // Each point is small, but a long soak has many.
        let megabytes = 1500 + 10 * cycles(CYCLES) as u64;
        let town = TestBox::start_on(FileSystem::XfsReflink, megabytes);
        Soak::start("reflinked", town).run("reflinked", cycles(CYCLES / 2));
    }
}
