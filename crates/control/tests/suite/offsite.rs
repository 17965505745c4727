//! Copies off the box: when passes run, what becomes of them, and the state of a recovered box.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use trackbed_control::{LOUD_AFTER, OffsiteStatus, RemoteDrill, TargetWish, settle_recovered};
use trackbed_core::deployment::{DeploymentState, Step};
use trackbed_core::offsite::{MirrorReport, Missing, OffsiteDrill, OffsiteTarget};
use trackbed_core::ports::{Conditional, Offsite, Ownership, PortError, StateCopy};
use trackbed_core::{Secret, Timestamp};
use trackbed_testkit::{App, clock};

use crate::rig::{Rig, on_paused_time};

/// A target of memory.
#[derive(Clone, Default)]
struct FakeOffsite(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    passes: Vec<Timestamp>,
    missing: Missing,
    fails: bool,
    drills: u32,
    breaks: bool,
}

impl FakeOffsite {
    fn set<T>(&self, change: impl FnOnce(&mut Inside) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }
}

#[async_trait]
impl Offsite for FakeOffsite {
    fn new_identity(&self) -> Secret<String> {
        Secret::new("AGE-SECRET-KEY-1NEW".into())
    }

    fn recipient(&self, _: &Secret<String>) -> Result<String, PortError> {
        Ok("age1x".into())
    }

    async fn claim(
        &self,
        _: &OffsiteTarget,
        by: Ownership,
        _: Conditional,
        _: Timestamp,
    ) -> Result<(), PortError> {
        match by {
            Ownership::Respect if self.set(|inside| inside.fails) => {
                Err(PortError::new("belongs to another box"))
            }
            _ => Ok(()),
        }
    }

    async fn missing(&self, _: &OffsiteTarget) -> Result<Missing, PortError> {
        Ok(self.set(|inside| inside.missing))
    }

    async fn mirror(
        &self,
        _: &OffsiteTarget,
        state: &dyn StateCopy,
        now: Timestamp,
    ) -> Result<MirrorReport, PortError> {
        let folder = tempfile::tempdir().unwrap();
        state.copy_to(&folder.path().join("state.db")).await?;
        self.set(|inside| {
            inside.passes.push(now);
            if inside.fails {
                return Err(PortError::new("status 500"));
            }
            inside.missing = Missing::default();
            Ok(MirrorReport { sequence: inside.passes.len() as u64, is_new: true, ..MirrorReport::default() })
        })
    }

    async fn forget(&self) -> Result<(), PortError> {
        Ok(())
    }
}

#[async_trait]
impl RemoteDrill for FakeOffsite {
    async fn drill(&self, _: &OffsiteTarget, now: Timestamp) -> Result<Option<OffsiteDrill>, PortError> {
        self.set(|inside| {
            inside.drills += 1;
            let broken = inside.breaks.then(|| "a chunk is gone".to_owned());
            Ok(Some(OffsiteDrill { at: now, point: "rp_x".into(), broken, fetched_bytes: 1 }))
        })
    }
}

fn wish() -> TargetWish {
    TargetWish {
        url: "s3://bucket/box".into(),
        options: vec![("secret_access_key".into(), Secret::new("hunter2".into()))],
        identity: None,
        bandwidth_bytes: None,
        ownership: Ownership::Respect,
        conditional: Conditional::Required,
    }
}

async fn rig() -> (Rig, FakeOffsite) {
    let (rig, fake) = (Rig::new().await, FakeOffsite::default());
    rig.control.keep_offsite(Arc::new(fake.clone()), Arc::new(fake.clone()));
    (rig, fake)
}

async fn status(rig: &Rig) -> OffsiteStatus {
    rig.control.offsite_status().await.unwrap().unwrap()
}

async fn wait(time: Duration) {
    tokio::time::sleep(time).await;
}

