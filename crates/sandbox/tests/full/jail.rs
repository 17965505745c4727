//! What bounds a job: it goes first when memory is short, yields the processor, and cannot multiply without end.

use std::process::Command;
use std::time::Duration;

use trackbed_core::instance::Exit;
use trackbed_core::isolation::IsolationLevel;
use trackbed_core::ports::{Engine, JobEnd, JobRunner};

use crate::world::{Lines, World, wait_for};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_job_is_ended_before_any_app_and_yields_the_processor() {
    for level in [IsolationLevel::Full, IsolationLevel::Userns] {
        let Some(full) = World::full() else { return };
        let world = if level == IsolationLevel::Full {
            full
        } else {
            full.close().await;
            World::new(level)
        };
        let lines = Lines::default();
        let job = world.job("cat /proc/self/oom_score_adj; nice");
        let end = world.sandbox.run_job(job, SOON, &lines).await.unwrap();
        assert_eq!(end, JobEnd::Exit(Exit::Code { code: 0 }));
        assert_eq!(*lines.0.lock().unwrap(), ["Out: 1000", "Out: 10"], "{}", level.as_str());

        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        let app = world.spec("cat /proc/self/oom_score_adj");
        let (_, said) = world.run(&app).await;
        assert_eq!(said, own, "an app is as it is");
        world.close().await;
    }
}

#[tokio::test]
async fn a_job_weighs_a_tenth_of_an_app() {
    let Some(world) = World::full() else { return };
    let weight_of = |id: &str| {
        let found = Command::new("find")
            .args(["/sys/fs/cgroup", "-path", &format!("*{id}*")])
            .args(["(", "-name", "cpu.weight", "-o", "-name", "cpu.shares", ")", "-exec", "cat", "{}", ";"])
            .output()
            .unwrap();
        String::from_utf8(found.stdout).unwrap().lines().next().and_then(|line| line.parse::<u64>().ok())
    };
    let app = world.spec("echo up; sleep 1000");
    world.sandbox.start(&app).await.unwrap();
    let Some(of_app) = weight_of(app.id.as_str()) else {
        return world.close().await;
    };
    let job = world.job("echo up; sleep 1000");
    let (id, lines) = (job.id.clone(), Lines::default());
    let of_job = tokio::select! {
        _ = world.sandbox.run_job(job, SOON, &lines) => panic!("it sleeps"),
        weight = wait_for("the job's group", async || weight_of(id.as_str()).filter(|weight| *weight < of_app)) => weight,
    };
    assert_eq!(of_job, of_app / 10);
    wait_for("the job to go", async || world.sandbox.inspect(&id).await.unwrap().is_none().then_some(()))
        .await;
    world.close().await;
}

#[tokio::test]
async fn a_job_that_multiplies_without_end_is_refused_by_name_and_leaves_nothing() {
    let Some(world) = World::full() else { return };
    let bomb = |command: &str| {
        let mut job = world.job(command);
        job.limits.pids = Some(40);
        job
    };
    let lines = Lines::default();
    let end = world.sandbox.run_job(bomb("while :; do sleep 1000 & done"), SOON, &lines).await.unwrap();
    let said = lines.0.into_inner().unwrap();
    assert!(matches!(end, JobEnd::Exit(Exit::Code { code: 1.. })), "{end:?}: {said:?}");
    assert_eq!(said.last().map(String::as_str), Some("System: was refused more than 40 processes at once"));

    // One that takes no refusal for an answer is ended when its time is over.
    let stubborn = "trap '' TERM HUP; while :; do (while :; do sh -c : & done) 2>/dev/null; done";
    let end = world.sandbox.run_job(bomb(stubborn), Duration::from_secs(1), &Lines::default()).await.unwrap();
    assert_eq!(end, JobEnd::TimedOut);
    world.close().await;
}
