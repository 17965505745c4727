//! The second snapshot of a 1 GB volume of which one page in a hundred has changed, beside that of a volume that is all new.

use anyhow::{Context, Result};

use super::subject::{Sizes, Subject, sync};
use crate::bench::rows::{Rows, Series};
use crate::shell::{say, target_dir};

const SIZES: Sizes = Sizes { database_mb: 700, binary_mb: 300, small_files: 200 };
/// Pages of a thousand that change, spread at random.
const PER_MILLE: u32 = 10;

pub(super) fn run(rounds: u64) -> Result<()> {
    say("incremental snapshot of a 1 GB volume");
    let subject = Subject::start(target_dir().join("bench-data"), SIZES)?;
    let measured = compare(&subject, rounds);
    measured.and(subject.stop())
}

fn compare(subject: &Subject, rounds: u64) -> Result<()> {
    let mut rows = Rows::create("data-incremental", "round\tkind\tms\tstored_mb")?;
    let mut series = Series::default();
    for round in 1..=rounds {
        for (kind, change) in [
            ("full", "fill".to_owned()),
            ("1 %", format!("touch?{PER_MILLE}")),
            ("none", "window".to_owned()),
        ] {
            subject.ask(&change)?;
            sync()?;
            let (point, took) = subject.snapshot()?;
            let stored = point["stored_bytes"].as_f64().context("a point tells what it stored")? / 1e6;
            // The proof reads as much as the snapshot: it is over before the next one.
            subject.prove(&point)?;
            series.push(format!("{kind} ms"), took);
            series.push(format!("{kind} mb"), stored);
            rows.add(&format!("{round}\t{kind}\t{took:.0}\t{stored:.1}"))?;
            eprintln!("round {round}, {kind}: {took:.0} ms, {stored:.1} MB");
        }
    }
    println!("\nsnapshot of a 1 GB volume (700 MB SQLite, 300 MB binary, 200 small files), {rounds} rounds");
    println!("| | ms | to full | MB stored | to full |");
    println!("|---|---|---|---|---|");
    for kind in ["full", "1 %", "none"] {
        let (ms, mb) = (format!("{kind} ms"), format!("{kind} mb"));
        println!(
            "| {kind} of the pages changed | {} | {} | {} | {} |",
            series.spread(&ms, 0),
            series.ratio(&ms, "full ms"),
            series.spread(&mb, 1),
            series.ratio(&mb, "full mb"),
        );
    }
    println!("goal: 1 % at most 0.1 of the full one's time and bytes");
    println!("raw rows: {}", rows.path.display());
    Ok(())
}
