//! What a build costs: the dependencies of a FastAPI app against pip and Docker, a deploy in which nothing or only the code
//! has changed, the plans of all fixtures, and bringing a large tree to the box.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::docker::Docker;
use super::options::Options;
use super::rows::{Rows, Series, rotated};
use super::{spread, touch_code};
use crate::own_box::{OwnBox, stop_earlier};
use crate::shell::{self, has, is_root, root, say, target_dir};

const ROUNDS: u64 = 3;
/// Deploys in which nothing has changed, or the code alone.
const DEPLOYS: usize = 7;
const FILES: u64 = 50_000;
const FILES_A_FOLDER: u64 = 200;
/// Files of the large tree that change between two snapshots.
const CHANGED: u64 = 10;
/// What a FastAPI backend with a database and streams asks for.
const REQUIREMENTS: &str = "fastapi\nuvicorn\ngunicorn\nsqlalchemy\naiosqlite\nsse-starlette\nhttpx\n";
const MAIN: &str = "\
from fastapi import FastAPI

app = FastAPI()


@app.get(\"/health\")
async def health():
    return \"ok\"
";
const SETTINGS: &str = r#"{"deploy": {"startCommand": "uvicorn main:app --host 0.0.0.0 --port $PORT", "healthcheckPath": "/health"}}"#;
/// As people write it.
const DOCKERFILE: &str = "\
FROM trackbed-bench-base
WORKDIR /app
RUN python3 -m venv /venv
COPY requirements.txt .
RUN /venv/bin/pip install --quiet -r requirements.txt
COPY . .
";

pub(super) fn run(options: &[&str]) -> Result<()> {
    let options = Options::parse(options, &["rounds", "files", "docker"])?;
    let folder = target_dir().join("bench-box");
    let peers = target_dir().join("bench-peers");
    stop_earlier(&folder)?;
    if peers.exists() {
        std::fs::remove_dir_all(&peers)?;
    }
    std::fs::create_dir_all(&peers)?;
    plans()?;
    say("starting a box");
    let own = OwnBox::start(folder)?;
    let measured = large_tree(&own, &peers.join("large"), options.get("files", FILES))
        .and_then(|()| {
            dependencies(&own, &peers, options.get("rounds", ROUNDS), options.get("docker", 1) > 0)
        })
        .and_then(|()| redeploys(&own, &peers));
    own.stop()?;
    std::fs::remove_dir_all(&peers)?;
    measured
}

/// The time of every fixture's plan.
fn plans() -> Result<()> {
    say("planning every fixture");
    let golden = root().join("crates/build/tests/golden");
    let example =
        ["run", "--release", "--quiet", "--package", "trackbed-build", "--example", "measure-plan", "--"];
    let told = shell::read("cargo", &[&example[..], &[&golden.to_string_lossy(), "9"]].concat())?;
    let mut plans: Vec<(f64, &str)> = Vec::new();
    for line in told.lines() {
        let (name, micros) = line.split_once('\t').context("a name and a time")?;
        plans.push((micros.parse::<f64>()? / 1000.0, name));
    }
    plans.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (slowest, name) = plans.last().context("there are fixtures")?;
    let all: Vec<f64> = plans.iter().map(|(took, _)| *took).collect();
    println!("\nplan of each of {} fixtures, ms, median of 9 rounds each", plans.len());
    println!("all fixtures, median [min-max]             {}", spread(&all, 2));
    println!("the slowest                                {slowest:.2} ({name})    goal <= 20");
    Ok(())
}

/// Walking, packing and receiving many files, the box's plan of them included.
fn large_tree(own: &OwnBox, folder: &Path, files: u64) -> Result<()> {
    say(&format!("making {files} files"));
    for number in 0..files {
        let path = file_of(folder, number);
        if number % FILES_A_FOLDER == 0 {
            std::fs::create_dir_all(path.parent().context("its folder")?)?;
        }
        std::fs::write(path, content(number, 0))?;
    }
    std::fs::write(folder.join("start.sh"), "exec sleep 1000\n")?;
    let place = folder.to_string_lossy().into_owned();
    let snapshot = || -> Result<f64> {
        let began = Instant::now();
        own.json(&["plan", &place, "--service", "large", "--json"])?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    };
    // Files that changed just before they are read are read again the next time; these shall be as after a checkout.
    std::thread::sleep(Duration::from_secs(3));
    say("bringing them to the box");
    let cold = snapshot()?;
    // What the disk takes for as many files, and for as many links, when nothing is looked at. Links to the tree itself would
    // change the times of its files.
    let copy = |option: &str, from: &str, to: &str| -> Result<f64> {
        let began = Instant::now();
        shell::run("cp", &[option, from, to])?;
        shell::run("sync", &["-f", to])?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    };
    let twin = format!("{place}-twin");
    let copied = copy("-a", &place, &twin)?;
    let (mut changed, mut same, mut linked) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=3 {
        same.push(snapshot()?);
        linked.push(copy("-al", &twin, &format!("{twin}-{round}"))?);
        for number in 0..CHANGED.min(files) {
            std::fs::write(file_of(folder, number * (files / CHANGED).max(1)), content(number, round))?;
        }
        changed.push(snapshot()?);
    }
    println!("\na tree of {files} files of 1 kB, from the command to the plan, ms");
    println!("first                                      {cold:.0}    goal <= 2000");
    println!("  `cp -a` and `sync` of the same           {copied:.0}, ratio {:.2}x", copied / cold);
    println!("{CHANGED} files changed, 3 rounds                  {}    goal <= 300", spread(&changed, 0));
    println!("  `cp -al` and `sync` of the same          {}", spread(&linked, 0));
    println!("nothing changed, 3 rounds                  {}", spread(&same, 0));
    Ok(())
}

fn file_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("part-{}/file-{number}.txt", number / FILES_A_FOLDER))
}

