//! Removed volumes: had back within two days, deleted for good after that, and by nothing else.

use trackbed_testkit::{App, clock};

use crate::data_rig::{DAY_MS, HOUR_MS, MINUTE};
use crate::rig::{Rig, name, on_paused_time};

async fn removed() -> Rig {
    let mut rig = Rig::with_data().await;
    rig.snapshot().await;
    rig.down().await;
    rig.until("the stop", async |rig| rig.world.living().is_empty()).await;
    rig.until("an end", async |rig| rig.service().await.live.is_some_and(|live| live.instance.is_none()))
        .await;
    let service = rig.service().await;
    rig.control.remove_volume(&service, &name("data")).await.unwrap();
    rig
}

#[test]
fn a_volume_in_use_is_not_removed() {
    on_paused_time(async {
        let rig = Rig::with_data().await;
        let refused = rig.control.remove_volume(&rig.service().await, &name("data")).await.unwrap_err();
        assert!(refused.to_string().contains("is in use"), "{refused}");
        assert_eq!(rig.volume().await.removed_at, None);
    });
}

#[test]
fn a_volume_that_was_made_since_the_instance_started_is_not_in_use() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let service = rig.service().await;
        rig.pass_time(MINUTE).await;
        let mount = "/scratch".parse().unwrap();
        rig.control.add_volume(&name("web"), &name("web"), name("scratch"), mount).await.unwrap();
        rig.control.remove_volume(&service, &name("scratch")).await.unwrap();
        let left = rig.control.volumes(&service).await.unwrap();
        assert_eq!(left.into_iter().map(|volume| volume.name).collect::<Vec<_>>(), [name("data")]);
    });
}

#[test]
fn a_removed_volume_comes_back_with_its_data() {
    on_paused_time(async {
        let mut rig = removed().await;
        let service = rig.service().await;
        assert!(rig.control.volumes(&service).await.unwrap().is_empty());
        let id = rig.control.removed_volumes(&service).await.unwrap()[0].id.clone();
        let before = rig.world.content(&id);
        rig.sleep_through(47 * HOUR_MS).await;
        rig.pass_time(62 * MINUTE - 4 * MINUTE).await;
        rig.control.undelete_volume(&service, &name("data")).await.unwrap();
        assert_eq!(rig.world.content(&rig.volume().await.id), before);
        rig.deploy_well(&App::new("two").with_volume()).await;
        assert_eq!(rig.volume().await.id, id);
    });
}

#[test]
fn after_two_days_the_data_of_a_removed_volume_is_deleted_and_its_points_later() {
    on_paused_time(async {
        let mut rig = removed().await;
        let service = rig.service().await;
        let volume = rig.control.removed_volumes(&service).await.unwrap().remove(0);
        rig.sleep_through(49 * HOUR_MS).await;
        rig.pass_time(30 * MINUTE).await;
        assert!(!rig.world.content(&volume.id).writes.is_empty(), "the clock is not trusted yet");
        rig.pass_time(50 * MINUTE).await;
        assert!(rig.world.content(&volume.id).writes.is_empty());
        let refused = rig.control.undelete_volume(&service, &name("data")).await.unwrap_err();
        assert!(refused.to_string().contains("no removed volume"), "{refused}");
        let points = rig.control.restore_points(&volume).await.unwrap();
        assert!(!points.is_empty(), "its points stay for a while");
        assert!(rig.world.point(&volume.id, &points[0].id).is_some());

        rig.sleep_through(30 * DAY_MS).await;
        rig.pass_time(90 * MINUTE).await;
        assert!(rig.control.restore_points(&volume).await.unwrap().is_empty());
        assert!(rig.world.point(&volume.id, &points[0].id).is_none());
    });
}

#[test]
fn a_clock_that_jumps_ahead_for_a_moment_deletes_nothing() {
    on_paused_time(async {
        let mut rig = removed().await;
        rig.pass_time(70 * MINUTE).await;
        clock::jump(30 * DAY_MS);
        rig.pass_time(30 * MINUTE).await;
        clock::jump(-30 * DAY_MS);
        rig.pass_time(90 * MINUTE).await;
        let service = rig.service().await;
        rig.control.undelete_volume(&service, &name("data")).await.unwrap();
        assert!(!rig.world.content(&rig.volume().await.id).writes.is_empty());
    });
}

#[test]
fn a_name_that_was_taken_again_keeps_the_removed_volume_away() {
    on_paused_time(async {
        let mut rig = removed().await;
        rig.deploy_well(&App::new("two").with_volume()).await;
        let refused = rig.control.undelete_volume(&rig.service().await, &name("data")).await.unwrap_err();
        assert!(refused.to_string().contains("already has a volume `data`"), "{refused}");
    });
}

#[test]
fn the_last_good_point_is_not_removed_by_hand() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let first = rig.snapshot().await;
        rig.pass_time(2 * MINUTE).await;
        let service = rig.service().await;
        let pin = rig.all_points().await.pop().unwrap();
        rig.control.remove_restore_point(&service, &pin.id).await.unwrap();
        let refused = rig.control.remove_restore_point(&service, &first.id).await.unwrap_err();
        assert!(refused.to_string().contains("last good one"), "{refused}");
        rig.snapshot().await;
        let refused = rig.control.remove_restore_point(&service, &first.id).await.unwrap_err();
        assert!(refused.to_string().contains("last good one"), "the other is not proven yet: {refused}");
        rig.pass_time(2 * MINUTE).await;
        rig.control.remove_restore_point(&service, &first.id).await.unwrap();
        assert_eq!(rig.all_points().await.len(), 1);
    });
}
