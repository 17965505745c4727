//! Takeovers in which somebody is killed, at any moment.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trackbed_core::ports::Edge;

use crate::support::*;
use crate::takeover::{Dynasty, Load, echo};

/// Takeovers in one test.
const ROUNDS: u64 = 45;

/// Numbers that look random and are the same for the same seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn kill_at_once(pid: u32) {
    // One that has ended already is what the test is about, too.
    let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_in_a_takeover_there_is_one_owner_and_it_knows_the_routes() {
    let seed = std::env::var("TRACKBED_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) + 1);
    eprintln!("TRACKBED_TEST_SEED={seed}");
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let target = echo().await;
    let mut dynasty = Dynasty::start().await;
    dynasty.apply(serving(1, target)).await;
    // What a takeover takes here and now, so that the kills fall into it and a little beyond.
    let begun = Instant::now();
    dynasty.upgrade().await;
    let usual = u64::try_from(begun.elapsed().as_micros()).unwrap();
    let load = Load::start(dynasty.address().await, 4);
    let (mut kept, mut taken, mut orphaned) = (0, 0, 0);
    for round in 0..ROUNDS {
        let old = dynasty.stats().await.pid;
        let failed_before = load.failed();
        let new = dynasty.spawn(&["--take-over"]);
        // As many kills in the first eighth as in the next, and so on: a takeover is nearly all process start.
        tokio::time::sleep(Duration::from_micros(dice.below(usual) >> dice.below(4))).await;
        let killed = match round % 3 {
            0 => Some(new),
            1 => Some(old),
            _ => None,
        };
        if let Some(pid) = killed {
            kill_at_once(pid);
        }
        // What the keeper does: whoever answers is the edge; when nobody does, it starts one.
        let deadline = Instant::now() + PATIENCE;
        let mut started = None;
        let face = loop {
            assert!(Instant::now() < deadline, "round {round}: no edge");
            let living = dynasty.living();
            match dynasty.client.stats().await {
                Ok(stats) if Some(stats.pid) != killed && living.contains(&stats.pid) => break stats.pid,
                _ if started.is_none_or(|pid| !living.contains(&pid)) => started = Some(dynasty.spawn(&[])),
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        };
        match face {
            face if face == old => kept += 1,
            face if face == new => taken += 1,
            _ => orphaned += 1,
        }
        load.goes_on(20).await;
        // Nobody is left between the places: each process is the edge, or an elder that ends, or has given up.
        if killed.is_none() {
            until(|| async { dynasty.client.stats().await.is_ok_and(|stats| stats.pid == new) }).await;
        }
        load.goes_on(20).await;
        dynasty.wait_living(1).await;
        assert_eq!(dynasty.living(), [dynasty.stats().await.pid], "round {round}");
        dynasty.apply(serving(1, target)).await;
        let kept_table = std::fs::read_to_string(dynasty.folder.path().join("state/routes.json")).unwrap();
        let sequence = format!("\"sequence\":{}", dynasty.stats().await.sequence);
        assert!(kept_table.contains(&sequence), "round {round}: {sequence} is not in {kept_table}");
        let lock = std::fs::File::open(dynasty.folder.path().join("state/lock")).unwrap();
        assert!(lock.try_lock().is_err(), "round {round}: nobody holds the lock");
        drop(lock);
        let unharmed = killed.is_none() || (killed == Some(new) && face == old);
        if unharmed {
            let failures = load.failures.lock().unwrap()[failed_before..].to_vec();
            assert_eq!(failures, Vec::<String>::new(), "round {round}: nobody was killed who served");
        }
    }
    eprintln!("{ROUNDS} takeovers: {kept} kept, {taken} taken, {orphaned} begun anew");
    let done = load.done.load(Ordering::SeqCst);
    let (_, failures) = load.end().await;
    eprintln!("{done} requests, {} failed with a killed edge", failures.len());
    assert_eq!(dynasty.elder_sockets(), 0);
}
