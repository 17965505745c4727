//! What a live writer notices of a snapshot: its longest wait, and how much less it writes while the box works.

use std::time::Duration;

use anyhow::Result;

use super::loop_xfs::LoopXfs;
use super::subject::{Sizes, Subject, Window};
use crate::bench::rows::{Rows, Series};
use crate::shell::{has, is_root, say, target_dir};

const SIZES: Sizes = Sizes { database_mb: 120, binary_mb: 70, small_files: 50 };
/// Commits a second of a writer that is busy, and leaves the box some time.
const BUSY: i32 = 500;
/// Below 0: one commit after the other.
const FLAT_OUT: i32 = -1;
/// A stretch without a snapshot.
const QUIET: Duration = Duration::from_secs(3);

/// What has changed since the snapshot before.
#[derive(Clone, Copy, PartialEq)]
enum Changed {
    /// Every byte of the volume.
    Everything,
    /// What the writer has inserted.
    Little,
}

/// A situation of which each round measures one.
const SITUATIONS: [(&str, i32, Changed); 3] = [
    ("500 commits/s, everything new", BUSY, Changed::Everything),
    ("500 commits/s, little new", BUSY, Changed::Little),
    ("flat out, everything new", FLAT_OUT, Changed::Everything),
];

pub(super) fn run(rounds: u64) -> Result<()> {
    say("the pause of a live writer, 200 MB volume");
    let native = Subject::start(target_dir().join("bench-data"), SIZES)?;
    let measured = beside_xfs(&native, rounds);
    measured.and(native.stop())
}

/// Measures on the box's own file system and, where that can be had, on one with reflinks.
fn beside_xfs(native: &Subject, rounds: u64) -> Result<()> {
    if !(is_root() && has("mkfs.xfs")) {
        eprintln!("NOT MEASURED with reflinks: a loop-mounted XFS needs root and xfsprogs");
        return compare(&[("own", native)], rounds);
    }
    let xfs = LoopXfs::mount(target_dir().join("bench-data-xfs"))?;
    let shared = Subject::start(xfs.mount_point().join("box"), SIZES)?;
    let measured = compare(&[("own", native), ("xfs", &shared)], rounds);
    measured.and(shared.stop())
}

fn compare(subjects: &[(&str, &Subject)], rounds: u64) -> Result<()> {
    let mut rows = Rows::create(
        "data-pause",
        "round\tfilesystem\tsituation\tquiet_gap_ms\tgap_ms\tbox_pause_ms\tquiet_per_s\tper_s\tproving_per_s\tcommand_ms\tstored_mb",
    )?;
    let mut series = Series::default();
    for round in 1..=rounds {
        for (filesystem, subject) in subjects {
            for situation in SITUATIONS {
                measure(round, filesystem, subject, situation, &mut rows, &mut series)?;
            }
        }
    }
    report(&series, subjects.len() > 1, rounds);
    println!("raw rows: {}", rows.path.display());
    Ok(())
}

fn measure(
    round: u64,
    filesystem: &str,
    subject: &Subject,
    (situation, pace, changed): (&str, i32, Changed),
    rows: &mut Rows,
    series: &mut Series,
) -> Result<()> {
    if changed == Changed::Everything {
        subject.pace(0)?;
        subject.ask("fill")?;
        super::subject::sync()?;
    }
    subject.pace(pace)?;
    // The first moments of a writer are not its usual ones.
    std::thread::sleep(QUIET / 3);
    subject.window()?;
    std::thread::sleep(QUIET);
    let quiet = subject.window()?;
    let (point, command_ms) = subject.snapshot()?;
    let during = subject.window()?;
    // In the background every point is proven; here it is done at once, to see what the writer notices of that.
    subject.prove(&point)?;
    let proving = subject.window()?;
    subject.pace(0)?;
    let box_pause = point["pause_ms"].as_f64().unwrap_or(f64::NAN);
    let stored_mb = point["stored_bytes"].as_f64().unwrap_or(f64::NAN) / 1e6;
    let gaps = |window: &Window| window.longest_ms();
    rows.add(&format!(
        "{round}\t{filesystem}\t{situation}\t{:.1}\t{:.1}\t{box_pause:.0}\t{:.0}\t{:.0}\t{:.0}\t{command_ms:.0}\t{stored_mb:.1}",
        gaps(&quiet),
        gaps(&during),
        quiet.commits_per_second(),
        during.commits_per_second(),
        proving.commits_per_second(),
    ))?;
    eprintln!(
        "round {round}, {filesystem}, {situation}: longest wait {:.0} ms (quiet {:.0}), the box says {box_pause:.0}; \
         {:.0}/s (quiet {:.0}, in the proof {:.0}, waiting at most {:.0} ms); command {command_ms:.0} ms, {stored_mb:.1} MB stored",
        gaps(&during),
        gaps(&quiet),
        during.commits_per_second(),
        quiet.commits_per_second(),
        proving.commits_per_second(),
        gaps(&proving),
    );
    let mut push =
        |figure: &str, value: f64| series.push(format!("{filesystem} {situation} {figure}"), value);
    push("quiet gap", gaps(&quiet));
    push("gap", gaps(&during));
    push("box", box_pause);
    // The pause has a figure of its own.
    push("work rate", during.commits_per_second_beside(box_pause) / quiet.commits_per_second());
    push("rate", during.commits_per_second() / quiet.commits_per_second());
    push("proof rate", proving.commits_per_second() / quiet.commits_per_second());
    push("command", command_ms);
    Ok(())
}

fn report(series: &Series, with_xfs: bool, rounds: u64) {
    println!("\nsnapshot of a live 200 MB volume, {rounds} rounds, median [min-max]");
    println!(
        "| | | longest wait of the writer, ms | without a snapshot | the box's own figure | commits/s in all, to without | beside the pause | in its proof | command, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let filesystems: &[(&str, &str)] = if with_xfs {
        &[("own", "the box's own file system"), ("xfs", "XFS with reflinks, loop-mounted")]
    } else {
        &[("own", "the box's own file system")]
    };
    for (filesystem, title) in filesystems {
        for (situation, ..) in SITUATIONS {
            let of =
                |figure: &str, digits| series.spread(&format!("{filesystem} {situation} {figure}"), digits);
            println!(
                "| {title} | {situation} | {} | {} | {} | {}x | {}x | {}x | {} |",
                of("gap", 0),
                of("quiet gap", 1),
                of("box", 0),
                of("rate", 2),
                of("work rate", 2),
                of("proof rate", 2),
                of("command", 0),
            );
        }
    }
    println!("goals: at most 300 ms on ext4, 20 ms with reflinks; commits/s at least 0.9x");
}
