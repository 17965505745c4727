//! Both editions of the example assistant on one box: how long they take to start, what memory they hold when idle, and how
//! large their images are.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::idle::pss_kib;
use super::options::Options;
use super::rows::{Rows, Series, rotated};
use crate::own_box::{OwnBox, stop_earlier};
use crate::shell::{self, root, say, target_dir};

const ROUNDS: u64 = 5;
/// Time without requests before memory is read.
const REST: Duration = Duration::from_secs(5);
const EDITIONS: [&str; 2] = ["assistant", "assistant-rs"];

pub(super) fn run(options: &[&str]) -> Result<()> {
    let rounds = Options::parse(options, &["rounds"])?.get("rounds", ROUNDS);
    let folder = target_dir().join("bench-box");
    stop_earlier(&folder)?;
    say("starting a box");
    let own = OwnBox::start(folder)?;
    let measured = measure(&own, rounds);
    own.stop()?;
    measured
}

fn measure(own: &OwnBox, rounds: u64) -> Result<()> {
    let mut images = Vec::new();
    for edition in EDITIONS {
        say(&format!("deploying examples/{edition}"));
        let before = layers_bytes(own)?;
        own.trackbed(&["up", &source_of(own, edition)?])?;
        images.push(layers_bytes(own)? - before);
    }
    let (mut starts, mut memory) = (Series::default(), Series::default());
    let mut rows = Rows::create("editions", "round\tedition\tstart_ms\tpss_kib")?;
    for round in 0..usize::try_from(rounds)? {
        for edition in rotated(&EDITIONS, round) {
            own.trackbed(&["down", "--service", edition])?;
            let start = start_ms(&own.json_lines(&["restart", "--service", edition, "--json"])?)?;
            std::thread::sleep(REST);
            let shim = own.service(edition)?["pids"][0].as_u64().context("the shim's process")?;
            let pss = family(shim)?.into_iter().map(pss_kib).sum::<Result<u64>>()?;
            rows.add(&format!("{round}\t{edition}\t{start}\t{pss}"))?;
            starts.push(edition, start);
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            memory.push(edition, pss as f64 / 1024.0);
        }
    }
    println!("\nthe example assistant, {rounds} interleaved rounds, median [min-max]");
    println!(
        "                  start to 200 on /health, ms   idle memory (PSS), MiB   layers of the image, MB"
    );
    for (edition, image) in EDITIONS.iter().zip(images) {
        let (start, memory) = (starts.spread(edition, 0), memory.spread(edition, 1));
        println!("{edition:<16}  {start:<28}  {memory:<23}  {:.1}", image / 1e6);
    }
    println!(
        "memory is that of the whole instance, with Trackbed's two processes; raw: {}",
        rows.path.display()
    );
    Ok(())
}

/// Copies an edition, without what lies beside its source on a developer's machine.
fn source_of(own: &OwnBox, edition: &str) -> Result<String> {
    let source = own.data_dir.join("source").join(edition);
    std::fs::create_dir_all(&source)?;
    let tracked = shell::read("git", &["ls-files", "--", &format!("examples/{edition}")])?;
    for file in tracked.lines() {
        let inside = Path::new(file).strip_prefix(format!("examples/{edition}"))?;
        let target = source.join(inside);
        std::fs::create_dir_all(target.parent().context("a file in the source")?)?;
        std::fs::copy(root().join(file), target)?;
    }
    Ok(source.to_string_lossy().into_owned())
}

/// From the moment in which the app is started to its first good answer, by the deployment's own events.
fn start_ms(events: &[Value]) -> Result<f64> {
    let at = |step: &str, kind: &str| {
        let found = events.iter().find(|event| event["step"] == step && event["kind"] == kind);
        found.and_then(|event| event["at"].as_f64()).with_context(|| format!("no event `{step} {kind}`"))
    };
    Ok(at("health", "done")? - at("start", "started")?)
}

fn layers_bytes(own: &OwnBox) -> Result<f64> {
    let layers = own.data_dir.join("layers");
    if !layers.exists() {
        return Ok(0.0);
    }
    let told = shell::read("du", &["-s", "--block-size=1", &layers.to_string_lossy()])?;
    Ok(told.split_whitespace().next().context("du tells bytes")?.parse()?)
}

/// Returns a process and all that descend from it.
fn family(first: u64) -> Result<Vec<u64>> {
    let mut family = vec![first];
    let mut next = 0;
    while let Some(process) = family.get(next) {
        for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let children = std::fs::read_to_string(task?.path().join("children"))?;
            for child in children.split_whitespace() {
                family.push(child.parse()?);
            }
        }
        next += 1;
    }
    ensure!(family.len() > 2, "an instance has an app below shim and init");
    Ok(family)
}
