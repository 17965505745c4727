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

/// A master with four workers of some threads each, as servers of Python fork them, all of them busy with a file.
const SERVER: &str = r#"
import os, threading, time
def work():
    with open("/tmp/" + str(os.getpid()), "ab", buffering=0) as file:
        while True:
            file.write(b"x")
            time.sleep(0.002)
for worker in range(4):
    if os.fork() == 0:
        for number in range(4):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(1000)
print("up", flush=True)
time.sleep(1000)
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn time_to_stand_still_and_to_go_on() {
    for lacks in [&[][..], &["unified"], &["freezer", "unified"]] {
        let Some(world) = World::lacking(Full, lacks) else { return };
        let mut spec = world.spec("exec python3 server.py");
        let trackbed_core::instance::AppTree::Image { image } = &mut spec.app else { panic!("an image") };
        image.layers = vec![world.layer(&[("server.py", SERVER)])];
        world.sandbox.start(&spec).await.unwrap();
        world.until_logged(&spec.id, "up").await;
        let (mut freezes, mut thaws, mut pauses) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..51 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let began = Instant::now();
            let frozen = world.sandbox.freeze(&spec.id, Duration::from_secs(5)).await.unwrap();
            freezes.push(began.elapsed());
            let began = Instant::now();
            pauses.push(frozen.thaw().await.unwrap());
            thaws.push(began.elapsed());
        }
        println!("lacking {lacks:?}");
        for (what, times) in [("freeze", &mut freezes), ("thaw", &mut thaws), ("stood still", &mut pauses)] {
            times.sort();
            println!("  {what}: median {:?}, min {:?}, max {:?}", times[25], times[0], times[50]);
        }
        world.close().await;
    }
}
