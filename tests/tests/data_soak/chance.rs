//! One cycle: snapshots at random instants, kills at random instants, a restore.

use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;
use trackbed_tests::{Instance, wait_for};

use super::{RECOVERY, SERVICE, Soak};

/// Snapshots and kills of a cycle fall into this time.
const SPAN: Duration = Duration::from_millis(1500);
/// Longest absence of a killed `serve`.
const ABSENCE: Duration = Duration::from_millis(400);
/// How long a start after a death may take by itself.
const PATIENCE: Duration = Duration::from_secs(3);
/// Transactions between two cycles: the app is back, and has something new to lose.
const PROGRESS: u64 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Victim {
    App,
    Shim,
    Serve,
    Everything,
}

/// A snapshot that was asked for.
pub(super) struct Asked {
    /// What was acknowledged before.
    pub(super) acknowledged: u64,
    command: Child,
}

/// What is done at an instant of a cycle.
enum Deed {
    Snapshot,
    Kill,
}

impl Soak {
    pub(super) fn go_round(&mut self, cycle: usize) {
        let mut deeds = vec![(self.random.time_below(SPAN), Deed::Snapshot)];
        if self.random.percent(50) {
            deeds.push((self.random.time_below(SPAN), Deed::Snapshot));
        }
        // Some points are taken in peace, as most are.
        let is_killed = self.random.percent(85);
        if is_killed {
            deeds.push((self.random.time_below(SPAN), Deed::Kill));
        }
        deeds.sort_by_key(|(at, _)| *at);
        let (began, mut asked) = (Instant::now(), Vec::new());
        for (at, deed) in deeds {
            std::thread::sleep(at.saturating_sub(began.elapsed()));
            match deed {
                Deed::Snapshot => asked.push(self.ask()),
                Deed::Kill => self.kill(),
            }
        }
        self.await_snapshots(cycle, asked, is_killed);
        self.restore_one(cycle);
        self.await_progress(cycle);
    }

    /// Waits until the app commits again.
    fn await_progress(&self, cycle: usize) {
        let before = self.ledger.last();
        let goes_on = || self.ledger.last() >= before + PROGRESS;
        let deadline = Instant::now() + PATIENCE;
        while !goes_on() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        // After many deaths in a row the next start comes late; its owner does not wait for it.
        if !goes_on() {
            let restarted = self.town.trackbed(&["restart", "--service", SERVICE]);
            assert_eq!(restarted.code, 0, "cycle {cycle}: {restarted:?}\n{}", self.town.serve_log());
        }
        wait_for(&format!("cycle {cycle}: the app goes on"), RECOVERY, goes_on);
    }

    fn ask(&self) -> Asked {
        let acknowledged = self.ledger.last();
        let command = self.town.spawn(&["volume", "snapshot", "data", "--json", "--service", SERVICE]);
        Asked { acknowledged, command }
    }

    fn kill(&mut self) {
        let victim = match self.random.below(10) {
            0..3 => Victim::App,
            3..5 => Victim::Shim,
            5..8 => Victim::Serve,
            _ => Victim::Everything,
        };
        *self.kills.entry(victim).or_default() += 1;
        let living = || Instance::all(&self.town.data_dir()).into_iter().filter(Instance::is_alive);
        if matches!(victim, Victim::App | Victim::Everything) {
            living().flat_map(|instance| instance.app()).for_each(|process| self.town.kill_process(process));
        }
        if matches!(victim, Victim::Shim | Victim::Everything) {
            living().for_each(|instance| self.town.kill_process(instance.shim));
        }
        if matches!(victim, Victim::Serve | Victim::Everything) {
            self.town.kill_serve();
            std::thread::sleep(self.random.time_below(ABSENCE));
            self.town.start_serve();
        }
    }

    /// Waits for the commands, and learns of every point that was made, told or not.
    fn await_snapshots(&mut self, cycle: usize, asked: Vec<Asked>, is_killed: bool) {
        let oldest = asked.first().map(|asked| asked.acknowledged).unwrap_or_default();
        for Asked { acknowledged, command } in asked {
            let output = command.wait_with_output().expect("our child");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let point = serde_json::from_str::<Value>(&said).unwrap_or_default();
            let point = point.as_array().and_then(|points| points.first()).unwrap_or(&point).clone();
            if output.status.success() && point["id"].is_string() {
                self.claim(&point, acknowledged);
            } else {
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(is_killed, "cycle {cycle}: nothing was killed: {error}\n{}", self.town.serve_log());
                self.refused += 1;
            }
        }
        for point in self.town.points(SERVICE) {
            if point["why"] == "command" {
                // Nobody heard of it: it was taken after the first snapshot of this cycle was asked for.
                self.claim(&point, oldest);
            }
        }
    }
}
