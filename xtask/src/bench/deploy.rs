//! A code-only redeploy of the assistant, from the command to the first good answer, against Docker and against the
//! app's own start.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::bare::Bare;
use super::docker::Docker;
use super::{box_with_assistant, spread, touch_code, until_healthy};
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
    let (mut ours, mut starts, mut stops, mut theirs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        touch_code(app, round)?;
        let began = Instant::now();
        own.json_lines(&["up", &app.to_string_lossy(), "--json"])?;
        ensure!(until_healthy(&url, Duration::from_secs(10)), "not healthy after the deploy");
        ours.push(began.elapsed().as_secs_f64() * 1000.0);
        let (start, stop) = bare.start_and_stop_ms()?;
        starts.push(start);
        stops.push(stop);
        if let Some(docker) = docker {
            theirs.push(docker.redeploy_ms(round)?);
        }
        let docker = theirs.last().unwrap_or(&f64::NAN);
        let up = ours[round - 1];
        eprintln!(
            "round {round}: trackbed {up:.0}, bare start {start:.0} and stop {stop:.0}, docker {docker:.0} ms"
        );
    }
    report(&ours, &starts, &stops, &theirs);
    Ok(())
}

fn report(ours: &[f64], starts: &[f64], stops: &[f64], theirs: &[f64]) {
    let pairwise = |a: &[f64], b: &[f64], how: fn(f64, f64) -> f64| -> Vec<f64> {
        a.iter().zip(b).map(|(a, b)| how(*a, *b)).collect()
    };
    let own = pairwise(starts, stops, |start, stop| start + stop);
    let beyond = |side: &[f64], base: &[f64]| spread(&pairwise(side, base, |side, base| side - base), 0);
    println!("\ncode-only redeploy, command to healthy, {ROUNDS} interleaved rounds, ms, median [min-max]");
    println!("trackbed up                                {}", spread(ours, 0));
    println!("the app's own bare start                   {}", spread(starts, 0));
    println!("the app's own bare stop, SIGTERM to exit   {}", spread(stops, 0));
    println!("trackbed beyond the bare start             {}    goal <= 150", beyond(ours, starts));
    println!("trackbed beyond the bare stop and start    {}", beyond(ours, &own));
    if !theirs.is_empty() {
        println!("docker build, stop, rm, run                {}", spread(theirs, 0));
        println!("docker beyond the bare stop and start      {}", beyond(theirs, &own));
        let ratios = pairwise(theirs, ours, |theirs, ours| theirs / ours);
        println!("docker / trackbed, pair by pair            {}x    goal >= 3x", spread(&ratios, 2));
    }
    println!("raw: trackbed {ours:.0?}; bare start {starts:.0?}; bare stop {stops:.0?}; docker {theirs:.0?}");
}

/// The uv that the box used: the PATH's, the user's, or the one it fetched.
fn uv_of(own: &OwnBox) -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let fetched = own.data_dir.join("tools/uv/bin/uv");
    let candidates = [home.join(".local/bin/uv"), home.join(".cargo/bin/uv"), fetched];
    candidates.into_iter().find(|uv| uv.is_file()).unwrap_or_else(|| "uv".into())
}
