//! What people ask for: rollback, restart, down, two deployments at once, variables, redeploy.

use std::time::Duration;

use trackbed_control::{ControlError, DeploymentWish, ServiceState};
use trackbed_core::deployment::{Deployment, DeploymentState, Step};
use trackbed_core::instance::{AppTree, InstanceKind};
use trackbed_core::service::Wanted;
use trackbed_testkit::App;

use crate::rig::Rig;

async fn do_well(rig: &mut Rig, wish: DeploymentWish) -> Deployment {
    let id = rig.wish("web", wish).await.unwrap().id;
    let deployment = rig.finish(&id).await;
    assert_eq!(deployment.state, DeploymentState::Success, "{:?}", deployment.failure);
    deployment
}

#[tokio::test(start_paused = true)]
async fn a_rollback_brings_back_image_settings_and_variables() {
    let mut rig = Rig::new().await;
    rig.set_variable("MODE", "first").await;
    rig.deploy_well(&App::new("one")).await;
    rig.set_variable("MODE", "second").await;
    rig.deploy_well(&App::new("two")).await;
    assert_eq!(rig.variable(&rig.live().await.1, "MODE").unwrap(), "second");

    do_well(&mut rig, DeploymentWish::Rollback { version: None, with_data: false }).await;
    let (release, instance) = rig.live().await;
    let spec = rig.world.instance(&instance).unwrap().spec;
    assert_eq!((release.version, spec.command.as_str()), (1, "serve one"));
    assert_eq!(rig.variable(&instance, "MODE").unwrap(), "first");
    assert!(matches!(spec.app, AppTree::Image { image } if *image == release.image));
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_goes_past_releases_that_never_were_live() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    rig.deploy(&App::new("bad").never_healthy()).await;
    rig.deploy_well(&App::new("three")).await;
    do_well(&mut rig, DeploymentWish::Rollback { version: None, with_data: false }).await;
    assert_eq!(rig.live().await.0.version, 1);
    let nothing = rig.wish("web", DeploymentWish::Rollback { version: None, with_data: false }).await;
    assert!(matches!(nothing, Err(ControlError::NotFound(_))), "{nothing:?}");
}

#[tokio::test(start_paused = true)]
async fn variables_take_effect_with_the_next_deployment_only() {
    let mut rig = Rig::new().await;
    rig.set_variable("MODE", "first").await;
    rig.deploy_well(&App::new("one")).await;
    rig.set_variable("MODE", "second").await;
    do_well(&mut rig, DeploymentWish::Restart).await;
    assert_eq!(rig.variable(&rig.live().await.1, "MODE").unwrap(), "first");
    do_well(&mut rig, DeploymentWish::Redeploy).await;
    assert_eq!(rig.variable(&rig.live().await.1, "MODE").unwrap(), "second");
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_the_same_release_in_a_fresh_instance() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (before, old) = rig.live().await;
    do_well(&mut rig, DeploymentWish::Restart).await;
    let (after, new) = rig.live().await;
    assert_eq!(before, after);
    assert_ne!(old, new);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn down_stops_and_restart_brings_it_back() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    rig.down().await;
    rig.settle().await;
    let service = rig.service().await;
    assert_eq!(service.wanted, Wanted::Stopped);
    assert_eq!(rig.control.status(service).await.unwrap().state, ServiceState::Stopped);

    do_well(&mut rig, DeploymentWish::Restart).await;
    rig.settle().await;
    assert_eq!(rig.service().await.wanted, Wanted::Running);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_fails_leaves_a_stopped_service_stopped() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    rig.down().await;
    rig.settle().await;
    rig.deploy(&App::new("bad").with_volume().never_healthy()).await;
    rig.settle().await;
    assert_eq!(rig.service().await.wanted, Wanted::Stopped);
}

#[tokio::test(start_paused = true)]
async fn of_several_deployments_only_the_newest_is_done() {
    let mut rig = Rig::new().await;
    let mut slow = App::new("one");
    slow.build_takes = Duration::from_secs(60);
    let first = rig.up(&slow).await;
    rig.reach(&first, Step::Build).await;
    let second = rig.up(&App::new("two")).await;
    let third = rig.up(&App::new("three")).await;
    assert_eq!(rig.finish(&third).await.state, DeploymentState::Success);
    assert_eq!(rig.finish(&first).await.state, DeploymentState::Superseded);
    assert_eq!(rig.finish(&second).await.state, DeploymentState::Superseded);
    rig.settle().await;
    assert_eq!(rig.live().await.0.source, rig.world.push(&App::new("three")));
}

#[tokio::test(start_paused = true)]
async fn a_redeploy_takes_the_newest_push_and_its_flags_whatever_came_after() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let source = rig.world.push(&App::new("two"));
    rig.control.add_source(source.clone()).await.unwrap();
    let overrides = vec![("deploy.startCommand".to_owned(), "serve two --flag".to_owned())];
    do_well(&mut rig, DeploymentWish::Up { source: source.clone(), overrides }).await;
    do_well(&mut rig, DeploymentWish::Rollback { version: None, with_data: false }).await;
    do_well(&mut rig, DeploymentWish::Redeploy).await;
    let (release, _) = rig.live().await;
    assert_eq!((release.source, release.config.start_command.as_str()), (source, "serve two --flag"));
}

#[tokio::test(start_paused = true)]
async fn a_down_during_a_build_is_the_last_word() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let mut slow = App::new("two");
    slow.build_takes = Duration::from_secs(60);
    let id = rig.up(&slow).await;
    rig.reach(&id, Step::Build).await;
    rig.down().await;
    rig.pass_time(Duration::from_secs(2)).await;
    let deployment = rig.control.deployment(&id).await.unwrap();
    assert_eq!(deployment.state, DeploymentState::Failed, "it does not wait for the build");
    assert!(deployment.failure.unwrap().reason.contains("was stopped before"));
    rig.settle().await;
    assert_eq!(rig.service().await.wanted, Wanted::Stopped);
    assert!(rig.world.living().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_is_asked_for_after_down_runs() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    rig.down().await;
    rig.deploy_well(&App::new("two")).await;
    rig.settle().await;
    assert_eq!(rig.service().await.wanted, Wanted::Running);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_lets_the_job_of_a_build_run_and_a_new_control_plane_ends_it() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let mut spec = rig.world.instance(&rig.live().await.1).unwrap().spec;
    spec.id = "ins_0123456789abcdef".parse().unwrap();
    spec.kind = InstanceKind::Job;
    let job = spec.id.clone();
    rig.world.add_instance(spec);
    rig.pass_time(Duration::from_secs(130)).await;
    assert!(
        rig.world.instance(&job).unwrap().lives(trackbed_testkit::clock::now()),
        "its build waits for it"
    );
    rig.crash().await;
    rig.pass_time(Duration::from_secs(1)).await;
    assert!(!rig.world.instance(&job).unwrap().lives(trackbed_testkit::clock::now()), "nobody waits for it");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_stopped_before_anything_was_live_says_so() {
    let mut rig = Rig::new().await;
    rig.deploy(&App::new("bad").never_healthy()).await;
    rig.down().await;
    rig.settle().await;
}
