//! What going back would change, proofs on request, and volumes that are made from others.

use std::sync::{Arc, Mutex};

use trackbed_control::{CloneWish, ControlError, DeploymentWish, PointAt};
use trackbed_core::RestorePointId;
use trackbed_core::ports::{PointData, PortError};
use trackbed_core::volume::Volume;
use trackbed_testkit::App;

use crate::rig::{Rig, name, on_paused_time};

fn wish(new: &str, at: Option<PointAt>) -> CloneWish {
    CloneWish { name: name(new), mount: None, at }
}

/// Makes a volume from `data`, and tells what was put where.
async fn clone(rig: &Rig, wish: CloneWish) -> Result<(Volume, Vec<(PointData, Volume)>), ControlError> {
    let filled = Arc::new(Mutex::new(Vec::new()));
    let seen = filled.clone();
    let fill = |point: PointData, volume: Volume| async move {
        seen.lock().unwrap().push((point, volume));
        Ok(())
    };
    let volume = rig.control.clone_volume(&name("web"), &name("web"), &name("data"), wish, fill).await?;
    let filled = filled.lock().unwrap().clone();
    Ok((volume, filled))
}

#[test]
fn a_clone_gets_the_data_of_now_and_is_mounted_beside() {
    on_paused_time(async {
        let rig = Rig::with_data().await;
        let (volume, filled) = clone(&rig, wish("copy", None)).await.unwrap();
        assert_eq!((volume.mount.as_str(), volume.removed_at), ("/copy", None));
        let newest = rig.control.restore_points(&rig.volume().await).await.unwrap().remove(0);
        let [(data, target)] = filled.as_slice() else { panic!("filled once: {filled:?}") };
        assert_eq!((&data.point, &target.id), (&newest.id, &volume.id));
        assert!(target.removed_at.is_some(), "nobody mounts what is not filled yet");
        assert!(rig.control.volume(&rig.service().await, &name("copy")).await.is_ok());
    });
}

#[test]
fn a_clone_that_fails_is_no_volume() {
    on_paused_time(async {
        let rig = Rig::with_data().await;
        let fill = |_, _| async { Err(PortError::new("no space left on the disk")) };
        let failed = rig
            .control
            .clone_volume(&name("web"), &name("web"), &name("data"), wish("copy", None), fill)
            .await;
        assert!(failed.unwrap_err().to_string().contains("no space left"));
        let service = rig.service().await;
        assert!(rig.control.volume(&service, &name("copy")).await.is_err());
        assert_eq!(
            rig.control.removed_volumes(&service).await.unwrap().len(),
            1,
            "what is left of it goes in time"
        );
        assert!(clone(&rig, wish("copy", None)).await.is_ok(), "and its name is free");
    });
}

#[test]
fn a_name_that_is_taken_is_refused_before_anything_is_captured() {
    on_paused_time(async {
        let rig = Rig::with_data().await;
        let before = rig.control.restore_points(&rig.volume().await).await.unwrap().len();
        let error = clone(&rig, wish("data", None)).await.unwrap_err();
        assert!(matches!(&error, ControlError::Conflict { hint: Some(_), .. }), "{error:?}");
        let on_top = CloneWish { mount: Some("/data".parse().unwrap()), ..wish("copy", None) };
        assert!(clone(&rig, on_top).await.unwrap_err().to_string().contains("at /data"));
        let reserved = clone(&rig, wish("tmp", None)).await.unwrap_err();
        assert!(reserved.to_string().contains("cannot be mounted at /tmp"), "{reserved}");
        assert_eq!(rig.control.restore_points(&rig.volume().await).await.unwrap().len(), before);
    });
}

#[test]
fn a_clone_of_an_unknown_point_is_refused() {
    on_paused_time(async {
        let rig = Rig::with_data().await;
        let unknown = PointAt::Id(RestorePointId::from_random([9; 10]));
        let error = clone(&rig, wish("copy", Some(unknown))).await.unwrap_err();
        assert!(matches!(error, ControlError::NotFound(_)), "{error:?}");
        assert!(rig.control.volume(&rig.service().await, &name("copy")).await.is_err());
    });
}

#[test]
fn a_preview_names_release_and_points_and_changes_nothing() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let second = rig.deploy_well(&App::new("two").with_volume()).await;
        let service = rig.service().await;
        let content = rig.world.content(&rig.volume().await.id);
        let (release, ways) = rig.control.preview_rollback(&service, None).await.unwrap();
        assert_eq!((release.label().as_str(), ways.len()), ("v1", 1));
        assert_eq!(
            ways[0].point.id, second.pins[0].point,
            "what the second release pinned before it started"
        );
        let way = rig.control.way_back(&service, &name("data"), PointAt::Id(ways[0].point.id.clone())).await;
        assert_eq!(way.unwrap().difference, ways[0].difference);
        assert_eq!(rig.world.content(&rig.volume().await.id), content);
        assert_eq!(rig.live().await.0.label(), "v2");

        let wish = DeploymentWish::Rollback { version: None, with_data: true };
        let id = rig.wish("web", wish).await.unwrap().id;
        assert_eq!(rig.finish(&id).await.restore[0].point, ways[0].point.id, "it does what was shown");
        let error = rig.control.preview_rollback(&rig.service().await, Some(1)).await.unwrap_err();
        assert!(error.to_string().contains("v1 is live"), "{error}");
    });
}

#[test]
fn a_proof_on_request_is_made_now_and_a_broken_point_is_an_answer() {
    on_paused_time(async {
        let rig = Rig::with_data().await;
        let service = rig.service().await;
        let point = rig.snapshot().await;
        let proven = rig.control.request_drill(&service, &name("data"), None).await.unwrap();
        assert!(proven.id == point.id && proven.is_proven());
        rig.world.break_point(&point.id);
        let broken = rig.control.request_drill(&service, &name("data"), Some(point.id)).await.unwrap();
        assert!(broken.is_broken());
        let unknown = Some(RestorePointId::from_random([9; 10]));
        let error = rig.control.request_drill(&service, &name("data"), unknown).await.unwrap_err();
        assert!(matches!(error, ControlError::NotFound(_)), "{error:?}");
        assert!(rig.control.request_drill(&service, &name("nope"), None).await.is_err());
    });
}
