//! What the platform itself takes while nothing happens.

use std::time::Duration;

use anyhow::{Context, Result};

use super::box_with_assistant;
use crate::shell;

/// Time without requests before memory is read.
const REST: Duration = Duration::from_secs(10);

pub(super) fn run() -> Result<()> {
    let (own, app) = box_with_assistant()?;
    let measured = (|| {
        own.trackbed(&["up", &app.to_string_lossy()])?;
        std::thread::sleep(REST);
        let status = own.json(&["status", "--json"])?;
        let serve = status["box"]["resident_bytes"].as_f64().context("resident memory of serve")?;
        let edge = status["box"]["edge"]["resident_bytes"].as_f64().context("resident memory of the edge")?;
        let shim = own.service("assistant")?["pids"][0].as_u64().context("the shim's process")?;
        let init = child_of(shim)?;
        let (shim, init) = (pss_kib(shim)?, pss_kib(init)?);
        println!("\nidle, one app deployed                          measured      goal");
        println!("serve + edge, resident                      {:>8.1} MB    <= 40 MB", (serve + edge) / 1e6);
        println!("  serve {:.1} MB, edge {:.1} MB", serve / 1e6, edge / 1e6);
        println!("shim + init of the app, proportional (PSS)  {:>8} KiB   <= 1024 KiB", shim + init);
        println!("  shim {shim} KiB, init {init} KiB");
        Ok(())
    })();
    own.stop()?;
    measured
}

/// The one child of a shim is its init.
fn child_of(process: u64) -> Result<u64> {
    let children = shell::read("cat", &[&format!("/proc/{process}/task/{process}/children")])?;
    let first = children.split_whitespace().next().context("the shim has no init")?;
    Ok(first.parse()?)
}

/// Proportional set size (proc_pid_smaps(5)): shared pages count by their share.
pub(super) fn pss_kib(process: u64) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("a Pss line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
