//! What callers see of a handover: how long they are held, who answers them, and what is written down of it.

use std::time::Duration;

use trackbed_core::deployment::{Deployment, DeploymentState, EventKind, Step};
use trackbed_core::instance::Exit;
use trackbed_core::settings::Handover;
use trackbed_core::{Host, InstanceId};
use trackbed_testkit::faults::{Call, Fault, Mode};
use trackbed_testkit::{Answered, App, Happening};

use crate::rig::Rig;

const SECOND: Duration = Duration::from_secs(1);

fn host() -> Host {
    "web.localhost".parse().unwrap()
}

fn starts_in(name: &str, time: Duration) -> App {
    let mut app = App::new(name).with_volume();
    app.listens_after = Some(time);
    app.config.health.timeout = Duration::from_secs(300);
    app
}

/// Asserts that every request so far was answered, and returns by whom, repetitions left out.
fn answered_by(rig: &Rig) -> Vec<InstanceId> {
    let mut by = Vec::new();
    for caller in rig.world.callers() {
        match &caller.end {
            Some((_, Answered::By(instance))) => by.push(instance.clone()),
            Some(other) => panic!("{caller:?}: {other:?}"),
            None => {}
        }
    }
    by.dedup();
    by
}

/// The longest time that a request took.
fn longest(rig: &Rig) -> u64 {
    let took = rig.world.callers().into_iter().filter_map(|caller| Some(caller.end?.0.since(caller.arrived)));
    u64::try_from(took.max().unwrap().as_millis()).unwrap()
}

fn failure(deployment: &Deployment) -> (Step, String, String) {
    let failure = deployment.failure.clone().unwrap();
    (failure.stage, failure.reason, failure.hint.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn what_callers_saw_of_a_handover_is_written_down() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&starts_in("one", SECOND)).await;
    let (_, old) = rig.live().await;
    rig.world.keep_calling(&host(), Duration::from_millis(100));
    let deployment = rig.deploy_well(&starts_in("two", 2 * SECOND)).await;
    let (_, new) = rig.live().await;
    assert_eq!(answered_by(&rig), [old, new]);
    let pause = deployment.pause.unwrap();
    // 40 ms to stop, 2 s to start, and some moments in between.
    assert!((1_900..2_400).contains(&pause.longest_ms), "{pause:?}");
    assert_eq!(pause.longest_ms, longest(&rig));
    assert!((20..25).contains(&pause.requests) && pause.refused == 0, "{pause:?}");
    let events = rig.events(&deployment.id).await;
    assert!(events.iter().any(|event| event.message == pause.to_string()), "{events:#?}");
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_handover_without_callers_and_an_overlap_have_nothing_to_tell() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let held = rig.deploy_well(&App::new("two").with_volume()).await;
    assert_eq!(held.pause.unwrap().to_string(), "no caller had to wait");

    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    assert_eq!(rig.deploy_well(&App::new("two")).await.pause, None);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_never_healthy_gives_the_callers_back_unrefused() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&starts_in("one", 5 * SECOND)).await;
    let (_, old) = rig.live().await;
    rig.world.keep_calling(&host(), Duration::from_millis(500));
    let mut bad = App::new("two").with_volume().never_healthy();
    bad.config.health.timeout = Duration::from_secs(300);
    let deployment = rig.deploy(&bad).await;
    assert_eq!(deployment.state, DeploymentState::Failed);
    let (stage, reason, hint) = failure(&deployment);
    assert_eq!(stage, Step::Health);
    assert!(reason.contains("the hold window of 30 s was over"), "{reason}");
    assert!(hint.contains("holdSeconds = 61") && !hint.contains("healthcheckTimeout"), "{hint}");
    rig.settle().await;
    let (release, again) = rig.live().await;
    assert_eq!(release.version, 1);
    assert_eq!(answered_by(&rig), [old, again]);
    // The window, the end of the new one, the start of the old one.
    assert!((34_000..39_000).contains(&longest(&rig)), "{}", longest(&rig));
    let pause = rig.control.deployment(&deployment.id).await.unwrap().pause.unwrap();
    assert_eq!((pause.longest_ms, pause.refused), (longest(&rig), 0));
}

