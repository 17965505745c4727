//! What ends a deployment before it is live though nothing of it failed: its owner, or a newer deployment.

use std::time::Duration;

use trackbed_control::{ControlError, DeploymentWish};
use trackbed_core::DeploymentId;
use trackbed_core::deployment::{Deployment, DeploymentState, Step, Withdrawal};
use trackbed_core::route::UpstreamState;
use trackbed_testkit::{App, Happening};

use crate::rig::{Rig, on_paused_time};

/// An app that takes its time in every step that has something to wait for.
fn slow(name: &str, has_volume: bool) -> App {
    let mut app = App::new(name);
    app.listens_after = Some(Duration::from_millis(500));
    app.stop_takes = Duration::from_millis(300);
    if has_volume { app.with_volume() } else { app }
}

/// A live release, and a deployment over it that has begun a step. None when the moment was missed: some steps are
/// shorter than a look at the state.
async fn at(step: Step, has_volume: bool) -> Option<(Rig, DeploymentId)> {
    let mut rig = Rig::new().await;
    rig.deploy_well(&slow("one", has_volume)).await;
    let id = rig.up(&slow("two", has_volume)).await;
    rig.catch(&id, step).await.then_some((rig, id))
}

/// Every step of both handovers.
fn steps() -> impl Iterator<Item = (Step, bool)> {
    let both = Step::ALL.into_iter().flat_map(|step| [(step, false), (step, true)]);
    let held_only = |step| matches!(step, Step::Drain | Step::Park | Step::Stop | Step::Swap);
    both.filter(move |(step, is_held)| *is_held || !held_only(*step))
}

/// Plays a scene until it has caught its moment.
fn until_caught(scene: impl AsyncFn() -> bool) {
    let caught = (0..200).any(|_| on_paused_time(scene()));
    assert!(caught, "the moment was never caught");
}

fn by(deployment: &Deployment) -> Option<&DeploymentId> {
    match &deployment.withdrawal {
        Some(Withdrawal::Superseded { by }) => Some(by),
        _ => None,
    }
}

#[test]
fn a_cancelled_deployment_is_undone_at_every_step_and_the_old_release_serves() {
    for (step, has_volume) in steps() {
        until_caught(async || {
            let Some((mut rig, id)) = at(step, has_volume).await else { return false };
            let asked = rig.cancel().await;
            let ended = rig.finish(&id).await;
            rig.settle().await;
            if step.can_undo() {
                assert_eq!(asked.unwrap().id, id, "{step:?}");
                assert_eq!(ended.state, DeploymentState::Cancelled, "{step:?} {has_volume}");
                assert_eq!(rig.live().await.0.version, 1);
            } else {
                // The transaction of the switch decides which of the two came first, and both keep to it.
                let is_live = ended.state == DeploymentState::Success;
                assert_eq!(asked.is_ok(), !is_live, "{step:?} {has_volume} {asked:?}");
                assert_eq!(rig.live().await.0.version, if is_live { 2 } else { 1 });
            }
            true
        });
    }
}

