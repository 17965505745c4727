//! The command that prepares the data for a release: on a copy of it, and then in earnest.

use std::time::Duration;

use trackbed_control::{DeploymentWish, PointAt};
use trackbed_core::deployment::{Deployment, DeploymentState, Step};
use trackbed_core::instance::Exit;
use trackbed_core::route::UpstreamState;
use trackbed_testkit::App;

use crate::rig::Rig;

const GOOD: Exit = Exit::Code { code: 0 };
const BAD: Exit = Exit::Code { code: 3 };

fn preparing(name: &str, on_a_copy: Exit, in_earnest: Exit) -> App {
    App::new(name).with_volume().prints(&["migrating"]).prepares(on_a_copy, in_earnest)
}

/// The names of those who wrote what lies in the volume now.
async fn writers(rig: &Rig) -> Vec<String> {
    rig.writers(&rig.world.content(&rig.volume().await.id))
}

async fn told(rig: &Rig, deployment: &Deployment) -> Vec<String> {
    rig.events(&deployment.id).await.into_iter().map(|event| event.message).collect()
}

#[tokio::test(start_paused = true)]
async fn it_runs_on_a_copy_while_the_old_release_serves_and_then_in_earnest_before_the_start() {
    let mut rig = Rig::with_data().await;
    let mut app = preparing("two", GOOD, GOOD);
    app.pre_deploy.takes = Duration::from_secs(3);
    let id = rig.up(&app).await;
    rig.reach(&id, Step::Rehearse).await;
    rig.until("the trial", async |rig| rig.world.living().len() == 2).await;
    let trial = rig.world.living().into_iter().find(|instance| instance.spec.offline).unwrap();
    assert_eq!((trial.spec.command.as_str(), trial.spec.port), ("migrate", None));
    assert!(trial.spec.volumes[0].host_path.contains("/stages/"), "{:?}", trial.spec.volumes);
    assert!(matches!(rig.upstream().await, UpstreamState::Serving { .. }), "the old release serves");
    rig.reach(&id, Step::PreDeploy).await;
    let deployment = rig.finish(&id).await;
    assert_eq!(deployment.state, DeploymentState::Success, "{:?}", deployment.failure);
    assert!((3000..3100).contains(&deployment.pre_deploy_took_ms.unwrap()), "{deployment:?}");
    let told = told(&rig, &deployment).await;
    for expected in [
        "pre-deploy on a copy of the data: `migrate` exited with code 0 after 3.00 s",
        "pre-deploy: `migrate` exited with code 0 after 3.00 s",
        "| migrating",
    ] {
        assert!(told.iter().any(|message| message == expected), "{expected}: {told:?}");
    }
    assert_eq!(
        writers(&rig).await,
        ["one", "two", "two"],
        "the command and the app, and nothing of the trial"
    );
    rig.settle().await;
    assert!(rig.world.stages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_on_the_copy_ends_the_deployment_before_any_caller_waits() {
    let mut rig = Rig::with_data().await;
    let (_, old) = rig.live().await;
    let failed = rig.deploy(&preparing("two", BAD, GOOD)).await;
    let failure = failed.failure.clone().unwrap();
    assert_eq!(failure.stage, Step::Rehearse);
    assert!(failure.reason.contains("on a copy of the data: `migrate` exited with code 3"), "{failure:?}");
    assert!(failure.hint.unwrap().contains("preDeployTrial = false"));
    assert_eq!(failure.log_tail, ["migrating"]);
    rig.settle().await;
    assert_eq!(rig.live().await.1, old, "never touched");
    assert_eq!(failed.pause, None);
    assert_eq!(writers(&rig).await, ["one"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_in_earnest_leaves_no_trace_in_the_data() {
    let mut rig = Rig::with_data().await;
    let failed = rig.deploy(&preparing("two", GOOD, BAD)).await;
    assert_eq!(failed.state, DeploymentState::Failed);
    let failure = failed.failure.clone().unwrap();
    assert_eq!(failure.stage, Step::PreDeploy);
    assert!(failure.reason.starts_with("pre-deploy: `migrate` exited with code 3"), "{failure:?}");
    rig.settle().await;
    assert_eq!(rig.live().await.0.version, 1);
    let writers = writers(&rig).await;
    assert!(!writers.contains(&"two".to_owned()), "{writers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_without_a_volume_runs_it_once_before_the_start() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, old) = rig.live().await;
    let failed = rig.deploy(&App::new("two").prepares(GOOD, BAD)).await;
    assert_eq!(failed.failure.unwrap().stage, Step::PreDeploy);
    assert_eq!(rig.live().await.1, old, "it served all the time");
    let done = rig.deploy_well(&App::new("three").prepares(BAD, GOOD)).await;
    assert!(done.pre_deploy_took_ms.is_some());
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn callers_are_held_for_as_long_as_it_took_on_the_copy_and_no_shorter() {
    let mut rig = Rig::with_data().await;
    let mut slow = preparing("two", GOOD, GOOD);
    slow.pre_deploy.takes = Duration::from_secs(40);
    let deployment = rig.deploy_well(&slow).await;
    assert!((110_000..112_000).contains(&deployment.hold_window_ms.unwrap()), "{deployment:?}");
    // What is known to take longer than callers may be held is not begun.
    let mut short = preparing("three", GOOD, GOOD);
    short.pre_deploy.takes = Duration::from_secs(40);
    short.config.hold_window = Some(Duration::from_secs(20));
    let (_, old) = rig.live().await;
    let failed = rig.deploy(&short).await;
    let failure = failed.failure.unwrap();
    assert_eq!(failure.stage, Step::Rehearse);
    assert!(failure.reason.contains("longer than callers may be held (20 s)"), "{}", failure.reason);
    assert_eq!(rig.live().await.1, old);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_trial_it_runs_in_earnest_alone() {
    let mut rig = Rig::with_data().await;
    let mut app = preparing("two", BAD, GOOD);
    app.config.pre_deploy_untried = true;
    let deployment = rig.deploy_well(&app).await;
    assert_eq!(deployment.rehearsal, None);
    assert!(deployment.pre_deploy_took_ms.is_some());
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_and_a_rollback_run_nothing_and_restored_data_is_prepared_again() {
    let mut rig = Rig::with_data().await;
    let second = rig.deploy_well(&preparing("two", GOOD, GOOD)).await;
    let restart = rig.wish("web", DeploymentWish::Restart).await.unwrap();
    assert_eq!(rig.finish(&restart.id).await.pre_deploy, None);
    let restore = DeploymentWish::Restore { volume: None, at: PointAt::Id(second.pins[0].point.clone()) };
    let restored = rig.wish("web", restore).await.unwrap();
    let restored = rig.finish(&restored.id).await;
    assert_eq!(restored.state, DeploymentState::Success, "{:?}", restored.failure);
    assert!(restored.pre_deploy_took_ms.is_some());
    assert_eq!(writers(&rig).await, ["one", "two", "two"]);
    let back = DeploymentWish::Rollback { version: Some(1), with_data: false };
    let back = rig.wish("web", back).await.unwrap();
    assert_eq!(rig.finish(&back.id).await.pre_deploy, None);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_box_that_restarts_in_the_middle_waits_for_the_command_that_was_started() {
    let mut rig = Rig::with_data().await;
    let mut app = preparing("two", GOOD, GOOD);
    app.pre_deploy.takes = Duration::from_secs(5);
    let id = rig.up(&app).await;
    rig.reach(&id, Step::PreDeploy).await;
    let started = async |rig: &Rig| {
        rig.world.living().iter().filter(|one| one.spec.command == "migrate" && !one.spec.offline).count()
            == 1
    };
    rig.until("the command", started).await;
    rig.end().await;
    rig.crash().await;
    let deployment = rig.finish(&id).await;
    assert_eq!(deployment.state, DeploymentState::Success, "{:?}", deployment.failure);
    assert_eq!(writers(&rig).await, ["one", "two", "two"], "it ran once");
    rig.settle().await;
}
