//! Drills: every point is proven, again and again; a broken one is told, and an older one offered.

use trackbed_core::Timestamp;
use trackbed_core::deployment::{EventKind, Step};
use trackbed_testkit::{App, clock};

use crate::data_rig::{DAY_MS, HOUR_MS, MINUTE};
use crate::rig::{Rig, on_paused_time};

#[test]
fn a_point_is_proven_soon_after_it_was_taken() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let point = rig.snapshot().await;
        assert!(rig.data().await.last_proven.is_none());
        rig.pass_time(2 * MINUTE).await;
        let data = rig.data().await;
        assert_eq!(data.last_proven.unwrap().id, point.id);
        assert!(data.proven_age.unwrap() <= 3 * MINUTE);
        assert_eq!(data.warnings, [] as [String; 0]);
    });
}

#[test]
fn a_broken_point_is_told_loudly_and_the_next_older_one_is_offered() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let good = rig.snapshot().await;
        rig.pass_time(2 * MINUTE).await;
        let bad = rig.snapshot().await;
        rig.world.break_point(&bad.id);
        rig.pass_time(2 * MINUTE).await;

        let data = rig.data().await;
        assert!(data.last.as_ref().unwrap().is_broken());
        assert_eq!(data.last_proven.unwrap().id, good.id);
        let warning = &data.warnings[0];
        assert!(warning.contains(bad.id.as_str()) && warning.contains("a chunk is missing"), "{warning}");
        assert!(warning.contains(good.id.as_str()), "{warning}");
        assert!(rig.warnings().await.iter().any(|text| text.contains(warning.as_str())));

        let service = rig.service().await;
        let newest = rig.control.deployments(&service, 1).await.unwrap().remove(0);
        let events = rig.events(&newest.id).await;
        let told: Vec<_> = events.iter().filter(|event| event.kind == EventKind::Warning).collect();
        assert_eq!(told.len(), 1, "{events:?}");
        assert!(told[0].message.contains(&format!("the next older good one is {}", good.id)));

        let volume = rig.volume().await;
        let at = Timestamp(clock::wall().0);
        let offered = rig.store.with(move |db| db.find_point_at(&volume.id, at)).await.unwrap();
        assert_eq!(offered.unwrap().id, good.id);
    });
}

#[test]
fn a_point_that_rots_is_found_by_a_later_drill() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let point = rig.snapshot().await;
        rig.pass_time(2 * MINUTE).await;
        rig.world.break_point(&point.id);
        rig.pass_time(5 * MINUTE).await;
        assert!(rig.all_points().await[0].is_proven(), "it was proven a moment ago");
        rig.sleep_through(25 * HOUR_MS).await;
        rig.faults.hang(Some("volumes.capture"));
        rig.pass_time(2 * MINUTE).await;
        assert!(rig.all_points().await[0].is_broken(), "the newest is proven every day");
        rig.faults.hang(None);
    });
}

#[test]
fn an_older_point_is_proven_again_after_a_week() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let old = rig.snapshot().await;
        rig.pass_time(2 * MINUTE).await;
        rig.snapshot().await;
        rig.pass_time(2 * MINUTE).await;
        rig.world.break_point(&old.id);
        let is_broken = async |rig: &Rig| {
            let points = rig.all_points().await;
            points.iter().find(|point| point.id == old.id).unwrap().is_broken()
        };
        rig.sleep_through(6 * DAY_MS).await;
        rig.pass_time(2 * MINUTE).await;
        assert!(!is_broken(&rig).await);
        rig.sleep_through(DAY_MS + HOUR_MS).await;
        rig.pass_time(2 * MINUTE).await;
        assert!(is_broken(&rig).await);
    });
}

#[test]
fn no_drill_begins_while_callers_are_held() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        rig.snapshot().await;
        rig.faults.hang(Some("engine.stop"));
        let id = rig.up(&App::new("two").with_volume()).await;
        rig.reach(&id, Step::Stop).await;
        rig.pass_time(MINUTE + MINUTE / 4).await;
        assert!(rig.all_points().await.iter().all(|point| point.proof.is_none()));
        rig.faults.hang(None);
        rig.finish(&id).await;
        rig.until("the drill", async |rig| rig.all_points().await.iter().all(|point| point.proof.is_some()))
            .await;
    });
}

#[test]
fn a_proof_that_is_overdue_is_a_warning() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        rig.snapshot().await;
        rig.faults.hang(Some("volumes.prove"));
        clock::jump(27 * HOUR_MS);
        rig.pass_time(2 * MINUTE).await;
        let warnings = rig.data().await.warnings;
        assert!(warnings.contains(&"no restore point is proven restorable".to_owned()), "{warnings:?}");
    });
}

#[test]
fn a_point_on_which_every_look_ends_gets_a_verdict_a_warning_and_keeps_no_other_waiting() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        rig.pass_time(2 * MINUTE).await;
        let bad = rig.snapshot().await;
        rig.world.baffle_point(&bad.id);
        let good = rig.snapshot().await;
        rig.pass_time(3 * MINUTE).await;
        assert_eq!(rig.data().await.last_proven.unwrap().id, good.id, "it does not wait for the other");
        rig.pass_time(60 * MINUTE).await;
        let points = rig.all_points().await;
        let found = points.iter().find(|point| point.id == bad.id).unwrap();
        assert!(found.is_undecided() && !found.is_broken() && !found.is_proven(), "{:?}", found.proof);
        let warnings = rig.data().await.warnings;
        let said =
            format!("restore point {} could not be proven restorable: the look ended by signal 11", bad.id);
        assert!(warnings.iter().any(|text| text.contains(&said)), "{warnings:?}");
        assert!(warnings.iter().any(|text| text.contains("trackbed volume verify data rp_")), "{warnings:?}");
    });
}

#[test]
fn a_look_that_fails_later_does_not_unsay_that_a_point_was_proven() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let point = rig.snapshot().await;
        rig.pass_time(2 * MINUTE).await;
        rig.world.baffle_point(&point.id);
        rig.sleep_through(25 * HOUR_MS).await;
        rig.faults.hang(Some("volumes.capture"));
        rig.pass_time(120 * MINUTE).await;
        let points = rig.all_points().await;
        assert!(points.iter().find(|other| other.id == point.id).unwrap().is_proven());
        rig.faults.hang(None);
    });
}