fn content(number: u64, version: u64) -> String {
    format!("file {number} version {version}\n").repeat(40)
}

/// The install of the same list by each, from nothing and with what the installer has kept.
fn dependencies(own: &OwnBox, peers: &Path, rounds: u64, with_docker: bool) -> Result<()> {
    let docker = match with_docker && is_root() && has("dockerd") {
        true => Some(Docker::prepare(&peers.join("docker"))?),
        false => {
            eprintln!("NOT MEASURED against Docker");
            None
        }
    };
    let measured = install_rounds(own, peers, rounds, docker.as_ref());
    if let Some(docker) = docker {
        docker.stop()?;
    }
    measured
}

fn install_rounds(own: &OwnBox, peers: &Path, rounds: u64, docker: Option<&Docker>) -> Result<()> {
    let mut contestants = vec!["trackbed", "pip"];
    contestants.extend(docker.map(|_| "docker"));
    let mut rows = Rows::create("build", "round\tcontestant\tcold_ms\twarm_ms")?;
    let (mut cold, mut warm) = (Series::default(), Series::default());
    for round in 0..usize::try_from(rounds)? {
        for contestant in rotated(&contestants, round) {
            let app = peers.join(format!("{contestant}-{round}"));
            write_app(&app)?;
            let (first, second) = match (contestant, docker) {
                ("pip", _) => pip_ms(&app)?,
                ("docker", Some(docker)) => docker_ms(docker, &app, round)?,
                _ => own_ms(own, &app)?,
            };
            rows.add(&format!("{round}\t{contestant}\t{first:.0}\t{second:.0}"))?;
            eprintln!("round {round}: {contestant} cold {first:.0}, warm {second:.0} ms");
            cold.push(contestant, first);
            warm.push(contestant, second);
        }
    }
    println!(
        "\nthe dependencies of a FastAPI app installed, {rounds} interleaved rounds, ms, median [min-max]"
    );
    println!("            cold                       warm cache");
    for contestant in &contestants {
        println!("{contestant:<10}  {:<25}  {}", cold.spread(contestant, 0), warm.spread(contestant, 0));
    }
    for (peer, goal) in [("pip", "10x"), ("docker", "3x")] {
        if contestants.contains(&peer) {
            let (cold, warm) = (cold.ratio(peer, "trackbed"), warm.ratio(peer, "trackbed"));
            println!("{peer} / trackbed, pair by pair: cold {cold}x, warm {warm}x    goal >= {goal}");
        }
    }
    println!(
        "trackbed compiles the bytecode of all packages, pip too, Docker with pip too; raw: {}",
        rows.path.display()
    );
    Ok(())
}

