//! The port `Volumes`, as directories and a store of snapshots below the data directory.

use async_trait::async_trait;
use trackbed_core::ports::{
    CaptureOrder, Collected, Depth, Freezer, PointData, PortError, Staged, VolumePlace, Volumes,
};
use trackbed_core::restore_point::{Capture, Difference, Proof};
use trackbed_core::volume::Volume;
use trackbed_core::{DeploymentId, VolumeId};

use crate::capture;
use crate::collect;
use crate::place::{self, LocalVolumes};

#[async_trait]
impl Volumes for LocalVolumes {
    async fn ensure(&self, volume: &Volume) -> Result<VolumePlace, PortError> {
        let place = self.place(&volume.id);
        let made = place.clone();
        let result = tokio::task::spawn_blocking(move || place::make(&made)).await;
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
        Err(absent(data))
    }

    async fn stage(
        &self,
        _volume: &Volume,
        point: &PointData,
        _stage: &DeploymentId,
        _depth: Depth,
    ) -> Result<Staged, PortError> {
        Err(absent(point))
    }

    async fn swap_in(&self, _volume: &Volume, stage: &DeploymentId) -> Result<(), PortError> {
        Err(absent(stage))
    }

    async fn swap_back(&self, _volume: &Volume, stage: &DeploymentId) -> Result<(), PortError> {
        Err(absent(stage))
    }

    async fn discard(&self, _volume: &VolumeId, stage: &DeploymentId) -> Result<(), PortError> {
        Err(absent(stage))
    }

    async fn compare(
        &self,
        _volume: &Volume,
        point: &PointData,
        _freezer: Option<&dyn Freezer>,
    ) -> Result<Difference, PortError> {
        Err(absent(point))
    }

    async fn collect(&self, keep: &[PointData]) -> Result<Collected, PortError> {
        collect::collect(self, keep).await
    }
}

/// What `restore` and this branch replace method by method.
fn absent<T: std::fmt::Debug + ?Sized>(what: &T) -> PortError {
    PortError::new(format!("this build cannot do that with {what:?}"))
}
