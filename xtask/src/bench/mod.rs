//! `cargo xtask bench`: figures against peers, measured side by side in one run. It prints; it never judges.

mod bare;
mod build;
mod data;
mod deploy;
mod docker;
mod edge;
mod editions;
mod files;
mod handover;
mod idle;
mod load;
mod options;
mod peers;
mod rows;
mod sse;
mod wrk;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::own_box::{OwnBox, stop_earlier};
use crate::shell::{self, root, say, target_dir};
use crate::{http, install};

/// Runs one benchmark with its options; without a name, those that measure a deployment.
pub fn run(name: Option<&str>, options: &[&str]) -> Result<()> {
    let needs: &[&[install::Need]] = match name {
        None | Some("idle" | "deploy") if options.is_empty() => &[install::BOX, install::BENCHES],
        None | Some("idle" | "deploy") => bail!("this benchmark has no options"),
        Some("edge" | "sse" | "files") => &[install::PROXIES],
        Some("build") => &[install::BOX, install::TESTS, install::BENCHES],
        Some("handover" | "data" | "editions") => &[install::BOX, install::TESTS],
        Some(other) => {
            bail!(
                "there is no benchmark `{other}`; there are `idle`, `deploy`, `edge`, `files`, `sse`, `handover`, `data`, `build` and `editions`"
            )
        }
    };
    install::ensure(needs)?;
    // The others build the edge alone.
    if !matches!(name, Some("edge" | "sse" | "files")) {
        shell::run("cargo", &["build", "--release", "--package", "trackbed"])?;
    }
    println!("\n{}", install::machine());
    match name {
        Some("idle") => idle::run(),
        Some("deploy") => deploy::run(),
        Some("edge") => edge::run(options),
        Some("files") => files::run(options),
        Some("sse") => sse::run(options),
        Some("handover") => handover::run(options),
        Some("data") => data::run(options),
        Some("build") => build::run(options),
        Some("editions") => editions::run(options),
        _ => idle::run().and_then(|()| deploy::run()),
    }
}

/// Starts a box for a benchmark, with a copy of the example assistant beside it.
fn box_with_assistant() -> Result<(OwnBox, PathBuf)> {
    let folder = target_dir().join("bench-box");
    stop_earlier(&folder)?;
    say("starting a box");
    let own = OwnBox::start(folder)?;
    let app = own.data_dir.join("source/assistant");
    copy_source(&app)?;
    Ok((own, app))
}

fn copy_source(to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let from = root().join("examples/assistant");
    for part in ["main.py", "assistant", "static", "requirements.txt", "railway.json", "trackbed.toml"] {
        shell::run("cp", &["-r", &from.join(part).to_string_lossy(), &to.to_string_lossy()])?;
    }
    Ok(())
}

/// Changes the code and nothing else.
fn touch_code(app: &Path, round: usize) -> Result<()> {
    let main = app.join("main.py");
    let text = std::fs::read_to_string(&main)?;
    let text = text.split("\n# round ").next().unwrap_or_default().trim_end().to_owned();
    Ok(std::fs::write(main, format!("{text}\n# round {round}\n"))?)
}

/// Polls until a URL answers 200. Returns whether it did within the limit.
fn until_healthy(url: &str, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if http::call("GET", url, None).is_ok_and(|(status, _)| status == 200) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    false
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// Writes `median [min-max]`.
fn spread(values: &[f64], digits: usize) -> String {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} [{min:.digits$}-{max:.digits$}]", median(values))
}
