//! Figures for people, not for judging: `cargo test --release --test measure -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test panics when it must")]

mod world;

use std::time::{Duration, Instant};

use trackbed_core::isolation::IsolationLevel::{Full, Userns};
use trackbed_core::ports::{Engine, JobRunner};
use world::{Lines, World};

fn pss_kib(pid: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name| {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok())
    };
    field("Pss:").unwrap_or(0)
}

#[tokio::test]
#[ignore = "measures"]
async fn start_latency_and_memory() {
    for level in [Full, Userns] {
        let opened = Instant::now();
        let world = World::new(level);
        println!(
            "{}: open {:?}, lacks {:?}",
            level.as_str(),
            opened.elapsed(),
            world.sandbox.isolation().missing
        );
        let (mut starts, mut stops, mut jobs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..21 {
            let spec = world.spec("exec sleep 1000");
            let began = Instant::now();
            world.sandbox.start(&spec).await.unwrap();
            starts.push(began.elapsed());
            let began = Instant::now();
            world.sandbox.stop(&spec.id, Duration::from_secs(5)).await.unwrap();
            stops.push(began.elapsed());
            let began = Instant::now();
            world
                .sandbox
                .run_job(world.job("true"), Duration::from_secs(9), &Lines::default())
                .await
                .unwrap();
            jobs.push(began.elapsed());
        }
        for (what, times) in [("start", &mut starts), ("stop", &mut stops), ("job `true`", &mut jobs)] {
            times.sort();
            println!("  {what}: median {:?}, min {:?}, max {:?}", times[10], times[0], times[20]);
        }
        let spec = world.spec("for i in 1 2 3; do echo $i; done; exec sleep 1000");
        world.sandbox.start(&spec).await.unwrap();
        world.until_logged(&spec.id, "3").await;
        let shim = world.pids(&spec.id).await[0];
        let state =
            std::fs::read_to_string(world.data.join("instances").join(spec.id.as_str()).join("state.json"));
        let state: serde_json::Value = serde_json::from_str(&state.unwrap()).unwrap();
        let (shim, init) = (pss_kib(&shim.to_string()), pss_kib(&state["init"]["pid"].to_string()));
        println!("  PSS: shim {shim} KiB, init {init} KiB");
        world.close().await;
    }
}
