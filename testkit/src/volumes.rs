//! Volumes that are only places.

use async_trait::async_trait;
use trackbed_core::ports::{PortError, VolumePlace, Volumes};
use trackbed_core::volume::Volume;

use crate::faults::Faults;

/// Says where a volume would be.
pub struct FakeVolumes {
    faults: Faults,
}

impl FakeVolumes {
    /// Makes them.
    pub fn new(faults: Faults) -> Self {
        Self { faults }
    }
}

#[async_trait]
impl Volumes for FakeVolumes {
    async fn ensure(&self, volume: &Volume) -> Result<VolumePlace, PortError> {
        let place = || async {
            Ok(VolumePlace {
                directory: format!("/volumes/{}", volume.id).into(),
                lock: format!("/volumes/{}.lock", volume.id).into(),
            })
        };
        self.faults.pass("volumes.ensure", Err, place).await
    }
}
