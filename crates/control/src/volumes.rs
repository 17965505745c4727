//! Volumes of a service: listed and added; mounted from the next deployment on.

use trackbed_core::ids::ID_BYTES;
use trackbed_core::service::Service;
use trackbed_core::volume::{MountPath, Volume};
use trackbed_core::{Name, VolumeId};
use trackbed_stdx::random;
use trackbed_store::StoreError;

use crate::control::{Control, ControlError};

impl Control {
    /// Returns the volumes of a service, by mount path.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn volumes(&self, service: &Service) -> Result<Vec<Volume>, ControlError> {
        let id = service.id.clone();
        Ok(self.inner.store.with(move |db| db.list_volumes(&id)).await?)
    }

    /// Adds a volume. The service is made when it is new. It is mounted from the next deployment on.
    ///
    /// # Errors
    /// When the service already has a volume of that name or at that path.
    pub async fn add_volume(
        &self,
        project: &Name,
        service: &Name,
        name: Name,
        mount: MountPath,
    ) -> Result<Volume, ControlError> {
        let (project, service, domain, now) =
            (project.clone(), service.clone(), self.inner.config.domain.clone(), self.now());
        let id = VolumeId::from_random(random::bytes::<ID_BYTES>());
        let added = self
            .inner
            .store
            .with(move |db| {
                let found = db.ensure_service(&project, &service, &domain, now)?;
                let volume = Volume { id, service: found.id, name, mount, created_at: now };
                db.add_volume(&volume)?;
                Ok(volume)
            })
            .await;
        let volume = added.map_err(|error| match error {
            StoreError::Conflict(message) => ControlError::Conflict { message, hint: None },
            other => other.into(),
        })?;
        self.owe_routes();
        self.inner.volumes.ensure(&volume).await?;
        Ok(volume)
    }
}
