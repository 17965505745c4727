//! Nothing takes for ever: steps that hang, ports that never answer, clocks that jump, and every stored state that a
//! control plane may wake up in.

use std::time::Duration;

use trackbed_core::deployment::{Deployment, DeploymentState, EventKind, Step, Stopwatch, Withdrawal};
use trackbed_core::route::RouteTable;
use trackbed_core::{DeploymentId, Timestamp};
use trackbed_testkit::faults::CALLS;
use trackbed_testkit::{App, Fault, Happening, Mode, clock};

use crate::rig::{Rig, on_paused_time};

/// All limits of a deployment and its undoing together, with what the fakes' settings ask for: a build, staging and a
/// rehearsal have an hour each.
const ALL_LIMITS: Duration = Duration::from_secs(5 * 3600);
const DAY_MS: i64 = 86_400_000;

async fn warnings(rig: &Rig, id: &DeploymentId) -> Vec<String> {
    let events = rig.events(id).await.into_iter();
    events.filter(|event| event.kind == EventKind::Warning).map(|event| event.message).collect()
}

/// Waits for the end of a deployment with coarse looks, because it may be hours away.
async fn ends_in_time(rig: &mut Rig, id: &DeploymentId) -> Deployment {
    let mut waited = Duration::ZERO;
    loop {
        let deployment = rig.control.deployment(id).await.unwrap();
        if deployment.finished_at.is_some() {
            return deployment;
        }
        assert!(waited < ALL_LIMITS, "it never ends\n{}", rig.story().await);
        rig.pass_time(Duration::from_secs(5)).await;
        waited += Duration::from_secs(5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_hangs_fails_with_its_name_its_limit_and_a_hint() {
    for (call, step, seconds) in [
        ("builder.plan", Step::Plan, 900),
        ("builder.build", Step::Build, 3600),
        ("engine.start", Step::Start, 600),
    ] {
        let mut rig = Rig::new().await;
        rig.deploy_well(&App::new("one")).await;
        rig.faults.hang(Some(call));
        let id = rig.up(&App::new("two")).await;
        let ended = ends_in_time(&mut rig, &id).await;
        let failure = ended.failure.unwrap();
        assert_eq!((ended.state, failure.stage), (DeploymentState::Failed, step));
        let said = format!("step {} was not done within {seconds} s", step.as_str());
        assert!(failure.reason.starts_with(&said), "{}", failure.reason);
        assert!(failure.hint.is_some());
        rig.faults.hang(None);
        rig.settle().await;
        assert_eq!(rig.live().await.0.version, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_our_own_is_told_once_and_ends_at_the_deadline() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let mut app = App::new("two");
    app.listens_after = Some(Duration::from_secs(5));
    let id = rig.up(&app).await;
    rig.reach(&id, Step::Health).await;
    rig.faults.hang(Some("engine.inspect"));
    let ended = ends_in_time(&mut rig, &id).await;
    assert_eq!(ended.state, DeploymentState::Failed);
    assert!(
        ended.failure.unwrap().reason.contains("the last error was: a look at an instance gave no answer")
    );
    let told = warnings(&rig, &id).await;
    let again = told.iter().filter(|text| text.contains("step health does not get on")).count();
    assert_eq!(again, 1, "{told:#?}");
    rig.faults.hang(None);
    rig.settle().await;
    assert_eq!(rig.live().await.0.version, 1);
}

#[tokio::test(start_paused = true)]
async fn an_old_release_that_cannot_be_stopped_is_owed_to_the_sweeper_and_the_queue_goes_on() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, old) = rig.live().await;
    rig.world.set_traffic(&old, 1, 1);
    let id = rig.up(&App::new("two")).await;
    rig.reach(&id, Step::Retire).await;
    rig.faults.hang(Some("engine.stop"));
    let ended = ends_in_time(&mut rig, &id).await;
    assert_eq!(ended.state, DeploymentState::Success);
    let told = warnings(&rig, &id).await;
    assert!(told.last().unwrap().contains("step retire was not done within 160 s"), "{told:#?}");
    assert!(told.last().unwrap().ends_with("the box goes on trying"));
    // The next deployment gets its turn although nothing has changed.
    let next = rig.up(&App::new("three")).await;
    rig.reach(&next, Step::Retire).await;
    assert!(rig.world.instance(&old).unwrap().lives(clock::now()));
    rig.faults.hang(None);
    ends_in_time(&mut rig, &next).await;
    rig.pass_time(Duration::from_secs(200)).await;
    assert!(!rig.world.instance(&old).unwrap().lives(clock::now()), "the sweeper has gone on trying");
    assert_eq!(rig.served().await, Some(rig.live().await.1));
    assert_eq!(rig.world.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_does_not_take_the_route_gets_it_later_and_the_old_release_serves_until_then() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, old) = rig.live().await;
    let id = rig.up(&App::new("two")).await;
    rig.reach(&id, Step::Health).await;
    rig.faults.hang(Some("edge.apply"));
    let ended = ends_in_time(&mut rig, &id).await;
    assert_eq!(ended.state, DeploymentState::Success);
    rig.pass_time(Duration::from_secs(200)).await;
    assert_eq!(rig.served().await, Some(old.clone()), "the edge knows no better");
    assert!(rig.world.instance(&old).unwrap().lives(clock::now()), "so it must not be stopped");
    rig.faults.hang(None);
    rig.pass_time(Duration::from_secs(200)).await;
    assert_eq!(rig.served().await, Some(rig.live().await.1));
    assert!(!rig.world.instance(&old).unwrap().lives(clock::now()));
    assert_eq!(rig.world.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_new_release_that_cannot_be_ended_does_not_keep_the_undo() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let id = rig.up(&App::new("bad").never_healthy()).await;
    rig.reach(&id, Step::Health).await;
    rig.faults.hang(Some("engine.stop"));
    let ended = ends_in_time(&mut rig, &id).await;
    assert_eq!(ended.state, DeploymentState::Failed);
    let told = warnings(&rig, &id).await;
    assert!(told.iter().any(|text| text.starts_with("undoing was not done within")), "{told:#?}");
    rig.faults.hang(None);
    rig.settle().await;
    assert_eq!(rig.live().await.0.version, 1);
}

/// A deployment of a slow start, whose clock jumps by a day in the middle.
async fn with_a_jump(by_ms: i64, restart: bool, app: App) -> (Rig, Deployment) {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let id = rig.up(&app).await;
    rig.reach(&id, Step::Health).await;
    rig.pass_time(Duration::from_secs(3)).await;
    clock::jump(by_ms);
    if restart {
        rig.crash().await;
    }
    let ended = ends_in_time(&mut rig, &id).await;
    (rig, ended)
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ends_no_healthy_deployment() {
    let mut slow = App::new("two");
    slow.listens_after = Some(Duration::from_secs(15));
    for by_ms in [DAY_MS, -DAY_MS] {
        for restart in [false, true] {
            let (mut rig, ended) = with_a_jump(by_ms, restart, slow.clone()).await;
            assert_eq!(ended.state, DeploymentState::Success, "{by_ms} {restart} {:?}", ended.failure);
            rig.settle().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_makes_no_deployment_immortal() {
    for by_ms in [DAY_MS, -DAY_MS] {
        let mut rig = Rig::new().await;
        rig.deploy_well(&App::new("one")).await;
        let mut bad = App::new("two").never_healthy();
        bad.config.health.timeout = Duration::from_secs(100);
        let id = rig.up(&bad).await;
        rig.reach(&id, Step::Health).await;
        // A control plane that dies every 30 s never sees the health timeout itself, and each time the clock lies.
        for _ in 0..20 {
            rig.pass_time(Duration::from_secs(30)).await;
            clock::jump(by_ms);
            rig.crash().await;
        }
        let ended = rig.control.deployment(&id).await.unwrap();
        assert_eq!(ended.state, DeploymentState::Failed, "{by_ms}");
        rig.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_changes_no_order() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    clock::jump(-DAY_MS);
    rig.deploy_well(&App::new("two")).await;
    let newest = rig.control.deployments(&rig.service().await, 1).await.unwrap().remove(0);
    assert_eq!(newest.release, Some(rig.live().await.0.id), "the newest is the one that was asked for last");
    // A stop is the last word although the deployment that it stops seems to be of tomorrow.
    let mut slow = App::new("three");
    slow.build_takes = Duration::from_secs(60);
    let id = rig.up(&slow).await;
    rig.reach(&id, Step::Build).await;
    clock::jump(-DAY_MS);
    rig.down().await;
    rig.pass_time(Duration::from_secs(10)).await;
    assert_eq!(rig.control.deployment(&id).await.unwrap().state, DeploymentState::Failed);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_restarted_although_the_clock_was_set_back_since() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, instance) = rig.live().await;
    rig.world.kill(&instance, trackbed_core::instance::Exit::Code { code: 1 });
    clock::jump(-DAY_MS);
    rig.pass_time(Duration::from_secs(10)).await;
    assert!(rig.served().await.is_some(), "nobody waits until the clock has caught up");
    rig.settle().await;
}

/// How a stored deployment was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    OnItsWay,
    Failed,
    Cancelled,
    /// Failed, and its new instance is ended already.
    HalfUndone,
}

/// Brings a deployment to a step, ends the control plane there, and leaves the deployment as it may have been left.
async fn leave(step: Step, has_volume: bool, left: Left) -> Option<(Rig, DeploymentId)> {
    let app = |name| if has_volume { App::new(name).with_volume() } else { App::new(name) };
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let id = rig.up(&app("two")).await;
    if !rig.catch(&id, step).await {
        return None;
    }
    rig.end().await;
    let mut deployment = rig.stored(&id).await;
    let is_live = deployment.state == DeploymentState::Success;
    if deployment.step != step || is_live && !matches!(left, Left::OnItsWay) {
        return None;
    }
    deployment.stopwatch = Some(Stopwatch { began_at: Timestamp(1), resumed: 3 });
    match left {
        Left::OnItsWay => {}
        Left::Failed | Left::HalfUndone => {
            let reason = "it was so".to_owned();
            let (hint, log_tail) = (None, Vec::new());
            deployment.failure =
                Some(trackbed_core::deployment::Failure { stage: step, reason, hint, log_tail });
        }
        Left::Cancelled => deployment.withdrawal = Some(Withdrawal::Cancelled),
    }
    if let (Left::HalfUndone, Some(instance)) = (left, &deployment.instance) {
        rig.world.kill(instance, trackbed_core::instance::Exit::Signal { signal: 9 });
    }
    rig.store_as(deployment).await;
    Some((rig, id))
}

/// Returns whether a deployment that goes on from a step may make a call; one that is never made need not hang.
fn is_made(call: &str, step: Step, left: Left, has_volume: bool) -> bool {
    let goes_on = left == Left::OnItsWay;
    match call {
        "builder.plan" => goes_on && step == Step::Plan,
        "builder.build" => goes_on && step <= Step::Build,
        "volumes.read_ahead" => goes_on && has_volume && step <= Step::Stage,
        "volumes.capture" => goes_on && has_volume && step <= Step::Pin,
        "volumes.compare" | "volumes.stage" | "volumes.swap_in" => {
            !goes_on && has_volume && step >= Step::Swap
        }
        "volumes.ensure" => true,
        "volumes.schemas" => false,
        // Of wishes for data, or of those who look after points: the matrix plays them.
        call => !call.starts_with("volumes."),
    }
}

/// From every stored state, with every port hanging for ever.
fn ends_from_everywhere(has_volume: bool) {
    let mut ended = 0;
    for step in Step::ALL {
        if !has_volume && matches!(step, Step::Drain | Step::Park | Step::Stop | Step::Swap) {
            continue;
        }
        for left in [Left::OnItsWay, Left::Failed, Left::Cancelled, Left::HalfUndone] {
            if step == Step::Retire && !matches!(left, Left::OnItsWay) {
                continue;
            }
            for hanging in std::iter::once(None)
                .chain(CALLS.into_iter().filter(|call| is_made(call, step, left, has_volume)).map(Some))
            {
                let play = || {
                    on_paused_time(async {
                        let Some((mut rig, id)) = leave(step, has_volume, left).await else { return false };
                        rig.faults.hang(hanging);
                        rig.crash().await;
                        let what = format!("{step:?} {left:?} {hanging:?}");
                        let ended = ends_in_time(&mut rig, &id).await;
                        assert!(ended.state.is_terminal(), "{what}");
                        rig.faults.hang(None);
                        rig.world.set_table(RouteTable::default());
                        rig.settle_after(&what, hanging).await;
                        true
                    })
                };
                assert!((0..200).any(|_| play()), "{step:?} was never caught");
                ended += 1;
            }
        }
    }
    println!("{ended} stored states with a hanging port came to an end");
}

#[test]
fn a_restarted_control_plane_ends_an_overlap_from_every_stored_state_whatever_hangs() {
    ends_from_everywhere(false);
}

#[test]
fn a_restarted_control_plane_ends_a_held_handover_from_every_stored_state_whatever_hangs() {
    ends_from_everywhere(true);
}

/// Each single call of a deployment hangs once.
fn ends_whichever_call_hangs(has_volume: bool) {
    let app = |name| if has_volume { App::new(name).with_volume() } else { App::new(name) };
    let prepare = async || {
        let mut rig = Rig::new().await;
        rig.deploy_well(&app("one")).await;
        rig
    };
    let calls = on_paused_time(async {
        let mut rig = prepare().await;
        rig.faults.record();
        rig.deploy_well(&app("two")).await;
        rig.faults.recorded()
    });
    assert!(calls.len() > 20, "{calls:?}");
    let runs = calls.len();
    let mut struck = 0;
    for call in calls {
        // How often something is looked at may differ from run to run.
        struck += usize::from(on_paused_time(async {
            let mut rig = prepare().await;
            let fault = Fault { call, mode: Mode::Hang };
            rig.faults.arm(fault.clone());
            let id = rig.up(&app("two")).await;
            let ended = ends_in_time(&mut rig, &id).await;
            assert!(matches!(ended.state, DeploymentState::Success | DeploymentState::Failed), "{fault}");
            rig.settle_after(&fault.to_string(), (fault.call.name == "engine.stop").then_some("engine.stop"))
                .await;
            rig.faults.has_struck()
        }));
    }
    assert!(struck * 10 >= runs * 9, "most calls must hang: {struck} of {runs}");
}

#[test]
fn an_overlap_ends_whichever_call_hangs() {
    ends_whichever_call_hangs(false);
}

#[test]
fn a_held_handover_ends_whichever_call_hangs() {
    ends_whichever_call_hangs(true);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_stop_of_one_service_does_not_hold_up_another() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, old) = rig.live().await;
    rig.world.set_traffic(&old, 1, 1);
    let id = rig.up(&App::new("two")).await;
    rig.reach(&id, Step::Retire).await;
    rig.faults.hang(Some("engine.stop"));
    rig.pass_time(Duration::from_secs(31)).await;
    let source = rig.world.push(&App::new("other"));
    rig.control.add_source(source.clone()).await.unwrap();
    let wish = trackbed_control::DeploymentWish::Up { source, overrides: Vec::new() };
    let other = rig.wish("other", wish).await.unwrap().id;
    rig.pass_time(Duration::from_secs(10)).await;
    assert_eq!(rig.control.deployment(&other).await.unwrap().state, DeploymentState::Success);
    let journal = rig.world.journal();
    assert!(!journal.iter().any(|(_, it)| matches!(it, Happening::Stopped(_))));
}
