//! Step stage: data is got ready while the old release serves, so that what callers wait for is short, and a disk that is
//! full or a point that is broken is found before anybody waits.

use trackbed_core::deployment::{DataWish, Deployment, EventKind, Replaced, Step};
use trackbed_core::ports::{Depth, Freezer, PortError};
use trackbed_core::service::Service;
use trackbed_core::volume::Volume;

use super::points::data;
use super::{StepError, failed};
use crate::control::Control;
use crate::words;

impl Control {
    pub(super) async fn stage_data(
        &self,
        service: &Service,
        deployment: &mut Deployment,
    ) -> Result<(), StepError> {
        // A collection that began before step `check` does not know the points of this deployment; one that begins from
        // here on does. So none is in the way of those who wait later.
        drop(self.keep_collections_away().await);
        // The build may have filled the disk with what can be made again.
        self.keep_disk_free().await;
        let volumes = self.volumes(service).await?;
        for wish in deployment.restore.clone() {
            let volume = volume_of(&volumes, &wish)?;
            let staged = self
                .inner
                .volumes
                .stage(volume, &data(&wish), &deployment.id, Depth::Content)
                .await
                .map_err(|error| failed(Step::Stage, error, Vec::new()))?;
            let text = format!(
                "restore point {} of volume {} is staged and verified: {}, {}, {}",
                wish.point,
                volume.name,
                words::count(staged.files, "file"),
                words::bytes(staged.bytes),
                words::count(staged.rows, "row")
            );
            self.event(deployment, EventKind::Note, &text).await?;
            self.tell_what_goes(service, deployment, volume, &wish).await?;
        }
        let pinned: Vec<Volume> = volumes
            .into_iter()
            .filter(|volume| {
                deployment.pins.iter().any(|pin| pin.volume == volume.id && pin.capture.is_none())
            })
            .collect();
        if pinned.is_empty() {
            return Ok(());
        }
        let ahead = self.inner.volumes.read_ahead(&pinned).await;
        ahead.map_err(|error| failed(Step::Stage, error, Vec::new()))
    }

    /// Says what of today's data is newer than the wished data, before it goes. That it cannot be found out stops nobody.
    async fn tell_what_goes(
        &self,
        service: &Service,
        deployment: &mut Deployment,
        volume: &Volume,
        wish: &DataWish,
    ) -> Result<(), StepError> {
        let freezer = self.freezer_of(service).await?;
        let freezer = freezer.as_ref().map(|freezer| freezer as &dyn Freezer);
        let difference = match self.inner.volumes.compare(volume, &data(wish), freezer).await {
            Ok(difference) => difference,
            Err(error) => {
                let text = format!("what is newer than the restore point could not be found out: {error}");
                return Ok(self.event(deployment, EventKind::Warning, &text).await?);
            }
        };
        let pin = deployment.pins.iter().find(|pin| pin.volume == volume.id);
        let kept = pin.map(|pin| format!("; it stays as restore point {}", pin.point)).unwrap_or_default();
        let text = match words::newer(&difference) {
            Some(newer) => format!(
                "volume {}: {newer} newer than restore point {} will be set aside{kept}",
                volume.name, wish.point
            ),
            None => format!("volume {}: nothing is newer than restore point {}", volume.name, wish.point),
        };
        deployment.replaced.retain(|replaced| replaced.volume != volume.id);
        deployment.replaced.push(Replaced { volume: volume.id.clone(), difference });
        Ok(self.event(deployment, EventKind::Note, &text).await?)
    }
}

/// Returns the volume of a wish, which may have been removed since step `check`.
pub(super) fn volume_of<'a>(volumes: &'a [Volume], wish: &DataWish) -> Result<&'a Volume, StepError> {
    volumes.iter().find(|volume| volume.id == wish.volume).ok_or_else(|| {
        let error =
            PortError::new(format!("volume {} was removed while its data was to go back", wish.volume));
        failed(Step::Stage, error.hint("trackbed volume undelete brings it back"), Vec::new())
    })
}
