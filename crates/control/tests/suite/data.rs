//! What happens to the data of a service: pins, restores, rollbacks with data, adoptions and rehearsals.

use std::time::Duration;

use trackbed_control::{ControlError, DeploymentWish, PointAt};
use trackbed_core::RestorePointId;
use trackbed_core::deployment::{Deployment, DeploymentKind, DeploymentState, Step};
use trackbed_core::ports::StrayFile;
use trackbed_core::restore_point::{PointReason, Proof, ProofVerdict};
use trackbed_core::route::UpstreamState;
use trackbed_core::settings::Handover;
use trackbed_core::volume::Volume;
use trackbed_testkit::faults::{Call, Fault, Mode};
use trackbed_testkit::{App, Happening, clock};

use crate::rig::{Rig, name};

fn app(name: &str) -> App {
    App::new(name).with_volume()
}

async fn volume(rig: &Rig) -> Volume {
    rig.control.volumes(&rig.service().await).await.unwrap().remove(0)
}

/// The names of those who wrote what lies in the volume now.
async fn writers(rig: &Rig) -> Vec<String> {
    rig.writers(&rig.world.content(&volume(rig).await.id))
}

async fn pinned_writers(rig: &Rig, deployment: &Deployment) -> Vec<String> {
    let pin = &deployment.pins[0];
    rig.writers(&rig.world.point(&pin.volume, &pin.point).unwrap())
}

async fn said(rig: &Rig, deployment: &Deployment, text: &str) -> bool {
    rig.events(&deployment.id).await.iter().any(|event| event.message.contains(text))
}

fn failure(deployment: &Deployment) -> (Step, String, String) {
    let failure = deployment.failure.clone().unwrap();
    (failure.stage, failure.reason, failure.hint.unwrap_or_default())
}

fn refused(refusal: Result<Deployment, ControlError>) -> (String, String) {
    match refusal {
        Err(ControlError::Conflict { message, hint }) => (message, hint.unwrap_or_default()),
        Err(other) => (other.to_string(), String::new()),
        Ok(deployment) => panic!("{deployment:?}"),
    }
}

fn restore(point: &RestorePointId) -> DeploymentWish {
    DeploymentWish::Restore { volume: None, at: PointAt::Id(point.clone()) }
}

fn back_with_data(version: Option<u32>) -> DeploymentWish {
    DeploymentWish::Rollback { version, with_data: true }
}

async fn broken(rig: &Rig, point: &RestorePointId) {
    rig.world.break_point(point);
    let verdict = ProofVerdict::Broken { reason: "chunk 7 is missing".into() };
    rig.set_proof(point, Proof { at: clock::wall(), verdict, took_ms: 1 }).await;
}

#[tokio::test(start_paused = true)]
async fn every_deployment_pins_the_data_as_it_was_just_before() {
    let mut rig = Rig::new().await;
    let first = rig.deploy_well(&app("one")).await;
    let second = rig.deploy_well(&app("two")).await;
    assert!(pinned_writers(&rig, &first).await.is_empty());
    assert_eq!(pinned_writers(&rig, &second).await, ["one"]);
    assert_eq!(writers(&rig).await, ["one", "two"]);
    let points = rig.points(&volume(&rig).await.id).await;
    assert_eq!(points.len(), 2);
    assert_eq!((&points[0].id, &points[0].release), (&second.pins[0].point, &first.release));
    assert_eq!(points[0].reason, PointReason::Deployment { deployment: second.id.clone() });
    assert!(said(&rig, &second, "data pinned in 0.00 s (volume data: 1 file, 1.0 kB)").await);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_release_leaves_no_trace_in_the_data_and_what_it_wrote_is_set_aside() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let failed = rig.deploy(&app("two").never_healthy()).await;
    rig.settle().await;
    assert_eq!(writers(&rig).await, ["one", "one"], "the old release was started again on its own data");
    let undone = failed.data_undone.clone().unwrap();
    assert!(undone.contains("as it was before v2: 1 file that v2 had changed is set aside in /"), "{undone}");
    let stages = rig.world.stages();
    let aside = &stages[&(volume(&rig).await.id, failed.aside.clone().unwrap())];
    assert_eq!(rig.writers(&aside.content), ["one", "two"]);
    assert!(said(&rig, &failed, &undone).await && aside.is_swapped);
}