#[test]
fn a_newer_deployment_wins_over_one_at_every_step() {
    for (step, has_volume) in steps() {
        for kind in [None, Some(DeploymentWish::Restart), Some(DeploymentWish::Redeploy)] {
            until_caught(async || {
                let Some((mut rig, first)) = at(step, has_volume).await else { return false };
                let second = match kind.clone() {
                    None => rig.up(&slow("three", has_volume)).await,
                    Some(wish) => rig.wish("web", wish).await.unwrap().id,
                };
                let (first, newest) = (rig.finish(&first).await, rig.finish(&second).await);
                rig.settle().await;
                assert_eq!(newest.state, DeploymentState::Success, "{step:?} {has_volume}");
                assert_eq!(Some(rig.live().await.0.id), newest.release);
                match first.state {
                    DeploymentState::Superseded => assert_eq!(by(&first), Some(&second)),
                    DeploymentState::Success => {
                        let is_short_of_it = first.has_touched_old() || step >= Step::Switch || has_volume;
                        assert!(is_short_of_it, "{step:?} can be undone");
                    }
                    other => panic!("{step:?} {has_volume}: {other:?}"),
                }
                true
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_build_ends_at_once_when_it_is_cancelled() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let mut endless = App::new("two");
    endless.build_takes = Duration::from_secs(1000);
    let id = rig.up(&endless).await;
    rig.reach(&id, Step::Build).await;
    rig.cancel().await.unwrap();
    rig.pass_time(Duration::from_secs(1)).await;
    let ended = rig.control.deployment(&id).await.unwrap();
    assert_eq!((ended.state, ended.step), (DeploymentState::Cancelled, Step::Build));
    assert!(ended.finished_at.is_some() && ended.failure.is_none());
    let events = rig.events(&id).await;
    let last: Vec<_> = events.iter().rev().take(2).map(|event| event.message.as_str()).collect();
    assert_eq!(last, ["the previous release keeps serving", "cancelled"]);
    // Its turn to build is free again.
    rig.deploy_well(&App::new("three")).await;
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_deployment_does_not_wait_for_a_build_that_nobody_wants_any_more() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let mut endless = App::new("two");
    endless.build_takes = Duration::from_secs(1000);
    let first = rig.up(&endless).await;
    rig.reach(&first, Step::Build).await;
    let second = rig.up(&App::new("three")).await;
    rig.pass_time(Duration::from_secs(3)).await;
    let (first, second) =
        (rig.control.deployment(&first).await.unwrap(), rig.control.deployment(&second).await.unwrap());
    assert_eq!((first.state, by(&first)), (DeploymentState::Superseded, Some(&second.id)));
    assert_eq!(second.state, DeploymentState::Success);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_is_cancelled_on_the_spot() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, old) = rig.live().await;
    rig.world.set_traffic(&old, 1, 1);
    let first = rig.up(&App::new("two")).await;
    rig.reach(&first, Step::Retire).await;
    let second = rig.up(&App::new("three")).await;
    let cancelled = rig.cancel().await.unwrap();
    assert_eq!((cancelled.id, cancelled.state), (second, DeploymentState::Cancelled));
    assert_eq!(rig.finish(&first).await.state, DeploymentState::Success);
    rig.settle().await;
    assert_eq!(rig.live().await.0.version, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_live_or_over_cannot_be_cancelled_and_the_refusal_says_what_to_do() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let refused = |refusal: Result<Deployment, ControlError>| match refusal {
        Err(ControlError::Conflict { message, hint }) => (message, hint.unwrap_or_default()),
        other => panic!("{other:?}"),
    };
    let (message, hint) = refused(rig.cancel().await);
    assert!(message.contains("no deployment under way") && hint.contains("trackbed rollback"), "{message}");
    let (_, old) = rig.live().await;
    rig.world.set_traffic(&old, 1, 1);
    let id = rig.up(&App::new("two")).await;
    rig.reach(&id, Step::Retire).await;
    let (message, hint) = refused(rig.cancel().await);
    assert!(message.contains("is live") && hint.contains("trackbed rollback"), "{message}: {hint}");
    let failed = rig.deploy(&App::new("bad").never_healthy()).await;
    let (message, _) = refused(rig.control.request_cancel_of(&failed.id).await);
    assert!(message.contains("has ended already"), "{message}");
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_release_that_was_stopped_for_another_gets_its_requests_back_when_that_is_cancelled() {
    let (mut rig, id) = at(Step::Health, true).await.unwrap();
    assert!(matches!(rig.upstream().await, UpstreamState::Parked { .. }));
    rig.cancel().await.unwrap();
    rig.finish(&id).await;
    assert!(matches!(rig.upstream().await, UpstreamState::Parked { .. }), "they wait for it");
    rig.settle().await;
    let (release, instance) = rig.live().await;
    assert_eq!((release.version, rig.served().await), (1, Some(instance)));
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_is_under_way_is_finished_before_anything_is_taken_back() {
    let (mut rig, id) = at(Step::Stop, true).await.unwrap();
    let old = rig.control.deployment(&id).await.unwrap().old_instance.unwrap();
    rig.cancel().await.unwrap();
    assert_eq!(rig.finish(&id).await.state, DeploymentState::Cancelled);
    rig.settle().await;
    let (release, instance) = rig.live().await;
    assert_eq!(release.version, 1);
    assert_ne!(instance, old, "it was told to stop, which nobody can unsay");
}

#[tokio::test(start_paused = true)]
async fn a_held_handover_that_is_nearly_there_is_not_thrown_back_for_something_unbuilt() {
    let (mut rig, first) = at(Step::Health, true).await.unwrap();
    let second = rig.up(&slow("three", true)).await;
    assert_eq!(rig.finish(&first).await.state, DeploymentState::Success, "callers wait for one start only");
    assert_eq!(rig.finish(&second).await.state, DeploymentState::Success);
    let started =
        rig.world.journal().into_iter().filter(|(_, it)| matches!(it, Happening::Started(_))).count();
    assert_eq!(started, 3, "no release is started twice");
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_held_handover_that_does_not_get_there_gives_way_after_ten_seconds() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let mut bad = App::new("two").with_volume().never_healthy();
    bad.config.health.timeout = Duration::from_secs(300);
    let first = rig.up(&bad).await;
    rig.reach(&first, Step::Health).await;
    let second = rig.up(&App::new("three").with_volume()).await;
    rig.pass_time(Duration::from_secs(9)).await;
    assert_eq!(rig.control.deployment(&first).await.unwrap().state, DeploymentState::Deploying);
    rig.pass_time(Duration::from_secs(5)).await;
    let first = rig.control.deployment(&first).await.unwrap();
    assert_eq!((first.state, by(&first)), (DeploymentState::Superseded, Some(&second)));
    assert_eq!(rig.finish(&second).await.state, DeploymentState::Success);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_built_already_takes_over_without_the_old_release_in_between() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    rig.deploy_well(&App::new("two").with_volume()).await;
    let first = rig.up(&App::new("three").with_volume().never_healthy()).await;
    rig.reach(&first, Step::Health).await;
    let before = rig.world.journal().len();
    let back =
        rig.wish("web", DeploymentWish::Rollback { version: Some(1), with_data: false }).await.unwrap().id;
    assert_eq!(rig.finish(&back).await.state, DeploymentState::Success);
    assert_eq!(rig.finish(&first).await.state, DeploymentState::Superseded);
    let journal = rig.world.journal();
    let started = journal[before..].iter().filter(|(_, it)| matches!(it, Happening::Started(_))).count();
    assert_eq!(started, 1, "release 2 is not started for a moment only");
    rig.settle().await;
    assert_eq!(rig.live().await.0.version, 1);
}

#[tokio::test(start_paused = true)]
async fn of_deployments_in_quick_succession_the_newest_wins_and_the_old_release_serves_meanwhile() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, old) = rig.live().await;
    let mut last = None;
    for number in 0..20 {
        let mut app = App::new(&format!("push {number}"));
        app.build_takes = Duration::from_secs(5);
        last = Some(rig.up(&app).await);
        rig.pass_time(Duration::from_secs(2)).await;
        assert_eq!(rig.served().await.as_ref(), Some(&old));
    }
    assert_eq!(rig.finish(&last.unwrap()).await.state, DeploymentState::Success);
    rig.settle().await;
    assert_eq!(rig.live().await.0.source, rig.world.push(&App::new("push 19")));
}

#[tokio::test(start_paused = true)]
async fn a_newer_deployment_that_is_cancelled_in_time_spares_the_older_one() {
    let (mut rig, first) = at(Step::Health, true).await.unwrap();
    let second = rig.up(&slow("three", true)).await;
    rig.control.request_cancel_of(&second).await.unwrap();
    assert_eq!(rig.finish(&first).await.state, DeploymentState::Success);
    assert_eq!(rig.finish(&second).await.state, DeploymentState::Cancelled);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_first_deployment_that_is_cancelled_leaves_nothing_but_the_service() {
    let mut rig = Rig::new().await;
    let id = rig.up(&App::new("one")).await;
    // Before its worker has come to it.
    let cancelled = rig.cancel().await.unwrap();
    assert_eq!(cancelled.id, id);
    rig.finish(&id).await;
    rig.settle().await;
    assert!(rig.world.living().is_empty());
    let id = rig.up(&App::new("two").with_volume().never_healthy()).await;
    rig.reach(&id, Step::Health).await;
    rig.cancel().await.unwrap();
    assert_eq!(rig.finish(&id).await.state, DeploymentState::Cancelled);
    rig.settle().await;
    assert!(rig.world.living().is_empty());
}
