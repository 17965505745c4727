//! Schedules and backups: what is due is taken once, with the app standing still, and never in the middle of a handover.

use std::time::Duration;

use trackbed_control::DeploymentWish;
use trackbed_core::deployment::Step;
use trackbed_core::restore_point::{PointReason, Schedule};
use trackbed_testkit::faults::{Call, Fault, Mode};
use trackbed_testkit::{App, clock};

use crate::data_rig::{DAY_MS, HOUR_MS, MINUTE};
use crate::rig::{Rig, name, on_paused_time};

#[test]
fn the_first_full_hour_is_backed_up_while_the_app_stands_still_for_a_moment() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        assert_eq!(rig.scheduled().await.len(), 0, "nothing is due yet");
        let before = rig.times_frozen();
        // The world begins at 13 minutes past the hour.
        rig.pass_time(45 * MINUTE).await;
        assert_eq!(rig.scheduled().await.len(), 0, "it is not the full hour yet");
        rig.until("a backup", async |rig| !rig.scheduled().await.is_empty()).await;
        assert_eq!(rig.scheduled().await, [[Schedule::Hourly]]);
        assert_eq!(rig.times_frozen(), before + 1);
        let (release, instance) = rig.live().await;
        assert!(!rig.world.is_frozen(&instance));
        let point = rig.all_points().await.remove(0);
        assert_eq!(point.release, Some(release.id));
        assert_eq!(rig.world.content(&point.volume), rig.world.point(&point.volume, &point.id).unwrap());
        assert_eq!(clock::wall().0 / HOUR_MS, point.taken_at.0 / HOUR_MS);
        rig.settle().await;
    });
}

#[test]
fn three_days_of_downtime_are_caught_up_by_one_point() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        rig.sleep_through(3 * DAY_MS).await;
        rig.pass_time(5 * MINUTE).await;
        assert_eq!(rig.scheduled().await, [[Schedule::Hourly, Schedule::Daily]]);
    });
}

#[test]
fn a_clock_that_jumps_back_and_forth_makes_no_storm() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        clock::jump(HOUR_MS);
        rig.until("a backup", async |rig| !rig.scheduled().await.is_empty()).await;
        for (jump, most) in [(-30 * 60 * 1000, 1), (-30 * DAY_MS, 2), (395 * DAY_MS, 3), (-365 * DAY_MS, 4)] {
            clock::jump(jump);
            // Short enough that no full hour falls into it.
            rig.pass_time(3 * MINUTE).await;
            let taken = rig.scheduled().await.len();
            assert!(taken <= most, "{taken} points after a jump of {jump} ms");
        }
        // And the schedule goes on.
        let taken = rig.scheduled().await.len();
        rig.pass_time(62 * MINUTE).await;
        assert!(rig.scheduled().await.len() > taken);
    });
}

#[test]
fn a_volume_without_schedules_is_never_backed_up_by_itself() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let service = rig.service().await;
        rig.control.change_volume(&service, &name("data"), Some(Vec::new()), None).await.unwrap();
        rig.sleep_through(3 * DAY_MS).await;
        rig.pass_time(5 * MINUTE).await;
        assert_eq!(rig.scheduled().await.len(), 0);
    });
}

#[test]
fn nothing_is_captured_while_callers_are_held_and_the_tick_is_caught_up() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        rig.faults.hang(Some("engine.stop"));
        let id = rig.up(&App::new("two").with_volume()).await;
        rig.reach(&id, Step::Stop).await;
        clock::jump(HOUR_MS);
        rig.pass_time(75 * Duration::from_secs(1)).await;
        assert_eq!(rig.control.deployment(&id).await.unwrap().step, Step::Stop, "the hold goes on");
        assert_eq!(rig.scheduled().await.len(), 0);
        rig.faults.hang(None);
        rig.finish(&id).await;
        rig.until("the tick", async |rig| rig.scheduled().await.len() == 1).await;
    });
}

#[test]
fn a_backup_that_is_asked_for_waits_for_the_end_of_a_handover() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let mut slow = App::new("two").with_volume();
        slow.listens_after = Some(Duration::from_secs(8));
        let id = rig.up(&slow).await;
        rig.reach(&id, Step::Health).await;
        let point = rig.snapshot().await;
        let deployment = rig.control.deployment(&id).await.unwrap();
        assert!(deployment.step >= Step::Switch, "{:?}", deployment.step);
        assert_eq!(point.reason, PointReason::Command);
        assert_eq!(point.release, deployment.release, "the data is the new release's by now");
        rig.finish(&id).await;
        rig.settle().await;
    });
}

