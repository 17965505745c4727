//! A code-only redeploy of the assistant, from the command to the first good answer, against Docker and against the
//! app's own start.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::bare::Bare;
use super::docker::Docker;
use super::{box_with_assistant, median, spread, touch_code, until_healthy};
use crate::own_box::OwnBox;
use crate::shell::{has, is_root, target_dir};

/// Rounds; each measures all sides, in turn.
const ROUNDS: usize = 7;

pub(super) fn run() -> Result<()> {
    let (own, app) = box_with_assistant()?;
    let peers = target_dir().join("bench-peers");
    let measured = own.trackbed(&["up", &app.to_string_lossy()]).and_then(|()| compare(&own, &app, &peers));
    own.stop()?;
    if peers.exists() {
        std::fs::remove_dir_all(&peers)?;
    }
    measured
}

fn compare(own: &OwnBox, app: &std::path::Path, peers: &std::path::Path) -> Result<()> {
    if peers.exists() {
        std::fs::remove_dir_all(peers)?;
    }
    std::fs::create_dir_all(peers)?;
    let bare = Bare::prepare(&peers.join("bare"), &uv_of(own))?;
    let docker = match is_root() && has("dockerd") {
        true => match Docker::prepare(&peers.join("docker")) {
            Ok(docker) => Some(docker),
            Err(error) => {
                eprintln!("NOT MEASURED against Docker: {error:#}");
                None
            }
        },
        false => {
            eprintln!("NOT MEASURED against Docker: it needs root and dockerd");
            None
        }
    };
    let measured = rounds(own, app, &bare, docker.as_ref());
    if let Some(docker) = docker {
        docker.stop()?;
    }
    measured
}

fn rounds(own: &OwnBox, app: &std::path::Path, bare: &Bare, docker: Option<&Docker>) -> Result<()> {
    let url = format!("{}/health", own.url("assistant")?);
    let (mut ours, mut alone, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        touch_code(app, round)?;
        let began = Instant::now();
        own.json_lines(&["up", &app.to_string_lossy(), "--json"])?;
        ensure!(until_healthy(&url, Duration::from_secs(10)), "not healthy after the deploy");
        ours.push(began.elapsed().as_secs_f64() * 1000.0);
        alone.push(bare.start_ms()?);
        if let Some(docker) = docker {
            theirs.push(docker.redeploy_ms(round)?);
        }
        eprintln!(
            "round {round}: trackbed {:.0} ms, bare start {:.0} ms, docker {:.0} ms",
            ours[round - 1],
            alone[round - 1],
            theirs.last().unwrap_or(&f64::NAN)
        );
    }
    let beyond: Vec<f64> = ours.iter().zip(&alone).map(|(ours, alone)| ours - alone).collect();
    println!("\ncode-only redeploy, command to healthy, {ROUNDS} interleaved rounds, median [min-max]");
    println!("trackbed up                       {} ms", spread(&ours, 0));
    println!("the app's own bare start          {} ms", spread(&alone, 0));
    println!("beyond the bare start             {} ms    goal <= 150 ms", spread(&beyond, 0));
    if !theirs.is_empty() {
        let ratios: Vec<f64> = theirs.iter().zip(&ours).map(|(theirs, ours)| theirs / ours).collect();
        println!("docker build + stop + run         {} ms", spread(&theirs, 0));
        println!("docker / trackbed, pair by pair   {}x    goal >= 3x", spread(&ratios, 2));
    }
    println!(
        "raw (ms): trackbed {ours:.0?}; bare {alone:.0?}; docker {theirs:.0?}; median of pairs {:.0}",
        median(&beyond)
    );
    Ok(())
}

/// The uv that the box used: the PATH's, the user's, or the one it fetched.
fn uv_of(own: &OwnBox) -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let fetched = own.data_dir.join("tools/uv/bin/uv");
    let candidates = [home.join(".local/bin/uv"), home.join(".cargo/bin/uv"), fetched];
    candidates.into_iter().find(|uv| uv.is_file()).unwrap_or_else(|| "uv".into())
}
