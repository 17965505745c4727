//! What tests of data ask a rig for.

use std::time::Duration;

use trackbed_control::{DeploymentWish, VolumeData};
use trackbed_core::deployment::Deployment;
use trackbed_core::restore_point::{PointReason, RestorePoint, Schedule};
use trackbed_core::volume::Volume;
use trackbed_core::{RestorePointId, Timestamp};
use trackbed_testkit::{App, Happening, clock};

use crate::rig::{Rig, name};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR_MS: i64 = 60 * 60 * 1000;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

impl Rig {
    /// A control plane with a live release that has a volume `data`.
    pub(crate) async fn with_data() -> Rig {
        let mut rig = Rig::new().await;
        rig.deploy_well(&App::new("one").with_volume()).await;
        rig
    }

    pub(crate) async fn volume(&self) -> Volume {
        self.control.volume(&self.service().await, &name("data")).await.unwrap()
    }

    /// All points of the volume, newest first.
    pub(crate) async fn all_points(&self) -> Vec<RestorePoint> {
        self.control.restore_points(&self.volume().await).await.unwrap()
    }

    /// Which schedules each point serves that a schedule asked for, newest first.
    pub(crate) async fn scheduled(&self) -> Vec<Vec<Schedule>> {
        let points = self.all_points().await.into_iter();
        let schedules = points.filter_map(|point| match point.reason {
            PointReason::Schedule { schedules } => Some(schedules),
            _ => None,
        });
        schedules.collect()
    }

    pub(crate) async fn data(&self) -> VolumeData {
        let service = self.service().await;
        self.control.data_status(&service).await.unwrap().remove(0)
    }

    pub(crate) async fn warnings(&self) -> Vec<String> {
        self.control.status(self.service().await).await.unwrap().warnings
    }

    /// Takes a point now, as `volume snapshot` does.
    pub(crate) async fn snapshot(&self) -> RestorePoint {
        let taken = self.control.request_backup(&name("web"), &name("web"), None).await;
        taken.unwrap().remove(0)
    }

    /// Stores a point as if it had been taken so long ago, with the data of one that is there.
    pub(crate) async fn age_point(&self, id: &RestorePointId, age_ms: i64) {
        let id = id.clone();
        let taken_at = Timestamp(clock::wall().0 - age_ms);
        self.store
            .with(move |db| {
                let point = db.find_restore_point(&id)?.expect("the point is there");
                db.remove_restore_point(&id)?;
                db.add_restore_point(&RestorePoint { taken_at, ..point })
            })
            .await
            .unwrap();
    }

    /// Asks for a deployment of `web` that may leave data outside its volumes behind.
    pub(crate) async fn up_allowed(&mut self, app: &App) -> Deployment {
        let source = self.world.push(app);
        self.control.add_source(source.clone()).await.unwrap();
        let overrides = vec![(trackbed_control::ALLOW_DATA_OUTSIDE.to_owned(), "true".to_owned())];
        let id = self.wish("web", DeploymentWish::Up { source, overrides }).await.unwrap().id;
        self.finish(&id).await
    }

    /// How often an instance stood still.
    pub(crate) fn times_frozen(&self) -> usize {
        let journal = self.world.journal();
        journal.iter().filter(|(_, happening)| matches!(happening, Happening::Frozen(_))).count()
    }

    /// Ends the control plane, lets the wall clock go on, and starts another.
    pub(crate) async fn sleep_through(&mut self, ms: i64) {
        self.end().await;
        clock::jump(ms);
        self.crash().await;
    }
}