#[tokio::test(start_paused = true)]
async fn a_failed_release_that_changed_nothing_leaves_nothing_to_put_back() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let mut idle = app("two").never_healthy();
    idle.writes = false;
    let failed = rig.deploy(&idle).await;
    rig.settle().await;
    assert_eq!((failed.data_undone, failed.put_back.len()), (None, 0));
    assert!(rig.world.stages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_first_deployment_that_fails_leaves_its_volume_empty() {
    let mut rig = Rig::new().await;
    rig.deploy(&app("one").never_healthy()).await;
    rig.settle().await;
    assert!(writers(&rig).await.is_empty());
    rig.deploy_well(&app("two")).await;
    assert_eq!(writers(&rig).await, ["two"]);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn under_an_overlap_the_old_release_wrote_on_so_nothing_is_put_back() {
    let sharing = |name: &str| {
        let mut app = app(name);
        app.config.shared = true;
        app
    };
    let mut rig = Rig::new().await;
    rig.deploy_well(&sharing("one")).await;
    let failed = rig.deploy(&sharing("two").never_healthy()).await;
    assert_eq!(failed.handover, Some(Handover::Overlap));
    assert!(failed.data_undone.as_ref().unwrap().starts_with("nothing was put back"), "{failed:?}");
    assert!(rig.world.journal().iter().any(|(_, it)| matches!(it, Happening::Frozen(_))), "for the pin");
    assert_eq!(writers(&rig).await, ["one", "two"]);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_brings_old_data_back_and_keeps_what_it_replaces() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let second = rig.deploy_well(&app("two")).await;
    let wish = rig.wish("web", restore(&second.pins[0].point)).await.unwrap();
    assert_eq!((wish.kind, wish.step), (DeploymentKind::Restore, Step::Check));
    let restored = rig.finish(&wish.id).await;
    assert_eq!(restored.state, DeploymentState::Success, "{:?}", restored.failure);
    assert_eq!(restored.handover, Some(Handover::Held));
    assert_eq!(writers(&rig).await, ["one", "two"], "data of release 1, on which release 2 was started");
    assert_ne!(rig.world.content(&volume(&rig).await.id).writes[1].0, second.instance.unwrap());
    assert_eq!(pinned_writers(&rig, &restored).await, ["one", "two"]);
    let points = rig.points(&volume(&rig).await.id).await;
    assert_eq!(points[0].reason, PointReason::BeforeRestore { deployment: restored.id.clone() });
    assert!(said(&rig, &restored, "1 file newer than restore point").await, "{}", rig.story().await);
    assert!(said(&rig, &restored, &format!("it stays as restore point {}", points[0].id)).await);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_under_which_the_release_does_not_start_is_taken_back() {
    let mut rig = Rig::new().await;
    let first = rig.deploy_well(&app("one")).await;
    let mut needy = app("two");
    needy.needs_writes = 1;
    rig.deploy_well(&needy).await;
    let wish = rig.wish("web", restore(&first.pins[0].point)).await.unwrap();
    let failed = rig.finish(&wish.id).await;
    assert_eq!(failed.state, DeploymentState::Failed);
    rig.settle().await;
    assert_eq!(writers(&rig).await, ["one", "two", "two"]);
    assert!(failed.data_undone.unwrap().contains("the restore of 1 volume is taken back"));
    assert!(rig.world.stages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restore_names_its_point_by_time_or_as_the_newest_that_is_proven() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let second = rig.deploy_well(&app("two")).await;
    let then = rig.points(&volume(&rig).await.id).await[0].taken_at;
    rig.pass_time(Duration::from_secs(10)).await;
    rig.deploy_well(&app("three")).await;
    let newest = || DeploymentWish::Restore { volume: Some(name("data")), at: PointAt::Newest };
    let (message, hint) = refused(rig.wish("web", newest()).await);
    assert!(message.contains("none of the 3 restore points of volume `data` is proven"), "{message} {hint}");
    let at = DeploymentWish::Restore { volume: None, at: PointAt::Time(then) };
    let by_time = rig.wish("web", at).await.unwrap();
    assert_eq!(by_time.restore[0].point, second.pins[0].point);
    rig.finish(&by_time.id).await;
    let proven = second.pins[0].point.clone();
    let verdict = ProofVerdict::Proven { databases: 0, rows: 0 };
    rig.set_proof(&proven, Proof { at: clock::wall(), verdict, took_ms: 1 }).await;
    let by_proof = rig.wish("web", newest()).await.unwrap();
    assert_eq!(by_proof.restore[0].point, proven);
    rig.finish(&by_proof.id).await;
    rig.settle().await;
    let early = DeploymentWish::Restore { volume: None, at: PointAt::Time(trackbed_core::Timestamp(1)) };
    let (message, hint) = refused(rig.wish("web", early).await);
    assert!(message.contains("no restore point of that time") && hint.contains("the oldest is"), "{message}");
    let (message, _) = refused(rig.wish("web", restore(&"rp_0000000000000000".parse().unwrap())).await);
    assert!(message.contains("has no restore point"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_point_is_refused_and_the_newest_older_one_that_is_not_is_named() {
    let mut rig = Rig::new().await;
    let first = rig.deploy_well(&app("one")).await;
    let second = rig.deploy_well(&app("two")).await;
    let (older, newer) = (first.pins[0].point.clone(), second.pins[0].point.clone());
    broken(&rig, &newer).await;
    let (message, hint) = refused(rig.wish("web", restore(&newer)).await);
    assert!(message.contains("chunk 7 is missing"), "{message}");
    assert!(hint.ends_with(&format!("`{older}`")), "{hint}");
    let (message, _) = refused(rig.wish("web", back_with_data(None)).await);
    assert!(message.contains("chunk 7 is missing"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_point_that_is_found_broken_only_when_it_is_staged_touches_nothing() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let second = rig.deploy_well(&app("two")).await;
    let (_, old) = rig.live().await;
    rig.world.break_point(&second.pins[0].point);
    let wish = rig.wish("web", restore(&second.pins[0].point)).await.unwrap();
    let failed = rig.finish(&wish.id).await;
    let (stage, reason, _) = failure(&failed);
    assert!(stage == Step::Stage && reason.contains("is broken"), "{reason}");
    rig.settle().await;
    assert_eq!(rig.live().await.1, old);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_with_data_brings_the_last_state_of_that_release_back() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    rig.deploy_well(&app("two")).await;
    let again =
        rig.wish("web", DeploymentWish::Rollback { version: Some(1), with_data: false }).await.unwrap();
    rig.finish(&again.id).await;
    let third = rig.deploy_well(&app("three")).await;
    // Release 1 served twice; what it left the second time is its newest state.
    let wish = rig.wish("web", back_with_data(Some(1))).await.unwrap();
    assert_eq!(wish.restore[0].point, third.pins[0].point);
    let back = rig.finish(&wish.id).await;
    assert_eq!(back.state, DeploymentState::Success, "{:?}", back.failure);
    assert_eq!(writers(&rig).await, ["one", "two", "one", "one"]);
    assert_eq!(rig.live().await.0.version, 1);
    assert_eq!(back.replaced[0].difference.added, 1);
    rig.settle().await;
    let (message, _) = refused(rig.wish("web", back_with_data(Some(1))).await);
    assert!(message.contains("v1 is live"), "{message}");
    let (message, hint) = refused(rig.wish("web", back_with_data(Some(9))).await);
    assert!(message.contains("has no release v9"), "{message} {hint}");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_with_data_of_a_service_without_a_volume_is_refused() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    rig.deploy_well(&App::new("two")).await;
    let (message, hint) = refused(rig.wish("web", back_with_data(None)).await);
    assert!(
        message.contains("no volume whose data could go back") && hint.contains("--with-data"),
        "{message}"
    );
}

fn stray(path: &str) -> StrayFile {
    let host_path = format!("/top{path}").into();
    StrayFile { path: path.into(), host_path, size_bytes: 4096, is_database: path.ends_with(".db") }
}

fn adopt(path: &str) -> DeploymentWish {
    DeploymentWish::Adopt { paths: vec![path.into()], volume: None }
}

#[tokio::test(start_paused = true)]
async fn what_is_adopted_moves_into_the_volume_and_every_later_instance_finds_it() {
    let mut rig = Rig::new().await;
    let mut untidy = app("one");
    untidy.strays = vec![stray("/app/ba.db"), stray("/app/ba.db-wal"), stray("/app/cache/x.bin")];
    rig.deploy_well(&untidy).await;
    let wish = rig.wish("web", adopt("/app//ba.db/")).await.unwrap();
    let adopted = rig.finish(&wish.id).await;
    assert_eq!(adopted.state, DeploymentState::Success, "{:?}", adopted.failure);
    let content = rig.world.content(&volume(&rig).await.id);
    let files: Vec<_> = content.adopted.iter().map(|(to, from)| (to.as_str(), from.as_str())).collect();
    assert_eq!(files, [("ba.db", "/top/app/ba.db"), ("ba.db-wal", "/top/app/ba.db-wal")]);
    assert!(said(&rig, &adopted, "/app/ba.db is adopted into volume data: 2 files, 8.2 kB").await);
    rig.settle().await;
    let (_, instance) = rig.live().await;
    rig.world.kill(&instance, trackbed_core::instance::Exit::Lost);
    rig.settle().await;
    let (_, instance) = rig.live().await;
    let links = rig.world.instance(&instance).unwrap().spec.links;
    assert_eq!((links[0].at.as_str(), links[0].to.as_str()), ("/app/ba.db", "/data/ba.db"));
    let (message, _) = refused(rig.wish("web", adopt("/app/ba.db")).await);
    assert!(message.contains("adopted already"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn several_databases_are_adopted_in_one_restart_by_their_paths_or_all_of_them() {
    for paths in [vec!["/app/ba.db".to_owned(), "/app/db/jobs.db".to_owned()], Vec::new()] {
        let mut rig = Rig::new().await;
        let mut untidy = app("one");
        untidy.strays = vec![stray("/app/ba.db"), stray("/app/db/jobs.db"), stray("/app/cache/x.bin")];
        rig.deploy_well(&untidy).await;
        let wish = rig.wish("web", DeploymentWish::Adopt { paths, volume: None }).await.unwrap();
        let adopted = rig.finish(&wish.id).await;
        assert_eq!(adopted.state, DeploymentState::Success, "{:?}", adopted.failure);
        let content = rig.world.content(&volume(&rig).await.id);
        assert_eq!(content.adopted.keys().collect::<Vec<_>>(), ["ba.db", "jobs.db"]);
        let (_, instance) = rig.live().await;
        assert_eq!(rig.world.instance(&instance).unwrap().spec.links.len(), 2);
        rig.settle().await;
    }
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let all = || DeploymentWish::Adopt { paths: Vec::new(), volume: None };
    assert!(refused(rig.wish("web", all()).await).0.contains("keeps no database outside its volumes"));
    let same =
        DeploymentWish::Adopt { paths: vec!["/app/a/x.db".into(), "/app/b/x.db".into()], volume: None };
    assert!(refused(rig.wish("web", same).await).0.contains("the same name in the volume"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_adopted_is_refused_before_anything_is_touched() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let (_, old) = rig.live().await;
    for path in ["ba.db", "/etc/passwd", "/app", "/app/../x", "/data/x.db"] {
        let (message, _) = refused(rig.wish("web", adopt(path)).await);
        assert!(message.contains("below /app"), "{path}: {message}");
    }
    let nothing = rig.wish("web", adopt("/app/none.db")).await.unwrap();
    let (stage, reason, _) = failure(&rig.finish(&nothing.id).await);
    assert_eq!((stage, reason.as_str()), (Step::Check, "the app has written nothing at /app/none.db"));
    rig.settle().await;
    assert_eq!(rig.live().await.1, old);
}

#[tokio::test(start_paused = true)]
async fn an_adoption_that_fails_leaves_the_old_release_with_its_file() {
    let mut rig = Rig::new().await;
    let mut untidy = app("one");
    untidy.strays = vec![stray("/app/ba.db")];
    rig.deploy_well(&untidy).await;
    rig.faults.arm(Fault { call: Call { name: "engine.start", number: 1 }, mode: Mode::FailOnce });
    let wish = rig.wish("web", adopt("/app/ba.db")).await.unwrap();
    let failed = rig.finish(&wish.id).await;
    assert_eq!(failed.state, DeploymentState::Failed);
    rig.settle().await;
    // It starts in a fresh instance, which would not have the file any more.
    let (_, instance) = rig.live().await;
    assert_eq!(rig.world.instance(&instance).unwrap().spec.links.len(), 1);
    assert!(rig.world.content(&volume(&rig).await.id).adopted.contains_key("ba.db"));
}

fn rehearsing(name: &str) -> App {
    let mut app = app(name);
    app.config.rehearse = true;
    app
}

#[tokio::test(start_paused = true)]
async fn a_rehearsal_runs_on_a_copy_without_network_and_how_long_it_took_is_written_down() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let id = rig.up(&rehearsing("two")).await;
    rig.reach(&id, Step::Rehearse).await;
    rig.until("the rehearsal", async |rig| rig.world.living().len() == 2).await;
    let trial = rig.world.living().into_iter().find(|instance| instance.spec.offline).unwrap();
    assert!(trial.spec.volumes[0].host_path.contains("/stages/"), "{:?}", trial.spec.volumes);
    assert!(matches!(rig.upstream().await, UpstreamState::Serving { .. }), "the old release serves");
    let deployment = rig.finish(&id).await;
    assert_eq!(deployment.state, DeploymentState::Success, "{:?}", deployment.failure);
    assert!(deployment.rehearsal_took_ms.is_some());
    assert!(said(&rig, &deployment, "rehearsal: v2 was healthy after ").await);
    assert_eq!(writers(&rig).await, ["one", "two"], "what the trial wrote is gone");
    rig.settle().await;
    assert!(rig.world.stages().is_empty());
    // A restart brings nothing new.
    let again = rig.wish("web", DeploymentWish::Restart).await.unwrap();
    assert_eq!(rig.finish(&again.id).await.rehearsal, None);
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_was_rehearsed_gets_the_time_in_the_handover_that_it_took() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let mut slow = rehearsing("two");
    slow.listens_after = Some(Duration::from_secs(40));
    slow.config.health.timeout = Duration::from_secs(300);
    let deployment = rig.deploy_well(&slow).await;
    assert!((80_000..82_000).contains(&deployment.hold_window_ms.unwrap()), "{deployment:?}");
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_rehearsal_that_fails_ends_the_deployment_before_any_caller_waits() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let (_, old) = rig.live().await;
    let bad = rehearsing("two")
        .ends(Duration::from_millis(20), trackbed_core::instance::Exit::Code { code: 3 })
        .prints(&["cannot migrate"]);
    let failed = rig.deploy(&bad).await;
    let (stage, reason, _) = failure(&failed);
    assert!(stage == Step::Rehearse && reason.starts_with("rehearsal: "), "{reason}");
    assert_eq!(failed.failure.unwrap().log_tail, ["cannot migrate"]);
    rig.settle().await;
    assert_eq!(rig.live().await.1, old, "never touched");
    assert_eq!(writers(&rig).await, ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_restore_is_rehearsed_on_the_data_that_is_wished() {
    let mut rig = Rig::new().await;
    let first = rig.deploy_well(&app("one")).await;
    let mut needy = rehearsing("two");
    needy.needs_writes = 1;
    rig.deploy_well(&needy).await;
    let (_, old) = rig.live().await;
    let wish = rig.wish("web", restore(&first.pins[0].point)).await.unwrap();
    assert_eq!(failure(&rig.finish(&wish.id).await).0, Step::Rehearse);
    rig.settle().await;
    assert_eq!(rig.live().await.1, old);
    assert!(rig.world.stages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_is_found_before_any_caller_waits() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let (_, old) = rig.live().await;
    rig.world.fill_disk(true);
    let (stage, reason, _) = failure(&rig.deploy(&app("two")).await);
    assert!(stage == Step::Stage && reason.contains("no space left"), "{reason}");
    rig.settle().await;
    assert_eq!(rig.live().await.1, old);
}

#[tokio::test(start_paused = true)]
async fn a_pin_that_fails_gives_the_callers_back_to_the_old_release() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    rig.world.keep_calling(&"web.localhost".parse().unwrap(), Duration::from_millis(100));
    rig.faults.arm(Fault { call: Call { name: "volumes.capture", number: 1 }, mode: Mode::FailOnce });
    let failed = rig.deploy(&app("two")).await;
    assert_eq!(failure(&failed).0, Step::Pin);
    rig.settle().await;
    assert_eq!(rig.live().await.0.version, 1);
    assert_eq!(writers(&rig).await, ["one", "one"]);
    let pause = rig.control.deployment(&failed.id).await.unwrap().pause.unwrap();
    assert!(pause.requests > 0 && pause.refused == 0, "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pin_that_hangs_costs_callers_no_more_than_their_window() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    rig.faults.arm(Fault { call: Call { name: "volumes.capture", number: 1 }, mode: Mode::Hang });
    let (stage, reason, _) = failure(&rig.deploy(&app("two")).await);
    assert!(stage == Step::Pin && reason.contains("hold window of 30 s"), "{stage:?} {reason}");
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_over_its_limit_refuses_what_is_pushed_and_nothing_that_goes_back() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let second = rig.deploy_well(&app("two")).await;
    let (_, old) = rig.live().await;
    rig.limit_volume(&volume(&rig).await.id, 500).await;
    let (stage, reason, hint) = failure(&rig.deploy(&app("three")).await);
    assert_eq!(
        (stage, reason.as_str()),
        (Step::Check, "volume `data` uses 2.0 kB, more than its limit of 500 B")
    );
    assert!(hint.contains("trackbed volume limit data SIZE"), "{hint}");
    assert_eq!(rig.live().await.1, old, "never touched");
    let back = DeploymentWish::Rollback { version: None, with_data: false };
    for wish in [DeploymentWish::Restart, back, restore(&second.pins[0].point)] {
        let asked = rig.wish("web", wish).await.unwrap();
        let ended = rig.finish(&asked.id).await;
        assert_eq!(ended.state, DeploymentState::Success, "{:?}", ended.failure);
        assert!(said(&rig, &ended, "more than its limit of 500 B").await, "the pin warns");
    }
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_push_waits_behind_a_restore_that_waits_or_runs_and_supersedes_none() {
    for reached in [None, Some(Step::Stage), Some(Step::Health)] {
        let mut rig = Rig::new().await;
        rig.deploy_well(&app("one")).await;
        let mut slow = app("two");
        slow.listens_after = Some(Duration::from_secs(5));
        let second = rig.deploy_well(&slow).await;
        rig.world.slow_data(Duration::from_secs(20));
        let wish = rig.wish("web", restore(&second.pins[0].point)).await.unwrap();
        if let Some(step) = reached {
            rig.reach(&wish.id, step).await;
        }
        let push = rig.up(&app("three")).await;
        let events = rig.events(&push).await;
        assert!(events[0].message.contains(&format!("waits for deployment {}", wish.id)), "{events:?}");
        let (message, hint) = refused(rig.wish("web", DeploymentWish::Restart).await);
        assert!(
            message.contains("is putting data in place") && hint.contains("trackbed cancel"),
            "{message}"
        );
        let restored = rig.finish(&wish.id).await;
        assert_eq!(restored.state, DeploymentState::Success, "at {reached:?}: {:?}", restored.failure);
        assert_eq!(rig.finish(&push).await.state, DeploymentState::Success);
        assert_eq!(writers(&rig).await, ["one", "two", "three"]);
        rig.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_crashes_while_data_is_staged_is_started_again_and_then_handed_over() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&app("one")).await;
    let (_, old) = rig.live().await;
    rig.world.slow_data(Duration::from_secs(20));
    let id = rig.up(&app("two")).await;
    rig.reach(&id, Step::Stage).await;
    rig.world.kill(&old, trackbed_core::instance::Exit::Code { code: 1 });
    rig.pass_time(Duration::from_secs(5)).await;
    let (_, again) = rig.live().await;
    assert_eq!(rig.served().await, Some(again.clone()));
    let deployment = rig.finish(&id).await;
    assert_eq!(deployment.state, DeploymentState::Success, "{:?}", deployment.failure);
    assert_eq!(deployment.old_instance, Some(again));
    rig.settle().await;
}
