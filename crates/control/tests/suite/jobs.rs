//! Jobs: releases that run at the ticks of a schedule and end.

use std::time::Duration;

use trackbed_control::ServiceState;
use trackbed_core::deployment::DeploymentState;
use trackbed_core::instance::Exit;
use trackbed_core::job::Run;
use trackbed_core::route::{DownReason, UpstreamState};
use trackbed_testkit::App;
use trackbed_testkit::faults::{Call, Fault, Mode};

use crate::data_rig::MINUTE;
use crate::rig::Rig;

/// Runs every five minutes and takes so long.
fn job(name: &str, takes: Duration, exit: Exit) -> App {
    let mut app = App::new(name).with_volume().ends(takes, exit).prints(&["a tick"]);
    app.config.cron = Some("*/5 * * * *".parse().unwrap());
    app
}

async fn runs(rig: &Rig) -> Vec<Run> {
    rig.service().await.live.unwrap().job.unwrap().runs
}

async fn state(rig: &Rig) -> ServiceState {
    rig.control.status(rig.service().await).await.unwrap().state
}

fn how(run: &Run) -> Option<Exit> {
    run.end.as_ref().map(|end| end.exit.clone())
}

#[tokio::test(start_paused = true)]
async fn a_job_is_live_without_running_and_runs_at_each_tick() {
    let mut rig = Rig::new().await;
    let deployment = rig.deploy_well(&job("one", 2 * MINUTE, Exit::Code { code: 0 })).await;
    assert!(deployment.finished_at.is_some());
    assert!(rig.world.living().is_empty());
    assert_eq!(state(&rig).await, ServiceState::Scheduled);
    assert_eq!(rig.upstream().await, UpstreamState::Down { reason: DownReason::Stopped });
    rig.until("a run", async |rig| rig.world.living().len() == 1).await;
    let spec = rig.world.living().remove(0).spec;
    assert_eq!((spec.command.as_str(), spec.port, spec.offline), ("serve one", None, false));
    assert_eq!(state(&rig).await, ServiceState::Running);
    rig.pass_time(9 * MINUTE).await;
    let runs = runs(&rig).await;
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert!(runs.iter().all(|run| how(run) == Some(Exit::Code { code: 0 })), "{runs:?}");
    assert_eq!(runs[1].due_at.since(runs[0].due_at), 5 * MINUTE);
    assert_eq!(runs[0].due_at.0 % 300_000, 0);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn the_volume_of_a_job_is_backed_up_between_its_runs() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&job("one", MINUTE, Exit::Code { code: 0 })).await;
    assert_eq!(state(&rig).await, ServiceState::Scheduled);
    let web = || "web".parse().unwrap();
    let points = rig.control.request_backup(&web(), &web(), None).await.unwrap();
    assert_eq!(points.len(), 1);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_tick_is_skipped_while_the_run_before_is_at_it() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&job("one", 7 * MINUTE, Exit::Code { code: 4 })).await;
    rig.until("a run", async |rig| rig.world.living().len() == 1).await;
    rig.pass_time(11 * MINUTE).await;
    let runs = runs(&rig).await;
    assert_eq!(runs.iter().map(|run| run.instance.is_some()).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(how(&runs[0]), Some(Exit::Code { code: 4 }), "a run that failed keeps nothing from running");
    assert_eq!((how(&runs[1]), how(&runs[2])), (None, None));
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_died_takes_up_the_run_that_is_under_way() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&job("one", 2 * MINUTE, Exit::Code { code: 0 })).await;
    rig.until("a run", async |rig| rig.world.living().len() == 1).await;
    rig.end().await;
    rig.crash().await;
    rig.pass_time(3 * MINUTE).await;
    let runs = runs(&rig).await;
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(how(&runs[0]), Some(Exit::Code { code: 0 }));
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_started_is_written_down_and_the_next_tick_is_another_chance() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&job("one", MINUTE, Exit::Code { code: 0 })).await;
    rig.faults.arm(Fault { call: Call { name: "engine.start", number: 1 }, mode: Mode::FailOnce });
    rig.pass_time(11 * MINUTE).await;
    let runs = runs(&rig).await;
    assert!(matches!(how(&runs[0]), Some(Exit::Setup { .. })), "{runs:?}");
    assert_eq!(how(&runs[1]), Some(Exit::Code { code: 0 }), "{runs:?}");
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_ends_the_run_before_it_touches_the_volume_and_keeps_the_history() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&job("one", 4 * MINUTE, Exit::Code { code: 0 })).await;
    rig.until("a run", async |rig| rig.world.living().len() == 1).await;
    let deployment = rig.deploy(&job("two", MINUTE, Exit::Code { code: 0 })).await;
    assert_eq!(deployment.state, DeploymentState::Success, "{:?}", deployment.failure);
    assert!(rig.world.living().is_empty());
    rig.pass_time(6 * MINUTE).await;
    let runs = runs(&rig).await;
    assert!(matches!(how(&runs[0]), Some(Exit::Signal { .. })), "{runs:?}");
    assert_eq!(how(&runs[1]), Some(Exit::Code { code: 0 }), "{runs:?}");
    // And back to something that serves, and to a job again.
    rig.deploy_well(&App::new("three").with_volume()).await;
    rig.settle().await;
    assert_eq!(state(&rig).await, ServiceState::Running);
    rig.deploy_well(&job("four", MINUTE, Exit::Code { code: 0 })).await;
    rig.settle().await;
    assert_eq!(state(&rig).await, ServiceState::Scheduled);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_stopped_ends_and_runs_no_more_until_it_is_wanted_again() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&job("one", 4 * MINUTE, Exit::Code { code: 0 })).await;
    rig.until("a run", async |rig| rig.world.living().len() == 1).await;
    rig.down().await;
    rig.settle().await;
    assert_eq!(state(&rig).await, ServiceState::Stopped);
    let before = runs(&rig).await;
    assert!(matches!(how(&before[0]), Some(Exit::Signal { .. })), "{before:?}");
    rig.pass_time(20 * MINUTE).await;
    assert_eq!(runs(&rig).await, before);
}

#[tokio::test(start_paused = true)]
async fn ticks_that_passed_while_the_box_was_down_are_served_by_one_run() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&job("one", MINUTE, Exit::Code { code: 0 })).await;
    rig.end().await;
    trackbed_testkit::clock::jump(3_600_000);
    rig.crash().await;
    rig.pass_time(2 * MINUTE).await;
    let runs = runs(&rig).await;
    assert!((1..=2).contains(&runs.len()), "{runs:?}");
    assert_eq!(how(&runs[0]), Some(Exit::Code { code: 0 }));
    rig.settle().await;
}
