//! A restore into a new place, verified, beside `cp -a` and `sync` of the same files.

use std::time::Instant;

use anyhow::Result;

use super::subject::{Sizes, Subject, sync};
use crate::bench::rows::{Rows, Series};
use crate::shell::{self, read, say, target_dir};

/// Half in a database, half beside it.
const SIZES: Sizes = Sizes { database_mb: 500, binary_mb: 500, small_files: 200 };

pub(super) fn run(rounds: u64) -> Result<()> {
    say("restore of a 1 GB volume, beside a copy");
    let subject = Subject::start(target_dir().join("bench-data"), SIZES)?;
    let measured = compare(&subject, rounds);
    measured.and(subject.stop())
}

fn compare(subject: &Subject, rounds: u64) -> Result<()> {
    let mut rows = Rows::create("data-restore", "round\trestore_ms\tcopy_ms")?;
    let (point, _) = subject.snapshot()?;
    subject.prove(&point)?;
    let mut series = Series::default();
    for round in 1..=rounds {
        // By turns, so that neither has always the same neighbour.
        let (restored, copied);
        if round % 2 == 1 {
            restored = restore(subject, &point, round)?;
            copied = copy(subject)?;
        } else {
            copied = copy(subject)?;
            restored = restore(subject, &point, round)?;
        }
        series.push("restore", restored);
        series.push("copy", copied);
        rows.add(&format!("{round}\t{restored:.0}\t{copied:.0}"))?;
        eprintln!("round {round}: restore {restored:.0} ms, cp and sync {copied:.0} ms");
    }
    println!(
        "\nrestore of 1 GB (500 MB SQLite, 500 MB binary, 200 small files), {rounds} interleaved rounds, ms"
    );
    println!("restored into a new volume, verified    {}", series.spread("restore", 0));
    println!("cp -a and sync of the same files        {}", series.spread("copy", 0));
    println!("speed, to cp and sync                   {}x    goal >= 0.5x", series.ratio("copy", "restore"));
    println!("raw rows: {}", rows.path.display());
    Ok(())
}

fn restore(subject: &Subject, point: &serde_json::Value, round: u64) -> Result<f64> {
    sync()?;
    let (folder, took) = subject.restore_to(point, &format!("restored-{round}"))?;
    if round == 1 {
        // A database may have its log written into it by then: its content is what the restore has compared.
        let folders = [subject.folder()?, folder].map(|folder| folder.to_string_lossy().into_owned());
        read("diff", &["--recursive", "--brief", "--exclude", "app.db*", &folders[0], &folders[1]])?;
    }
    Ok(took)
}

fn copy(subject: &Subject) -> Result<f64> {
    sync()?;
    let (from, to) = (subject.folder()?, subject.aside("copy"));
    let began = Instant::now();
    shell::run("cp", &["-a", &from.to_string_lossy(), &to.to_string_lossy()])?;
    shell::run("sync", &["--file-system", &to.to_string_lossy()])?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    std::fs::remove_dir_all(&to)?;
    Ok(took)
}
