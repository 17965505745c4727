//! Bad days: deployments that fail. The old release serves on, and the reason says what to do.

use std::time::Duration;

use trackbed_control::DeploymentWish;
use trackbed_core::Timestamp;
use trackbed_core::deployment::{Deployment, DeploymentState, EventKind, Step};
use trackbed_core::instance::Exit;
use trackbed_core::ports::{PortError, Preflight};
use trackbed_core::process::ProcessStatus;
use trackbed_core::route::UpstreamState;
use trackbed_testkit::{Answer, App, Happening};

use crate::rig::Rig;

/// Deploys `bad` over a live release, and asserts that it fails while the same instance serves on.
async fn fails_over_a_live_release(bad: &App) -> (Rig, Deployment) {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("good")).await;
    let (_, old) = rig.live().await;
    let deployment = rig.deploy(bad).await;
    assert_eq!(deployment.state, DeploymentState::Failed);
    rig.settle().await;
    let (release, instance) = rig.live().await;
    assert_eq!((release.version, &instance), (1, &old), "the old release was never touched");
    assert_eq!(rig.served().await, Some(old));
    (rig, deployment)
}

fn reason(deployment: &Deployment) -> (Step, &str, &str) {
    let failure = deployment.failure.as_ref().unwrap();
    (failure.stage, &failure.reason, failure.hint.as_deref().unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_fails_touches_nothing() {
    let mut bad = App::new("bad");
    bad.plan_error = Some(PortError::new("nothing to start in here").hint("add a Procfile"));
    let (rig, deployment) = fails_over_a_live_release(&bad).await;
    assert_eq!(reason(&deployment), (Step::Plan, "nothing to start in here", "add a Procfile"));
    assert!(deployment.instance.is_none());
    assert_eq!(rig.world.living().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_build_that_fails_quotes_its_log() {
    let mut bad = App::new("bad");
    bad.build_error = Some(PortError::new("pip exited with code 1"));
    let (rig, deployment) = fails_over_a_live_release(&bad).await;
    let failure = deployment.failure.clone().unwrap();
    assert_eq!((failure.stage, failure.reason.as_str()), (Step::Build, "pip exited with code 1"));
    assert_eq!(failure.log_tail, ["building bad", "pip exited with code 1"]);
    let log = rig.control.build_log(&deployment.id, 0).await.unwrap();
    assert_eq!(log.lines.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_never_listens_fails_by_the_health_timeout() {
    let (_, deployment) = fails_over_a_live_release(&App::new("bad").never_healthy()).await;
    let (stage, reason, hint) = reason(&deployment);
    assert_eq!(stage, Step::Health);
    assert!(reason.starts_with("nothing listened on $PORT (") && reason.ends_with("for 20 s"), "{reason}");
    assert!(hint.contains("0.0.0.0:$PORT"), "{hint}");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_exits_at_once_fails_with_its_code_and_its_words() {
    let bad = App::new("bad")
        .ends(Duration::from_millis(20), Exit::Code { code: 3 })
        .prints(&["ModuleNotFoundError: No module named 'fastapi'"]);
    let (_, deployment) = fails_over_a_live_release(&bad).await;
    let (_, reason, hint) = reason(&deployment);
    assert!(reason.contains("exited with code 3") && reason.contains("fastapi"), "{reason}");
    assert!(hint.contains("add `fastapi` to the requirements"), "{hint}");
    assert_eq!(deployment.failure.unwrap().log_tail.len(), 1);
}

/// A process beside the main one, by how often it has failed.
fn worker(failures: u32) -> ProcessStatus {
    ProcessStatus {
        name: "worker.1".into(),
        ends: failures,
        failures,
        last: (failures > 0).then_some(Exit::Code { code: 1 }),
        since: Some(Timestamp(0)),
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_fails_fails_its_release_although_the_server_is_healthy() {
    let mut bad = App::new("bad");
    bad.processes = vec![worker(1)];
    let (_, deployment) = fails_over_a_live_release(&bad).await;
    let (stage, reason, hint) = reason(&deployment);
    assert_eq!(
        (stage, reason),
        (Step::Health, "process `worker.1` exited with code 1 before the release was healthy")
    );
    assert!(hint.contains("trackbed scale worker=0"), "{hint}");
    let mut good = App::new("good");
    good.processes = vec![worker(0)];
    Rig::new().await.deploy_well(&good).await;
}

#[tokio::test(start_paused = true)]
async fn an_app_that_needs_too_much_memory_is_told_so() {
    let bad = App::new("bad").ends(Duration::from_millis(20), Exit::Oom);
    let (_, deployment) = fails_over_a_live_release(&bad).await;
    let (_, reason, hint) = reason(&deployment);
    assert!(reason.contains("memory") && hint.contains("memory limit"), "{reason}: {hint}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_lines_leaves_the_last_twenty() {
    let mut bad = App::new("bad").ends(Duration::from_millis(20), Exit::Code { code: 1 });
    bad.prints = (0..50_000).map(|line| format!("line {line}")).collect();
    let (_, deployment) = fails_over_a_live_release(&bad).await;
    let tail = deployment.failure.unwrap().log_tail;
    assert_eq!((tail.len(), tail.last().unwrap().as_str()), (20, "line 49999"));
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_not_health() {
    let (_, deployment) =
        fails_over_a_live_release(&App::new("bad").answers(301, "https://web.localhost/health")).await;
    let (_, reason, hint) = reason(&deployment);
    assert!(reason.contains("301 (to https://web.localhost/health)"), "{reason}");
    assert!(hint.contains("without a redirect"), "{hint}");
}

#[tokio::test(start_paused = true)]
async fn a_server_error_is_quoted() {
    let (_, deployment) = fails_over_a_live_release(&App::new("bad").answers(503, "no database")).await;
    assert!(reason(&deployment).1.contains("/health answered 503 for 20 s, not 200: no database"));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_accepts_and_says_nothing_fails_in_time() {
    let mut bad = App::new("bad");
    bad.answer = Answer::Silence;
    let (_, deployment) = fails_over_a_live_release(&bad).await;
    assert!(reason(&deployment).1.contains("gave no answer within 20 s"));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_accepts_railways_host_only_is_live_with_a_warning() {
    let mut rig = Rig::new().await;
    let mut app = App::new("picky");
    app.answer = Answer::OnlyHost("healthcheck.railway.app".into());
    let deployment = rig.deploy_well(&app).await;
    assert!(warnings(&rig, &deployment).await[0].contains("add `web.localhost` to its allowed hosts"));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_refuses_every_host_is_told_which_to_allow() {
    let mut bad = App::new("bad");
    bad.answer = Answer::OnlyHost("example.com".into());
    let (_, deployment) = fails_over_a_live_release(&bad).await;
    assert!(reason(&deployment).2.contains("allow `web.localhost`"));
}

#[tokio::test(start_paused = true)]
async fn an_app_on_another_port_is_served_there_with_a_warning() {
    let mut rig = Rig::new().await;
    let mut app = App::new("stubborn");
    app.other_ports = vec![3000];
    let deployment = rig.deploy_well(&app).await;
    assert_eq!(deployment.port, Some(3000));
    assert!(warnings(&rig, &deployment).await[0].contains("listens on port 3000, not on $PORT"));
    let UpstreamState::Serving { target } = rig.upstream().await else { panic!("it serves") };
    assert!(target.address.0.ends_with(":3000"));
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn an_app_on_several_other_ports_fails_and_they_are_named() {
    let mut bad = App::new("bad");
    bad.other_ports = vec![3000, 4000];
    let (_, deployment) = fails_over_a_live_release(&bad).await;
    assert!(reason(&deployment).1.contains("listens on port 3000 and 4000, not on $PORT"));
}

#[tokio::test(start_paused = true)]
async fn a_required_volume_that_is_missing_is_found_before_the_old_release_is_touched() {
    let mut bad = App::new("bad");
    bad.config.required_mount = Some("/data".parse().unwrap());
    let (_, deployment) = fails_over_a_live_release(&bad).await;
    let (stage, reason, hint) = reason(&deployment);
    assert_eq!((stage, hint), (Step::Check, "trackbed volume add data /data"));
    assert!(reason.contains("requires a volume at /data"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_volume_never_changes_its_place_silently() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let (_, old) = rig.live().await;
    let deployment = rig.deploy(&App::new("two").with_volume_at("data", "/other")).await;
    let (stage, reason, _) = reason(&deployment);
    assert_eq!((stage, reason), (Step::Check, "the service already has a volume `data`, mounted at /data"));
    rig.settle().await;
    assert_eq!(rig.live().await.1, old);
}

#[tokio::test(start_paused = true)]
async fn a_reference_to_nothing_fails_the_plan_and_names_the_variable() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    rig.set_variable("URL", "${{ db.URL }}").await;
    let deployment = rig.deploy(&App::new("two")).await;
    let (stage, reason, hint) = reason(&deployment);
    assert_eq!((stage, reason), (Step::Plan, "variable `URL` refers to `${{ db.URL }}`, which is not set"));
    assert!(hint.contains("trackbed variables"), "{hint}");
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_held_handover_that_fails_starts_the_old_release_again() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let (_, old) = rig.live().await;
    let id = rig.up(&App::new("two").with_volume().never_healthy()).await;
    rig.reach(&id, Step::Health).await;
    assert!(matches!(rig.upstream().await, UpstreamState::Parked { .. }), "requests wait meanwhile");
    assert_eq!(rig.finish(&id).await.state, DeploymentState::Failed);
    assert!(matches!(rig.upstream().await, UpstreamState::Parked { .. }), "also while the old one starts");
    rig.settle().await;
    let (release, instance) = rig.live().await;
    assert_eq!(release.version, 1);
    assert_ne!(instance, old);
    assert_eq!(rig.served().await, Some(instance));
    let events = rig.events(&id).await;
    assert!(events.iter().any(|event| event.message.contains("is started again")), "{events:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_first_deployment_that_fails_leaves_nothing_running() {
    let mut rig = Rig::new().await;
    let deployment = rig.deploy(&App::new("bad").with_volume().never_healthy()).await;
    assert_eq!(deployment.state, DeploymentState::Failed);
    rig.settle().await;
    assert!(rig.world.living().is_empty());
}

async fn warnings(rig: &Rig, deployment: &Deployment) -> Vec<String> {
    let events = rig.events(&deployment.id).await.into_iter();
    events.filter(|event| event.kind == EventKind::Warning).map(|event| event.message).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pre_flight_that_fails_touches_nothing() {
    for has_volume in [false, true] {
        let app = |name: &str| if has_volume { App::new(name).with_volume() } else { App::new(name) };
        let mut rig = Rig::new().await;
        rig.deploy_well(&app("good")).await;
        let (_, old) = rig.live().await;
        let tables = rig.world.journal().len();
        let mut bad = app("bad");
        bad.preflight = Preflight::Failed(PortError::new("there is no `mainn`").hint("say `main:app`"));
        let deployment = rig.deploy(&bad).await;
        assert_eq!(reason(&deployment), (Step::Check, "there is no `mainn`", "say `main:app`"));
        assert_eq!(rig.served().await, Some(old));
        for (_, happening) in &rig.world.journal()[tables..] {
            let parks = |table: &trackbed_core::route::RouteTable| {
                table.routes.values().any(|route| matches!(route.upstream, UpstreamState::Parked { .. }))
            };
            assert!(!matches!(happening, Happening::Started(_) | Happening::Stopping(_)), "{happening:?}");
            assert!(!matches!(happening, Happening::Applied(table) if parks(table)), "{happening:?}");
        }
        rig.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pre_flight_that_cannot_be_run_is_a_warning() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let mut app = App::new("two").with_volume();
    app.preflight = Preflight::NotRun("this box has no mounts".into());
    let deployment = rig.deploy_well(&app).await;
    let said = warnings(&rig, &deployment).await;
    assert!(said.iter().any(|text| text.contains("this box has no mounts")), "{said:?}");
    // The same image and command serve already: nothing is looked at, and nothing is said.
    let again = rig.wish("web", DeploymentWish::Redeploy).await.unwrap().id;
    let again = rig.finish(&again).await;
    assert_eq!((again.state, warnings(&rig, &again).await), (DeploymentState::Success, Vec::new()));
}