fn write_app(app: &Path) -> Result<()> {
    std::fs::create_dir_all(app)?;
    for (name, text) in [
        ("requirements.txt", REQUIREMENTS),
        ("main.py", MAIN),
        ("railway.json", SETTINGS),
        ("Dockerfile", DOCKERFILE),
    ] {
        std::fs::write(app.join(name), text)?;
    }
    Ok(())
}

/// Another list of the same packages: what was made of the first is not reused as a whole.
fn touch_list(app: &Path) -> Result<()> {
    Ok(std::fs::write(app.join("requirements.txt"), format!("{REQUIREMENTS}# once more\n"))?)
}

/// Step `build` of a new service, whose caches are empty, and of its next deploy.
fn own_ms(own: &OwnBox, app: &Path) -> Result<(f64, f64)> {
    let place = app.to_string_lossy();
    let cold = step_ms(&own.json_lines(&["up", &place, "--json"])?, "build")?;
    touch_list(app)?;
    let warm = step_ms(&own.json_lines(&["up", &place, "--json"])?, "build")?;
    let name = app.file_name().context("a folder")?.to_string_lossy();
    own.trackbed(&["down", "--service", &name])?;
    Ok((cold, warm))
}

fn step_ms(events: &[Value], step: &str) -> Result<f64> {
    let at = |kind: &str| {
        let found = events.iter().find(|event| event["step"] == step && event["kind"] == kind);
        found.and_then(|event| event["at"].as_f64()).with_context(|| format!("no event `{step} {kind}`"))
    };
    Ok(at("done")? - at("started")?)
}

fn pip_ms(app: &Path) -> Result<(f64, f64)> {
    let cache = app.join("cache").to_string_lossy().into_owned();
    let install = |venv: &str| -> Result<f64> {
        let venv = app.join(venv).to_string_lossy().into_owned();
        let list = app.join("requirements.txt").to_string_lossy().into_owned();
        let began = Instant::now();
        shell::run("/usr/bin/python3", &["-m", "venv", &venv])?;
        let pip = format!("{venv}/bin/pip");
        shell::run(
            &pip,
            &["install", "--quiet", "--disable-pip-version-check", "--cache-dir", &cache, "-r", &list],
        )?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    };
    Ok((install("first")?, install("second")?))
}

fn docker_ms(docker: &Docker, app: &Path, round: usize) -> Result<(f64, f64)> {
    let tag = format!("fastapi-{round}");
    let cold = docker.build_ms(app, &tag, true)?;
    touch_list(app)?;
    Ok((cold, docker.build_ms(app, &tag, false)?))
}

/// Deploys in which nothing has changed, and those in which the code has.
fn redeploys(own: &OwnBox, peers: &Path) -> Result<()> {
    say("deploying with nothing changed, and with the code changed");
    let app = peers.join("redeploy");
    write_app(&app)?;
    let place = app.to_string_lossy().into_owned();
    own.json_lines(&["up", &place, "--json"])?;
    let (mut same, mut changed, mut installs) = (Vec::new(), Vec::new(), 0);
    for round in 1..=DEPLOYS {
        let began = Instant::now();
        let said = own.json_lines(&["up", &place, "--json"])?;
        same.push(began.elapsed().as_secs_f64() * 1000.0);
        ensure!(
            said.iter().any(|line| line["unchanged"] == true),
            "it was deployed although nothing had changed"
        );
        touch_code(&app, round)?;
        let said = own.json_lines(&["up", &place, "--json"])?;
        changed.push(step_ms(&said, "build")?);
        let log = own.data_dir.to_string_lossy().into_owned();
        let log =
            shell::read(shell::binary(), &["--data-dir", &log, "logs", "--build", "--service", "redeploy"])?;
        installs += usize::from(!log.contains("dependencies: reused layer"));
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("\na deployed FastAPI app, {DEPLOYS} rounds, ms, median [min-max]");
    println!("nothing changed: `up` to `already live`    {}    goal <= 300", spread(&same, 0));
    println!("code changed: step build                   {}", spread(&changed, 0));
    println!("code changed: installs of dependencies     {installs}    goal 0");
    Ok(())
}