#[tokio::test(start_paused = true)]
async fn a_release_that_crashes_at_once_gives_the_callers_back_at_once() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    rig.world.keep_calling(&host(), Duration::from_millis(100));
    let bad = App::new("two").with_volume().ends(Duration::from_millis(30), Exit::Code { code: 3 });
    let deployment = rig.deploy(&bad).await;
    assert!(!failure(&deployment).1.contains("hold window"));
    rig.settle().await;
    answered_by(&rig);
    assert!(longest(&rig) < 1_000, "{}", longest(&rig));
    assert!(rig.control.deployment(&deployment.id).await.unwrap().pause.unwrap().requests > 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_starter_is_deployed_again_and_again_without_a_setting() {
    let mut rig = Rig::new().await;
    // Nobody is held for a first deployment: it has the whole health timeout.
    rig.deploy_well(&starts_in("one", 100 * SECOND)).await;
    rig.world.keep_calling(&host(), SECOND);
    let deployment = rig.deploy_well(&starts_in("two", 150 * SECOND)).await;
    let window = Duration::from_millis(deployment.hold_window_ms.unwrap());
    assert!((200 * SECOND..203 * SECOND).contains(&window), "twice the last start: {window:?}");
    assert_eq!(deployment.pause.unwrap().refused, 0);
    // What it took last is what counts next, also when it was started by the restart policy.
    let (_, live) = rig.live().await;
    rig.world.kill(&live, Exit::Code { code: 1 });
    rig.settle().await;
    assert!(rig.service().await.live.unwrap().start_took_ms.unwrap() >= 150_000);
    let bad = rig.deploy(&starts_in("three", 320 * SECOND)).await;
    let (_, reason, _) = failure(&bad);
    assert!(reason.ends_with("for 300 s"), "the health timeout comes first here: {reason}");
    rig.settle().await;
    answered_by(&rig);
}

#[tokio::test(start_paused = true)]
async fn the_owners_window_wins_over_what_is_usual() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&starts_in("one", 60 * SECOND)).await;
    let mut impatient = starts_in("two", 60 * SECOND);
    impatient.config.hold_window = Some(Duration::from_secs(20));
    let deployment = rig.deploy(&impatient).await;
    let (_, reason, hint) = failure(&deployment);
    assert!(reason.contains("the hold window of 20 s was over"), "{reason}");
    assert!(hint.contains("holdSeconds = 41"), "{hint}");
    rig.settle().await;
    let mut patient = starts_in("three", 60 * SECOND);
    patient.config.hold_window = Some(Duration::from_secs(90));
    rig.deploy_well(&patient).await;
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_release_that_needs_the_whole_window_to_stop_is_started_again() {
    let mut rig = Rig::new().await;
    let mut stubborn = App::new("one").with_volume();
    stubborn.ignores_term = true;
    stubborn.config.stop_grace = Duration::from_secs(40);
    rig.deploy_well(&stubborn).await;
    rig.world.keep_calling(&host(), SECOND);
    let deployment = rig.deploy(&App::new("two").with_volume()).await;
    let (stage, reason, hint) = failure(&deployment);
    assert!(stage == Step::Start && reason.contains("the old one needed all of it to stop"), "{reason}");
    assert!(hint.contains("holdSeconds"), "{hint}");
    rig.settle().await;
    answered_by(&rig);
    assert_eq!(rig.live().await.0.version, 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_held_for_a_service_that_was_stopped_or_given_up() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    rig.down().await;
    rig.settle().await;
    let deployment = rig.deploy_well(&starts_in("two", 200 * SECOND)).await;
    assert_eq!((deployment.hold_window_ms, deployment.pause), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_serve_that_takes_over_in_the_middle_begins_the_window_anew() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let id = rig.up(&starts_in("two", 28 * SECOND)).await;
    rig.reach(&id, Step::Health).await;
    rig.pass_time(20 * SECOND).await;
    rig.crash().await;
    assert_eq!(rig.finish(&id).await.state, DeploymentState::Success);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn streams_that_stay_are_ended_one_after_the_other_until_the_drain_limit() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let (_, old) = rig.live().await;
    rig.world.set_traffic(&old, 6, 5);
    let began = rig.world.journal().len();
    let id = rig.up(&App::new("two").with_volume()).await;
    rig.reach(&id, Step::Drain).await;
    rig.pass_time(Duration::from_secs(19)).await;
    assert_eq!(rig.control.deployment(&id).await.unwrap().step, Step::Drain);
    rig.finish(&id).await;
    let journal = rig.world.journal().split_off(began);
    let at = |wanted: &Happening| journal.iter().find(|(_, it)| it == wanted).unwrap().0;
    let ended = at(&Happening::StreamsEnded(old.clone(), Duration::from_secs(10)));
    let stopping = at(&Happening::Stopping(old.clone()));
    // The other request goes on until the finish limit of 10 s, which begins when the last stream has ended.
    let between = stopping.since(ended).as_secs_f64();
    assert!((20.0..20.5).contains(&between), "{between}");
    assert!(!journal.iter().any(|(_, it)| *it == Happening::Cut(old.clone())));
    let events = rig.events(&id).await;
    let said = |text: &str| events.iter().any(|event| event.message.contains(text));
    assert!(
        said("5 streams were ended at the drain limit of 30 s, spread over its last 10.0 s"),
        "{events:#?}"
    );
    assert!(said("requests were still in flight after 10 s"), "{events:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_limit_of_zero_ends_streams_at_once() {
    for has_volume in [true, false] {
        let app = |name: &str| match has_volume {
            true => App::new(name).with_volume(),
            false => App::new(name),
        };
        let mut rig = Rig::new().await;
        let mut hasty = app("one");
        hasty.config.drain_timeout = Duration::ZERO;
        rig.deploy_well(&hasty).await;
        let (_, old) = rig.live().await;
        rig.world.set_traffic(&old, 3, 3);
        rig.world.keep_calling(&host(), Duration::from_millis(100));
        let began = rig.world.journal().len();
        let deployment = rig.deploy_well(&app("two")).await;
        let journal = rig.world.journal().split_off(began);
        let ended = Happening::StreamsEnded(old.clone(), Duration::ZERO);
        assert!(journal.iter().any(|(_, it)| *it == ended), "{journal:#?}");
        assert!(!journal.iter().any(|(_, it)| matches!(it, Happening::Cut(_))), "{journal:#?}");
        let took = deployment.finished_at.unwrap().since(deployment.created_at);
        assert!(took < 3 * SECOND, "{took:?}");
        let warned = rig.events(&deployment.id).await.iter().any(|event| event.kind == EventKind::Warning);
        assert!(!warned);
        answered_by(&rig);
    }
}

#[tokio::test(start_paused = true)]
async fn an_overlap_ends_streams_politely_and_cuts_only_what_is_left() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, old) = rig.live().await;
    rig.world.set_traffic(&old, 4, 3);
    let deployment = rig.deploy_well(&App::new("two")).await;
    let journal = rig.world.journal();
    let place = |wanted: &Happening| journal.iter().position(|(_, it)| it == wanted).unwrap();
    let ended = place(&Happening::StreamsEnded(old.clone(), Duration::from_secs(10)));
    assert!(ended < place(&Happening::Cut(old.clone())));
    let took = deployment.finished_at.unwrap().since(deployment.created_at);
    assert!((30 * SECOND..33 * SECOND).contains(&took), "{took:?}");
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn an_overlap_on_a_volume_needs_the_owners_word() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let mut rash = App::new("two").with_volume();
    rash.config.handover = Some(Handover::Overlap);
    let deployment = rig.deploy(&rash).await;
    let (stage, reason, hint) = failure(&deployment);
    assert!(stage == Step::Plan && reason.contains("two releases write"), "{stage:?} {reason}");
    assert!(hint.contains("shared = true"), "{hint}");

    let sharing = |name: &str| {
        let mut app = App::new(name).with_volume();
        app.config.shared = true;
        app
    };
    // The first one still finds a release that holds the volume alone.
    let first = rig.deploy_well(&sharing("three")).await;
    assert_eq!(first.handover, Some(Handover::Held));
    let events = rig.events(&first.id).await;
    assert!(events.iter().any(|event| event.message.contains("holds its volumes alone")), "{events:#?}");
    let (_, old) = rig.live().await;
    let second = rig.deploy_well(&sharing("four")).await;
    assert_eq!(second.handover, Some(Handover::Overlap));
    let journal = rig.world.journal();
    let place = |wanted: &Happening| journal.iter().position(|(_, it)| it == wanted).unwrap();
    let (_, new) = rig.live().await;
    assert!(place(&Happening::Started(new)) < place(&Happening::Stopping(old)));
    // And back: the one that wants the volume for itself gets it so.
    let last = rig.deploy_well(&App::new("five").with_volume()).await;
    assert_eq!(last.handover, Some(Handover::Held));
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_without_a_volume_may_ask_to_be_held() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let mut alone = App::new("two");
    alone.config.handover = Some(Handover::Held);
    assert_eq!(rig.deploy_well(&alone).await.handover, Some(Handover::Held));
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_when_the_new_release_starts_loses_nobody() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let (_, old) = rig.live().await;
    rig.world.keep_calling(&host(), Duration::from_millis(100));
    rig.faults.arm(Fault { call: Call { name: "engine.start", number: 1 }, mode: Mode::FailOnce });
    let deployment = rig.deploy(&App::new("two").with_volume()).await;
    assert!(rig.faults.has_struck());
    assert_eq!(failure(&deployment).0, Step::Start);
    rig.settle().await;
    let (release, again) = rig.live().await;
    assert_eq!(release.version, 1);
    assert_eq!(answered_by(&rig), [old, again]);
    assert_eq!(rig.control.deployment(&deployment.id).await.unwrap().pause.unwrap().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_was_stopped_for_the_next_is_not_called_crashed() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&starts_in("one", SECOND)).await;
    let id = rig.up(&starts_in("two", 5 * SECOND)).await;
    rig.reach(&id, Step::Health).await;
    let status = rig.control.status(rig.service().await).await.unwrap();
    assert_eq!(status.state, trackbed_control::ServiceState::Starting);
    let detail = status.detail.unwrap();
    assert!(detail.contains("stopped for the next release"), "{detail}");
    rig.finish(&id).await;
    assert_eq!(rig.control.status(rig.service().await).await.unwrap().detail, None);
}