#[test]
fn a_target_is_copied_to_at_once_soon_after_news_and_every_few_minutes() {
    on_paused_time(async {
        let (rig, fake) = rig().await;
        wait(Duration::from_secs(1000)).await;
        assert_eq!(fake.set(|inside| inside.passes.len()), 0, "none is set");
        let key = rig.control.set_offsite_target(wish()).await.unwrap();
        assert!(key.is_some_and(|key| key.expose() == "AGE-SECRET-KEY-1NEW"));
        wait(Duration::from_secs(1)).await;
        assert_eq!(fake.set(|inside| inside.passes.len()), 1);
        fake.set(|inside| inside.missing = Missing { objects: 1, bytes: 5 });
        wait(Duration::from_secs(20)).await;
        assert_eq!(fake.set(|inside| inside.passes.len()), 2);
        wait(Duration::from_secs(270)).await;
        assert_eq!(fake.set(|inside| inside.passes.len()), 2, "nothing is new");
        wait(Duration::from_secs(60)).await;
        assert_eq!(fake.set(|inside| inside.passes.len()), 3);
        let status = status(&rig).await;
        assert!(status.record.succeeded_at.is_some() && status.warning.is_none());
        assert!(!format!("{status:?}").contains("hunter2"));
        let again = rig.control.set_offsite_target(wish()).await.unwrap();
        assert!(again.is_none(), "a key that there is already is not shown again");
    });
}

#[test]
fn an_hour_of_failing_is_a_loud_warning_that_ends_with_a_good_pass() {
    on_paused_time(async {
        let (rig, fake) = rig().await;
        rig.control.set_offsite_target(wish()).await.unwrap();
        wait(Duration::from_secs(1)).await;
        fake.set(|inside| inside.fails = true);
        rig.control.request_mirror().await.unwrap();
        wait(Duration::from_secs(1)).await;
        let failing = status(&rig).await;
        assert_eq!(failing.record.failing.unwrap().reason, "status 500");
        assert!(failing.warning.is_none());
        wait(LOUD_AFTER).await;
        let warning = status(&rig).await.warning.unwrap();
        assert!(warning.contains("have failed for 60 minutes: status 500"), "{warning}");
        fake.set(|inside| inside.fails = false);
        rig.control.request_mirror().await.unwrap();
        wait(Duration::from_secs(1)).await;
        assert!(status(&rig).await.warning.is_none());
    });
}

#[test]
fn a_target_that_refuses_is_not_set() {
    on_paused_time(async {
        let (rig, fake) = rig().await;
        fake.set(|inside| inside.fails = true);
        assert!(rig.control.set_offsite_target(wish()).await.is_err());
        assert!(rig.control.offsite_status().await.unwrap().is_none());
        let error = rig.control.request_mirror().await.unwrap_err();
        assert!(error.to_string().contains("no target"), "{error}");
        let taken = TargetWish { ownership: Ownership::TakeOver, ..wish() };
        rig.control.set_offsite_target(taken).await.unwrap();
        rig.control.remove_offsite_target().await.unwrap();
        assert!(rig.control.offsite_status().await.unwrap().is_none());
    });
}

#[test]
fn a_point_is_restored_from_the_target_alone_every_day_and_a_broken_one_is_loud() {
    on_paused_time(async {
        let (rig, fake) = rig().await;
        rig.control.set_offsite_target(wish()).await.unwrap();
        wait(Duration::from_secs(3600)).await;
        assert_eq!(fake.set(|inside| inside.drills), 1);
        fake.set(|inside| inside.breaks = true);
        wait(Duration::from_secs(24 * 3600)).await;
        assert_eq!(fake.set(|inside| inside.drills), 2);
        let warning = status(&rig).await.warning.unwrap();
        assert!(
            warning.contains("rp_x cannot be restored") && warning.contains("a chunk is gone"),
            "{warning}"
        );
    });
}

#[test]
fn a_recovered_box_starts_what_ran_and_gives_up_what_was_under_way() {
    on_paused_time(async {
        let mut rig = Rig::new().await;
        rig.deploy_well(&App::new("shop")).await;
        let next = rig.up(&App::new("next").never_healthy()).await;
        rig.reach(&next, Step::Health).await;
        rig.end().await;
        rig.world.lose_power();
        let recovered = settle_recovered(&rig.store, clock::wall()).await.unwrap();
        assert_eq!((recovered.services.len(), recovered.releases.len()), (1, 1));
        assert!(recovered.services[0].live.is_some());
        let given_up = rig.stored(&next).await;
        assert_eq!(given_up.state, DeploymentState::Failed);
        assert!(given_up.failure.unwrap().reason.contains("recovered"));
        settle_recovered(&rig.store, clock::wall()).await.expect("it may be repeated");
        rig.crash().await;
        wait(Duration::from_secs(30)).await;
        assert_eq!(rig.world.living().len(), 1, "the release that was live runs again");
    });
}
