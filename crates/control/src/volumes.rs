//! Volumes of a service: listed and added; mounted from the next deployment on.

use trackbed_core::ids::ID_BYTES;
use trackbed_core::service::Service;
use trackbed_core::volume::{MountPath, Volume};
use trackbed_core::{DeploymentId, InstanceId, Name, VolumeId};
use trackbed_stdx::random;
use trackbed_store::StoreError;

use crate::control::{Control, ControlError};

/// Who holds a volume now.
#[derive(Debug, Clone, Default)]
pub struct Lease {
    /// Grows with each holder.
    pub fence: u64,
    /// The latest first; more than one only where all share it.
    pub holders: Vec<Holder>,
}

/// A holder of a volume.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The instance; none when it is a process that Trackbed did not start.
    pub instance: Option<InstanceId>,
    /// The release that it runs: `v3`.
    pub release: Option<String>,
    /// The deployment that brought the release.
    pub deployment: Option<DeploymentId>,
    /// Whether it lets others hold the volume, too.
    pub shared: bool,
}

/// Deployments that are looked through for the one that a holder belongs to.
const NEWEST: u32 = 20;

impl Control {
    /// Returns who holds a volume now: the lock itself is asked, and the state only for the names of what it says.
    ///
    /// # Errors
    /// When the lock or the state cannot be read.
    pub async fn lease(&self, service: &Service, volume: &Volume) -> Result<Lease, ControlError> {
        let place = self.inner.volumes.ensure(volume).await?;
        let lease = self.inner.engine.lease(&place).await?;
        if lease.is_held && lease.holders.is_empty() {
            let stranger = Holder { instance: None, release: None, deployment: None, shared: false };
            return Ok(Lease { fence: lease.fence, holders: vec![stranger] });
        }
        let (id, live) = (service.id.clone(), service.live.clone());
        let holders = self
            .inner
            .store
            .with(move |db| {
                let newest = db.list_deployments(&id, NEWEST)?;
                let mut holders = Vec::new();
                for held in lease.holders {
                    let own =
                        |live: &&trackbed_core::service::Live| live.instance.as_ref() == Some(&held.instance);
                    // An instance that the restart policy started belongs to the deployment of its release.
                    let live = live.as_ref().filter(own).map(|live| &live.release);
                    let brought = newest.iter().find(|deployment| {
                        deployment.instance.as_ref() == Some(&held.instance)
                            || live.is_some() && deployment.release.as_ref() == live
                    });
                    let release = live.or(brought.and_then(|deployment| deployment.release.as_ref()));
                    holders.push(Holder {
                        release: release
                            .map(|id| db.load_release(id))
                            .transpose()?
                            .map(|found| found.label()),
                        deployment: brought.map(|deployment| deployment.id.clone()),
                        instance: Some(held.instance),
                        shared: held.shared,
                    });
                }
                Ok(holders)
            })
            .await?;
        Ok(Lease { fence: lease.fence, holders })
    }

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
                let volume = Volume::new(id, found.id, name, mount, now);
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
