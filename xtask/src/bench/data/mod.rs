//! What backups cost: the pause that a live writer sees, the time of a restore, what a second snapshot takes; and whether
//! points hold what they claim when everything is killed again and again.

mod incremental;
mod loop_xfs;
mod pause;
mod restore;
mod subject;

use anyhow::Result;

use super::options::Options;
use crate::install;
use crate::shell::{is_root, root, say};

const ROUNDS: u64 = 5;
const CYCLES: u64 = 200;

/// Runs all parts, or those that are not switched off with a 0.
pub(super) fn run(words: &[&str]) -> Result<()> {
    let options = Options::parse(words, &["rounds", "pause-rounds", "copy-rounds", "cycles"])?;
    let rounds = options.get("rounds", ROUNDS);
    let (pause_rounds, copy_rounds) =
        (options.get("pause-rounds", rounds), options.get("copy-rounds", rounds));
    let cycles = options.get("cycles", CYCLES);
    if is_root() {
        install::ensure(&[install::XFS])?;
    }
    if pause_rounds > 0 {
        pause::run(pause_rounds)?;
    }
    if copy_rounds > 0 {
        restore::run(copy_rounds)?;
        incremental::run(copy_rounds)?;
    }
    if cycles > 0 {
        soak(cycles)?;
    }
    Ok(())
}

/// The soak is a whole-box test that takes the number of its cycles from the environment.
fn soak(cycles: u64) -> Result<()> {
    say(&format!("soak: {cycles} cycles of kills, snapshots and restores"));
    let mut cargo = std::process::Command::new("cargo");
    cargo.args([
        "test",
        "--release",
        "--package",
        "trackbed-tests",
        "--test",
        "data_soak",
        "--",
        "--nocapture",
    ]);
    let status = cargo.env("TRACKBED_SOAK_CYCLES", cycles.to_string()).current_dir(root()).status()?;
    anyhow::ensure!(status.success(), "the soak failed ({status})");
    Ok(())
}
