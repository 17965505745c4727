//! The restart policy: what happens when the live release ends by itself.

use std::time::Duration;

use trackbed_control::ServiceState;
use trackbed_core::InstanceId;
use trackbed_core::deployment::{DeploymentState, Step};
use trackbed_core::instance::Exit;
use trackbed_core::route::{DownReason, UpstreamState};
use trackbed_core::settings::RestartMode;
use trackbed_testkit::{App, Happening};

use crate::rig::Rig;

const CRASH: Exit = Exit::Code { code: 1 };
const GOOD_END: Exit = Exit::Code { code: 0 };

fn starts(rig: &Rig) -> usize {
    let journal = rig.world.journal();
    journal.iter().filter(|(_, happening)| matches!(happening, Happening::Started(_))).count()
}

async fn state(rig: &Rig) -> ServiceState {
    rig.control.status(rig.service().await).await.unwrap().state
}

/// Deploys an app, kills its instance, and gives the control plane two seconds.
async fn after_an_end(app: &App, exit: Exit) -> (Rig, InstanceId) {
    let mut rig = Rig::new().await;
    rig.deploy_well(app).await;
    let (_, instance) = rig.live().await;
    rig.world.kill(&instance, exit);
    rig.pass_time(Duration::from_secs(2)).await;
    (rig, instance)
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_restarted_and_callers_wait_meanwhile() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, instance) = rig.live().await;
    rig.world.kill(&instance, CRASH);
    rig.pass_time(Duration::from_millis(450)).await;
    assert!(matches!(rig.upstream().await, UpstreamState::Parked { .. }));
    rig.settle().await;
    assert_ne!(rig.live().await.1, instance);
    assert_eq!(state(&rig).await, ServiceState::Running);
}

#[tokio::test(start_paused = true)]
async fn on_failure_gives_up_after_its_retries_with_growing_waits() {
    let mut rig = Rig::new().await;
    let app = App::new("one").restarts(RestartMode::OnFailure, 4).ends(Duration::from_secs(1), CRASH);
    rig.deploy_well(&app).await;
    rig.until("giving up", async |rig| rig.service().await.live.unwrap().given_up.is_some()).await;
    assert_eq!(starts(&rig), 5, "once, and four times again");
    let journal = rig.world.journal();
    let began: Vec<i64> = journal
        .iter()
        .filter(|(_, happening)| matches!(happening, Happening::Started(_)))
        .map(|(at, _)| at.0)
        .collect();
    let waits: Vec<i64> = began.windows(2).map(|pair| pair[1] - pair[0] - 1000).collect();
    for (wait, least) in waits.iter().zip([500, 1000, 2000, 4000]) {
        assert!((least..least + 900).contains(wait), "{waits:?}");
    }
    assert_eq!(rig.upstream().await, UpstreamState::Down { reason: DownReason::Crashed });
    assert_eq!(state(&rig).await, ServiceState::Crashed);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_crashes_within_a_minute_of_its_health_is_reported_with_the_way_back() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let bad = App::new("two")
        .restarts(RestartMode::OnFailure, 3)
        .ends(Duration::from_secs(20), CRASH)
        .prints(&["ModuleNotFoundError: No module named 'lazy'"]);
    rig.deploy_well(&bad).await;
    rig.until("a restart", async |rig| state(rig).await == ServiceState::Restarting).await;
    rig.until("the second end", async |rig| rig.service().await.live.unwrap().restarts == 2).await;
    rig.until("a restart", async |rig| state(rig).await == ServiceState::Restarting).await;
    let detail = rig.control.status(rig.service().await).await.unwrap().detail.unwrap();
    assert!(detail.ends_with("and is started again; to go back: trackbed rollback v1"), "{detail}");
    rig.until("giving up", async |rig| state(rig).await == ServiceState::Crashed).await;
    let detail = rig.control.status(rig.service().await).await.unwrap().detail.unwrap();
    assert!(
        detail.starts_with("it exited with code 1, after 3 restarts in a row: ModuleNotFound"),
        "{detail}"
    );
    assert!(detail.ends_with("; to go back: trackbed rollback v1"), "{detail}");
    rig.wish("web", trackbed_control::DeploymentWish::Rollback { version: Some(1), with_data: false })
        .await
        .unwrap();
    rig.until("release 1", async |rig| rig.live().await.0.version == 1).await;
    rig.settle().await;
    assert_eq!(rig.control.status(rig.service().await).await.unwrap().detail, None);
}

