//! The disk budget: what nobody needs goes, more goes when the disk is nearly full, and what is needed never does.

use std::time::Duration;

use trackbed_control::DeploymentWish;
use trackbed_core::Digest;
use trackbed_core::deployment::{DeploymentState, Step};
use trackbed_testkit::faults::{Call, Fault, Mode};
use trackbed_testkit::{App, Happening};

use crate::data_rig::MINUTE;
use crate::rig::{Rig, on_paused_time};

const GB: u64 = 1 << 30;
/// Below the reserve of the disk of fakes, which has a terabyte.
const SCARCE: u64 = 10 * GB;

impl Rig {
    /// What the builder was told to keep, each time: images and sources.
    fn kept_code(&self) -> Vec<(Vec<Digest>, Vec<Digest>)> {
        let journal = self.world.journal().into_iter();
        let kept = journal.filter_map(|(_, happening)| match happening {
            Happening::Collected { images, sources } => Some((images, sources)),
            _ => None,
        });
        kept.collect()
    }

    fn dropped_caches(&self) -> bool {
        self.world.journal().iter().any(|(_, happening)| *happening == Happening::CachesDropped)
    }

    /// Deploys so many releases, one after the other, and returns their images.
    async fn deploy_many(&mut self, count: u32) -> Vec<Digest> {
        let mut images = Vec::new();
        for number in 0..count {
            let deployment = self.deploy_well(&App::new(&format!("release {number}")).with_volume()).await;
            images.push(deployment.image.unwrap().digest);
        }
        images
    }
}

fn rollback(version: u32) -> DeploymentWish {
    DeploymentWish::Rollback { version: Some(version), with_data: false }
}

#[test]
fn the_last_twenty_releases_are_kept_and_nobody_goes_back_to_an_older_one() {
    on_paused_time(async {
        let mut rig = Rig::new().await;
        let images = rig.deploy_many(23).await;
        rig.pass_time(15 * MINUTE).await;
        let (kept, _) = rig.kept_code().pop().expect("it was tidied");
        let is_kept: Vec<_> = images.iter().map(|image| kept.contains(image)).collect();
        assert_eq!(is_kept, [vec![false; 3], vec![true; 20]].concat());
        let refused = rig.wish("web", rollback(3)).await.unwrap_err();
        assert!(refused.to_string().contains("the image of v3 is no longer on the box"), "{refused}");
        let id = rig.wish("web", rollback(4)).await.unwrap().id;
        assert_eq!(rig.finish(&id).await.state, DeploymentState::Success);
        assert!(!rig.dropped_caches());
        rig.settle().await;
    });
}

#[test]
fn what_is_live_and_what_was_before_it_are_kept_however_old() {
    on_paused_time(async {
        let mut rig = Rig::new().await;
        let images = rig.deploy_many(8).await;
        let id = rig.wish("web", rollback(1)).await.unwrap().id;
        rig.finish(&id).await;
        rig.world.set_free(SCARCE);
        rig.pass_time(15 * MINUTE).await;
        let (kept, sources) = rig.kept_code().pop().unwrap();
        let is_kept: Vec<_> = images.iter().map(|image| kept.contains(image)).collect();
        assert_eq!(is_kept, [true, false, false, false, false, true, true, true]);
        assert!(sources.contains(&images[7]), "the newest push is what a redeploy takes");
        let again = rig.wish("web", DeploymentWish::Restart).await.unwrap().id;
        assert_eq!(rig.finish(&again).await.state, DeploymentState::Success);
    });
}

#[test]
fn nothing_of_the_code_goes_while_something_is_built() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let mut slow = App::new("two").with_volume();
        slow.build_takes = 30 * MINUTE;
        let id = rig.up(&slow).await;
        rig.reach(&id, Step::Build).await;
        rig.world.set_free(SCARCE);
        rig.pass_time(25 * MINUTE).await;
        assert!(rig.kept_code().is_empty() && !rig.dropped_caches());
        rig.pass_time(20 * MINUTE).await;
        assert!(!rig.kept_code().is_empty() && rig.dropped_caches());
        assert_eq!(rig.finish(&id).await.state, DeploymentState::Success);
    });
}

#[test]
fn a_build_never_begins_beside_a_removal_of_code_that_hangs() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        rig.faults.arm(Fault { call: Call { name: "builder.collect", number: 1 }, mode: Mode::Hang });
        rig.until("a removal", async |rig| rig.faults.has_struck()).await;
        // Longer than the removal is waited for.
        rig.pass_time(20 * MINUTE).await;
        let id = rig.up(&App::new("two").with_volume()).await;
        rig.reach(&id, Step::Build).await;
        rig.pass_time(10 * MINUTE).await;
        let deployment = rig.control.deployment(&id).await.unwrap();
        assert_eq!((deployment.step, deployment.image), (Step::Build, None), "it waits for its slot");
        // Another control plane knows of no removal: whatever hung has ended with the last one.
        rig.crash().await;
        assert_eq!(rig.finish(&id).await.state, DeploymentState::Success);
    });
}

#[test]
fn a_nearly_full_disk_keeps_the_newest_point_and_the_newest_proven_one() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        for _ in 0..4 {
            rig.snapshot().await;
        }
        rig.pass_time(2 * MINUTE).await;
        let proven = rig.all_points().await.remove(0);
        rig.faults.hang(Some("volumes.prove"));
        let newest = rig.snapshot().await;
        let volume = rig.volume().await;
        let content = rig.world.content(&volume.id);
        rig.world.set_free(SCARCE);
        rig.pass_time(10 * MINUTE).await;
        let left = rig.all_points().await;
        assert!(left.iter().any(|point| point.id == newest.id));
        assert!(left.iter().any(|point| point.id == proven.id));
        // The pin of the deployment, whose stages may still lie there, is referred to.
        assert_eq!(left.len(), 3, "{left:?}");
        for point in &left {
            assert!(rig.world.point(&point.volume, &point.id).is_some());
        }
        assert_eq!(rig.world.content(&volume.id), content, "the volume itself is never touched");
        let warnings = rig.warnings().await;
        assert!(
            warnings.iter().any(|text| text.contains("are free on the disk of the volumes")),
            "{warnings:?}"
        );
    });
}

#[test]
fn below_twice_the_reserve_there_is_a_warning_and_nothing_goes() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        rig.snapshot().await;
        rig.world.set_free(80 * GB);
        rig.pass_time(12 * MINUTE).await;
        let warnings = rig.warnings().await;
        assert!(
            warnings.iter().any(|text| text.contains("before restore points have to go")),
            "{warnings:?}"
        );
        assert_eq!(rig.all_points().await.len(), 2);
        assert!(!rig.dropped_caches());
        rig.world.set_free(500 * GB);
        rig.pass_time(Duration::from_secs(11 * 60)).await;
        assert!(!rig.warnings().await.iter().any(|text| text.contains("are free")));
    });
}
