//! Data that cannot be put back after a deployment that failed: nothing starts on it by itself, and the ways out lead out.

use std::time::Duration;

use trackbed_control::{ControlError, DeploymentWish, PointAt, ServiceState};
use trackbed_core::deployment::{Deployment, DeploymentState, EventKind, Step};
use trackbed_core::route::{DownReason, UpstreamState};
use trackbed_testkit::App;

use crate::rig::Rig;

fn app(name: &str) -> App {
    App::new(name).with_volume()
}

/// A release that serves, and one after it whose health fails and whose pin cannot be read.
async fn blocked() -> (Rig, Deployment) {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let id = rig.up(&app("two").never_healthy()).await;
    rig.reach(&id, Step::Health).await;
    let pin = rig.control.deployment(&id).await.unwrap().pins[0].point.clone();
    rig.world.break_point(&pin);
    let failed = rig.finish(&id).await;
    assert_eq!(failed.state, DeploymentState::Failed);
    (rig, failed)
}

async fn writers(rig: &Rig) -> Vec<String> {
    rig.writers(&rig.world.content(&rig.volume().await.id))
}

async fn state(rig: &Rig) -> (ServiceState, String) {
    let status = rig.control.status(rig.service().await).await.unwrap();
    (status.state, status.detail.unwrap_or_default())
}

fn restore(deployment: &Deployment) -> DeploymentWish {
    DeploymentWish::Restore { volume: None, at: PointAt::Id(deployment.pins[0].point.clone()) }
}

