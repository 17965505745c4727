//! What going back would change, before anybody goes back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use trackbed_core::deployment::DataWish;
use trackbed_core::ports::{Freezer, PointData};
use trackbed_core::release::Release;
use trackbed_core::restore_point::{Difference, RestorePoint};
use trackbed_core::service::Service;
use trackbed_core::volume::Volume;
use trackbed_core::{Name, ReleaseId};

use crate::control::{Control, ControlError};
use crate::requests::DeploymentWish;
use crate::resolve::{PointAt, choose_point, resolve};

/// A volume, the point that it would go back to, and how they differ.
#[derive(Debug, Clone)]
pub struct WayBack {
    /// The volume.
    pub volume: Volume,
    /// The point.
    pub point: RestorePoint,
    /// How they differ.
    pub difference: Difference,
}

impl Control {
    /// Returns how a volume differs from a restore point of it. Takes about as long as a capture.
    ///
    /// # Errors
    /// When there is no such volume or point, or they cannot be read.
    pub async fn way_back(
        &self,
        service: &Service,
        volume: &Name,
        at: PointAt,
    ) -> Result<WayBack, ControlError> {
        let volume = self.volume(service, volume).await?;
        let (owner, name) = (service.clone(), volume.name.clone());
        let point = self.inner.store.with(move |db| choose_point(db, &owner, Some(&name), &at)).await??;
        self.compare(service, volume, point).await
    }

    /// Returns what a rollback with data to a release (none is the one before the live one) would change: the release,
    /// and each volume whose data would go back.
    ///
    /// # Errors
    /// When such a rollback would be refused, or the volumes cannot be read.
    pub async fn preview_rollback(
        &self,
        service: &Service,
        version: Option<u32>,
    ) -> Result<(Release, Vec<WayBack>), ControlError> {
        let owner = service.clone();
        let (release, wishes) = self
            .inner
            .store
            .with(move |db| {
                let wish = DeploymentWish::Rollback { version, with_data: true };
                let wanted = match resolve(db, &owner, wish)? {
                    Ok(wanted) => wanted,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let mut wishes = Vec::new();
                for DataWish { volume, point } in wanted.restore {
                    if let (Some(volume), Some(point)) =
                        (db.find_volume(&volume)?, db.find_restore_point(&point)?)
                    {
                        wishes.push((volume, point));
                    }
                }
                let gone = || ControlError::NotFound(format!("service `{}` has no such release", owner.name));
                Ok(wanted.release.ok_or_else(gone).map(|release| (release, wishes)))
            })
            .await??;
        let mut ways = Vec::new();
        for (volume, point) in wishes {
            ways.push(self.compare(service, volume, point).await?);
        }
        Ok((release, ways))
    }

    async fn compare(
        &self,
        service: &Service,
        volume: Volume,
        point: RestorePoint,
    ) -> Result<WayBack, ControlError> {
        let _turn = self.turn_to_capture(&service.id).await;
        let _kept = self.keep_collections_away().await;
        let freezer = self.freezer_of(service).await?;
        let freezer = freezer.as_ref().map(|freezer| freezer as &dyn Freezer);
        let data = PointData { volume: point.volume.clone(), point: point.id.clone() };
        let difference = self.inner.volumes.compare(&volume, &data, freezer).await?;
        Ok(WayBack { volume, point, difference })
    }

    /// Returns the labels of the releases that wrote the data of points: `v3`.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn release_labels(
        &self,
        points: &[RestorePoint],
    ) -> Result<HashMap<ReleaseId, String>, ControlError> {
        let ids: Vec<_> = points.iter().filter_map(|point| point.release.clone()).collect();
        let labels = self.inner.store.with(move |db| {
            let mut labels = HashMap::new();
            for id in ids {
                if let Entry::Vacant(unknown) = labels.entry(id) {
                    let label = db.load_release(unknown.key())?.label();
                    unknown.insert(label);
                }
            }
            Ok(labels)
        });
        Ok(labels.await?)
    }
}
