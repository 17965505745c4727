//! The port `Volumes`, as directories and a store of snapshots below the data directory.

use async_trait::async_trait;
use trackbed_core::ports::{
    AdoptedFile, CaptureOrder, Collected, Depth, DiskSpace, Freezer, PointData, PortError, Staged,
    VolumePlace, Volumes,
};
use trackbed_core::restore_point::{Capture, Difference, Proof};
use trackbed_core::schema::DatabaseSchema;
use trackbed_core::volume::Volume;
use trackbed_core::{DeploymentId, VolumeId};

use crate::capture;
use crate::collect;
use crate::place::{self, LocalVolumes};
use crate::restore;

#[async_trait]
impl Volumes for LocalVolumes {
    async fn ensure(&self, volume: &Volume) -> Result<VolumePlace, PortError> {
        let place = self.place(&volume.id);
        let made = place.clone();
        let result = tokio::task::spawn_blocking(move || {
            // Between two steps of an exchange a volume has no data: it must not be taken for a new one.
            if let Some(folder) = made.directory.parent() {
                restore::finish_swap(folder, &made.lock)?;
            }
            place::make(&made)
        })
        .await;
        match result.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(()) => Ok(place),
            Err(error) => Err(PortError::new(format!("cannot make volume `{}`: {error}", volume.name))),
        }
    }

    async fn read_ahead(&self, volumes: &[Volume]) -> Result<(), PortError> {
        capture::read_ahead(self, volumes).await
    }

    async fn capture(
        &self,
        orders: &[CaptureOrder],
        freezer: Option<&dyn Freezer>,
    ) -> Result<Vec<Capture>, PortError> {
        capture::capture(self, orders, freezer).await
    }

    async fn prove(&self, data: &PointData) -> Result<Proof, PortError> {
        self.prove_point(data).await
    }

    async fn stage(
        &self,
        volume: &Volume,
        point: &PointData,
        stage: &DeploymentId,
        depth: Depth,
    ) -> Result<Staged, PortError> {
        self.stage_point(volume, point, stage, depth).await
    }

    async fn swap_in(&self, volume: &Volume, stage: &DeploymentId) -> Result<(), PortError> {
        self.swap_stage_in(volume, stage).await
    }

    async fn swap_back(&self, volume: &Volume, stage: &DeploymentId) -> Result<(), PortError> {
        self.swap_stage_back(volume, stage).await
    }

    async fn discard(&self, volume: &VolumeId, stage: &DeploymentId) -> Result<(), PortError> {
        self.discard_stage(volume, stage).await
    }

    async fn adopt(&self, volume: &Volume, files: &[AdoptedFile]) -> Result<(), PortError> {
        self.adopt_files(volume, files).await
    }

    async fn compare(
        &self,
        volume: &Volume,
        point: &PointData,
        freezer: Option<&dyn Freezer>,
    ) -> Result<Difference, PortError> {
        self.compare_volume(volume, point, freezer).await
    }

    async fn schemas(&self, place: &VolumePlace) -> Result<Vec<DatabaseSchema>, PortError> {
        Ok(self.inspector.schemas(&place.directory).await?)
    }

    async fn erase(&self, volume: &Volume) -> Result<(), PortError> {
        self.erase_volume(volume).await
    }

    async fn used_bytes(&self, volume: &Volume) -> Result<u64, PortError> {
        let folder = self.place(&volume.id).directory;
        let measured = tokio::task::spawn_blocking(move || crate::browse::usage(&folder)).await;
        let measured = measured.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        measured.map(|usage| usage.used_bytes).map_err(|error| {
            PortError::new(format!("what volume `{}` uses is not known: {error}", volume.name))
        })
    }

    async fn space(&self) -> Result<DiskSpace, PortError> {
        let root = self.root().to_owned();
        let asked = tokio::task::spawn_blocking(move || crate::space::space(&root)).await;
        let space = asked.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        space.map_err(|error| {
            PortError::new(format!("the room on the disk of the volumes is not known: {error}"))
        })
    }

    async fn collect(&self, keep: &[PointData]) -> Result<Collected, PortError> {
        collect::collect(self, keep).await
    }
}