#[tokio::test(start_paused = true)]
async fn a_minute_of_steady_running_forgives_earlier_restarts() {
    let mut rig = Rig::new().await;
    let app = App::new("one").restarts(RestartMode::OnFailure, 2).ends(Duration::from_secs(70), CRASH);
    rig.deploy_well(&app).await;
    rig.pass_time(Duration::from_secs(600)).await;
    assert!(starts(&rig) >= 7, "it is never given up: {}", starts(&rig));
    assert!(rig.service().await.live.unwrap().given_up.is_none());
}

#[tokio::test(start_paused = true)]
async fn on_failure_leaves_a_good_end_alone() {
    let (mut rig, _) = after_an_end(&App::new("one"), GOOD_END).await;
    assert_eq!(state(&rig).await, ServiceState::Crashed);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn never_leaves_a_crash_alone() {
    let (mut rig, _) = after_an_end(&App::new("one").restarts(RestartMode::Never, 10), CRASH).await;
    assert_eq!(state(&rig).await, ServiceState::Crashed);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn always_restarts_a_good_end_too_and_never_gives_up() {
    let mut rig = Rig::new().await;
    let app = App::new("one").restarts(RestartMode::Always, 2).ends(Duration::from_secs(1), GOOD_END);
    rig.deploy_well(&app).await;
    rig.pass_time(Duration::from_secs(300)).await;
    assert!(starts(&rig) >= 10, "{}", starts(&rig));
    assert!(rig.service().await.live.unwrap().given_up.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_with_the_box_is_started_again_whatever_the_policy() {
    let (mut rig, instance) =
        after_an_end(&App::new("one").restarts(RestartMode::Never, 0), Exit::Lost).await;
    rig.settle().await;
    assert_ne!(rig.live().await.1, instance);
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_is_survived() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    rig.world.lose_power();
    rig.crash().await;
    rig.settle().await;
    assert_eq!(state(&rig).await, ServiceState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_crash_during_a_long_build_is_repaired_while_the_build_goes_on() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let (_, old) = rig.live().await;
    let mut slow = App::new("two").with_volume();
    slow.build_takes = Duration::from_secs(120);
    let id = rig.up(&slow).await;
    rig.reach(&id, Step::Build).await;
    rig.world.kill(&old, CRASH);
    rig.pass_time(Duration::from_secs(5)).await;
    assert_eq!(rig.control.deployment(&id).await.unwrap().step, Step::Build);
    let (release, instance) = rig.live().await;
    assert_eq!(release.version, 1);
    assert_eq!(rig.served().await, Some(instance));
    assert_eq!(rig.finish(&id).await.state, DeploymentState::Success);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_the_new_release_starts_beside_it_is_repaired() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, old) = rig.live().await;
    let mut slow = App::new("two");
    slow.listens_after = Some(Duration::from_secs(15));
    let id = rig.up(&slow).await;
    rig.reach(&id, Step::Health).await;
    rig.world.kill(&old, CRASH);
    rig.pass_time(Duration::from_secs(5)).await;
    assert_eq!(rig.control.deployment(&id).await.unwrap().step, Step::Health);
    let again = rig.live().await.1;
    assert_ne!(again, old);
    assert_eq!(rig.served().await, Some(again), "callers do not wait for the new release's slow start");
    assert_eq!(rig.finish(&id).await.state, DeploymentState::Success);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_slow_to_come_back_gives_way_to_a_new_deployment() {
    let mut rig = Rig::new().await;
    let mut app = App::new("one");
    app.config.health.timeout = Duration::from_secs(300);
    rig.deploy_well(&app).await;
    let (_, instance) = rig.live().await;
    rig.world.push(&app.never_healthy());
    rig.world.kill(&instance, CRASH);
    rig.pass_time(Duration::from_secs(5)).await;
    let id = rig.up(&App::new("two")).await;
    rig.pass_time(Duration::from_secs(5)).await;
    assert_eq!(rig.control.deployment(&id).await.unwrap().state, DeploymentState::Success);
    rig.settle().await;
}