#[tokio::test(start_paused = true)]
async fn data_that_cannot_be_put_back_leaves_the_service_stopped_and_says_every_way_out() {
    let (mut rig, failed) = blocked().await;
    let undone = failed.data_undone.clone().unwrap();
    let point = &failed.pins[0].point;
    for said in [
        "the data of volume data could not be put back as it was before v2",
        "is broken: a chunk is missing",
        "v1 is not started on what v2 may have left",
        &format!("trackbed volume restore data --at {point}"),
        "trackbed volume points data",
        "trackbed restart",
    ] {
        assert!(undone.contains(said), "{said} is missing in {undone}");
    }
    let events = rig.events(&failed.id).await;
    assert!(events.iter().any(|event| event.kind == EventKind::Warning && event.message == undone));
    assert_eq!(state(&rig).await, (ServiceState::Blocked, undone));
    assert_eq!(rig.upstream().await, UpstreamState::Down { reason: DownReason::Crashed });
    assert!(rig.world.living().is_empty());
    // Neither time nor another control plane starts it.
    rig.crash().await;
    rig.pass_time(Duration::from_secs(600)).await;
    rig.control.set_instances_aside().await.unwrap();
    rig.crash().await;
    rig.pass_time(Duration::from_secs(600)).await;
    assert_eq!(writers(&rig).await, ["one", "two"]);
    assert_eq!(state(&rig).await.0, ServiceState::Blocked);
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_dies_while_data_is_put_back_starts_nothing_on_changed_data() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let id = rig.up(&app("two").never_healthy()).await;
    rig.reach(&id, Step::Health).await;
    rig.faults.hang(Some("volumes.stage"));
    rig.until("the undoing", async |rig| rig.control.deployment(&id).await.unwrap().failure.is_some()).await;
    for _ in 0..5 {
        rig.pass_time(Duration::from_secs(20)).await;
        rig.crash().await;
        assert!(rig.world.living().is_empty());
    }
    rig.faults.hang(None);
    rig.crash().await;
    rig.finish(&id).await;
    rig.settle().await;
    assert_eq!(writers(&rig).await, ["one", "one"], "put back at last, and started again");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deployed_on_such_data_until_its_owner_says_which() {
    let (mut rig, failed) = blocked().await;
    let source = rig.world.push(&app("three"));
    rig.control.add_source(source.clone()).await.unwrap();
    let up = DeploymentWish::Up { source, overrides: Vec::new() };
    for wish in [up, DeploymentWish::Redeploy] {
        match rig.wish("web", wish).await {
            Err(ControlError::Conflict { message, hint: Some(hint) }) => {
                assert!(
                    message.contains("volume `data` holds what a failed deployment may have left"),
                    "{message}"
                );
                let point = &failed.pins[0].point;
                assert!(hint.contains(&format!("volume restore data --at {point}")), "{hint}");
                assert!(hint.contains("trackbed restart"), "{hint}");
            }
            other => panic!("{other:?}"),
        }
    }
    let restart = rig.wish("web", DeploymentWish::Restart).await.unwrap();
    assert_eq!(rig.finish(&restart.id).await.state, DeploymentState::Success);
    assert_eq!(writers(&rig).await, ["one", "two", "one"], "on the data as it was left");
    rig.deploy_well(&app("three")).await;
    assert_eq!(state(&rig).await.0, ServiceState::Running);
}

#[tokio::test(start_paused = true)]
async fn the_point_from_before_leads_back_once_it_can_be_read() {
    let (mut rig, failed) = blocked().await;
    rig.world.mend_point(&failed.pins[0].point);
    let wish = rig.wish("web", restore(&failed)).await.unwrap();
    let back = rig.finish(&wish.id).await;
    assert_eq!(back.state, DeploymentState::Success, "{:?}", back.failure);
    assert_eq!(writers(&rig).await, ["one", "one"]);
    assert_eq!(state(&rig).await.0, ServiceState::Running);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_fails_as_well_leaves_it_blocked_with_its_first_way_out() {
    let (mut rig, failed) = blocked().await;
    let wish = rig.wish("web", restore(&failed)).await.unwrap();
    assert_eq!(rig.finish(&wish.id).await.failure.unwrap().stage, Step::Stage);
    assert_eq!(state(&rig).await.0, ServiceState::Blocked);
    let unsettled = rig.service().await.live.unwrap().unsettled;
    assert_eq!(unsettled[0].point, failed.pins[0].point);
}

#[tokio::test(start_paused = true)]
async fn a_wish_from_before_the_failure_starts_nothing_on_changed_data() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let id = rig.up(&app("two").never_healthy()).await;
    rig.reach(&id, Step::Health).await;
    let pin = rig.control.deployment(&id).await.unwrap().pins[0].point.clone();
    rig.world.break_point(&pin);
    let early = rig.wish("web", DeploymentWish::Restart).await.unwrap();
    let refused = rig.finish(&early.id).await;
    let failure = refused.failure.unwrap();
    assert_eq!(failure.stage, Step::Check);
    assert!(failure.reason.contains("volume `data` holds what a failed"), "{}", failure.reason);
    assert_eq!(writers(&rig).await, ["one", "two"]);
    assert_eq!(state(&rig).await.0, ServiceState::Blocked);
}

#[tokio::test(start_paused = true)]
async fn putting_back_that_is_only_slow_goes_on_when_nobody_waits_any_more() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let id = rig.up(&app("two").never_healthy()).await;
    rig.reach(&id, Step::Health).await;
    // Longer than callers are held, and than everything that is tried again.
    rig.world.slow_data(Duration::from_secs(6 * 60));
    let failed = rig.finish(&id).await;
    assert!(failed.data_undone.unwrap().contains("as it was before v2"));
    rig.settle().await;
    assert_eq!(writers(&rig).await, ["one", "one"]);
}

#[tokio::test(start_paused = true)]
async fn a_point_that_cannot_be_read_is_not_needed_when_nothing_has_changed() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let mut idle = app("two").never_healthy();
    idle.writes = false;
    let id = rig.up(&idle).await;
    rig.reach(&id, Step::Health).await;
    let pin = rig.control.deployment(&id).await.unwrap().pins[0].point.clone();
    rig.world.break_point(&pin);
    assert_eq!(rig.finish(&id).await.data_undone, None);
    rig.settle().await;
    assert_eq!(writers(&rig).await, ["one", "one"]);
}