#[test]
fn the_volumes_of_a_stopped_service_are_captured_without_anybody_standing_still() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        rig.down().await;
        rig.until("the stop", async |rig| rig.world.living().is_empty()).await;
        let before = rig.times_frozen();
        let point = rig.snapshot().await;
        assert_eq!(rig.times_frozen(), before);
        assert!(rig.world.point(&point.volume, &point.id).is_some());
    });
}

#[test]
fn all_volumes_of_a_service_are_captured_at_one_instant() {
    on_paused_time(async {
        let mut rig = Rig::new().await;
        let app = App::new("one").with_volume().with_volume_at("index", "/index");
        rig.deploy_well(&app).await;
        let before = rig.times_frozen();
        let points = rig.control.request_backup(&name("web"), &name("web"), None).await.unwrap();
        assert_eq!(points.len(), 2);
        assert_eq!(points[0].taken_at, points[1].taken_at);
        assert_eq!(rig.times_frozen(), before + 1);
        let one = rig.control.request_backup(&name("web"), &name("web"), Some(name("index"))).await.unwrap();
        assert_eq!(one.len(), 1);
        let unknown = rig.control.request_backup(&name("web"), &name("web"), Some(name("other"))).await;
        assert!(unknown.unwrap_err().to_string().contains("no volume `other`"));
    });
}

#[test]
fn a_backup_that_fails_is_told_and_tried_again() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        rig.world.fill_disk(true);
        clock::jump(HOUR_MS);
        rig.pass_time(2 * MINUTE).await;
        let warnings = rig.warnings().await;
        assert!(warnings.iter().any(|text| text.contains("the last backup failed")), "{warnings:?}");
        assert_eq!(rig.scheduled().await.len(), 0);
        rig.world.fill_disk(false);
        rig.until("the backup", async |rig| rig.scheduled().await.len() == 1).await;
        let warnings = rig.data().await.warnings;
        assert!(!warnings.iter().any(|text| text.contains("failed")), "{warnings:?}");
    });
}

#[test]
fn a_backup_that_is_late_is_a_warning() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        rig.world.fill_disk(true);
        rig.sleep_through(5 * HOUR_MS).await;
        rig.pass_time(MINUTE).await;
        let warnings = rig.data().await.warnings;
        assert!(
            warnings.iter().any(|text| text.contains("although they are due hourly, daily")),
            "{warnings:?}"
        );
    });
}

#[test]
fn captures_of_a_service_take_turns_with_its_deployments() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let id = rig.up(&App::new("two").with_volume()).await;
        let (project, service) = (name("web"), name("web"));
        let asked: Vec<_> = (0..5).map(|_| rig.control.request_backup(&project, &service, None)).collect();
        for backup in asked {
            assert_eq!(backup.await.unwrap().len(), 1);
        }
        rig.finish(&id).await;
        rig.wish("web", DeploymentWish::Restart).await.unwrap();
        rig.settle().await;
    });
}

#[test]
fn an_app_that_did_not_come_to_its_stop_in_time_is_asked_once_more() {
    on_paused_time(async {
        let rig = Rig::with_data().await;
        // Longer than another capture would be waited for.
        rig.faults.arm(Fault { call: Call { name: "engine.freeze", number: 1 }, mode: Mode::Hang });
        let taken = rig.control.request_backup(&name("web"), &name("web"), None).await.unwrap();
        assert!(rig.faults.has_struck() && rig.times_frozen() == 1);
        assert_eq!(taken.len(), 1);
    });
}

#[test]
fn a_point_for_a_look_into_databases_goes_after_an_hour_and_one_that_was_asked_for_stays() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let asked = rig.snapshot().await;
        let looks = rig.control.request_look(&name("web"), &name("web"), None).await.unwrap();
        assert_eq!(looks[0].reason, PointReason::Look);
        rig.snapshot().await;
        rig.age_point(&looks[0].id, 2 * HOUR_MS).await;
        rig.age_point(&asked.id, 2 * HOUR_MS).await;
        // The clock is believed after an hour.
        rig.pass_time(75 * MINUTE).await;
        let left: Vec<_> = rig.all_points().await.into_iter().map(|point| point.id).collect();
        assert!(left.contains(&asked.id) && !left.contains(&looks[0].id), "{left:?}");
    });
}
