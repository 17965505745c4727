//! New volumes with the data of others: for previews, for a look at what was, for a second try.

use trackbed_core::ids::ID_BYTES;
use trackbed_core::ports::{PointData, PortError};
use trackbed_core::restore_point::RestorePoint;
use trackbed_core::service::Service;
use trackbed_core::volume::{MountPath, Volume};
use trackbed_core::{Name, VolumeId};
use trackbed_stdx::random;
use trackbed_store::StoreError;

use crate::control::{Control, ControlError};
use crate::resolve::{PointAt, choose_point};

/// A volume that somebody wants to have with the data of another.
#[derive(Debug, Clone)]
pub struct CloneWish {
    /// Its name.
    pub name: Name,
    /// Where it is mounted; none means beside the other, by its own name.
    pub mount: Option<MountPath>,
    /// The data; none means that of now.
    pub at: Option<PointAt>,
}

impl Control {
    /// Makes a volume and has `fill` put the data of a restore point of another one into it. Until that is done the new
    /// one counts as removed: nobody mounts it, and what a crash leaves of it goes like any removed volume. Dropping the
    /// future gives it up.
    ///
    /// # Errors
    /// When there is no such volume or point, the name or the path is taken, or the data cannot be put there.
    pub async fn clone_volume<F>(
        &self,
        project: &Name,
        service: &Name,
        from: &Name,
        wish: CloneWish,
        fill: impl FnOnce(PointData, Volume) -> F + Send,
    ) -> Result<Volume, ControlError>
    where
        F: Future<Output = Result<(), PortError>> + Send,
    {
        let found = self.service(project, service).await?;
        let source = self.volume(&found, from).await?;
        let mount = match wish.mount {
            Some(mount) => mount,
            None => beside(&source.mount, &wish.name)?,
        };
        let (id, now) = (VolumeId::from_random(random::bytes::<ID_BYTES>()), self.now());
        let mut volume = Volume::new(id, found.id.clone(), wish.name, mount, now);
        volume.removed_at = Some(now);
        // Before anything is captured or copied for a name that cannot be had.
        let added = volume.clone();
        self.inner.store.with(move |db| db.add_volume(&added)).await.map_err(taken)?;
        let point = self.data_for_clone(project, &found, from, wish.at).await?;
        let data = PointData { volume: point.volume, point: point.id };
        {
            let _kept = self.keep_collections_away().await;
            fill(data, volume.clone()).await?;
        }
        let id = volume.id.clone();
        self.inner.store.with(move |db| db.undelete_volume(&id)).await.map_err(taken)?;
        self.announce();
        Ok(Volume { removed_at: None, ..volume })
    }

    async fn data_for_clone(
        &self,
        project: &Name,
        service: &Service,
        from: &Name,
        at: Option<PointAt>,
    ) -> Result<RestorePoint, ControlError> {
        let Some(at) = at else {
            let taken = self.request_backup(project, &service.name, Some(from.clone())).await?;
            let gone =
                || ControlError::NotFound(format!("service `{}` has no volume `{from}`", service.name));
            return taken.into_iter().next().ok_or_else(gone);
        };
        let (service, from) = (service.clone(), from.clone());
        self.inner.store.with(move |db| choose_point(db, &service, Some(&from), &at)).await?
    }
}

/// Returns the path of a volume beside another one: `/data2` beside `/data`.
fn beside(mount: &MountPath, name: &Name) -> Result<MountPath, ControlError> {
    let folder = mount.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = format!("{folder}/{name}");
    path.parse().map_err(|_| ControlError::Conflict {
        message: format!("a volume cannot be mounted at {path}"),
        hint: Some("say where by --mount".into()),
    })
}

fn taken(error: StoreError) -> ControlError {
    match error {
        StoreError::Conflict(message) => {
            ControlError::Conflict { message, hint: Some("choose another name, or another --mount".into()) }
        }
        other => other.into(),
    }
}
