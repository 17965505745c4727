//! What an owner does to volumes and restore points by hand: remove, have back, change.

use trackbed_core::restore_point::{RestorePoint, Schedule};
use trackbed_core::service::{Service, Wanted};
use trackbed_core::volume::Volume;
use trackbed_core::{InstanceId, Name, RestorePointId};
use trackbed_store::StoreError;

use crate::control::{Control, ControlError};

impl Control {
    /// Returns the removed volumes of a service whose data can still be had back, the last removed first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn removed_volumes(&self, service: &Service) -> Result<Vec<Volume>, ControlError> {
        let id = service.id.clone();
        Ok(self.inner.store.with(move |db| db.list_removed_volumes(&id)).await?)
    }

    /// Returns a volume of a service by name.
    ///
    /// # Errors
    /// When there is none.
    pub async fn volume(&self, service: &Service, name: &Name) -> Result<Volume, ControlError> {
        let found = self.volumes(service).await?.into_iter().find(|volume| volume.name == *name);
        found.ok_or_else(|| {
            ControlError::NotFound(format!("service `{}` has no volume `{name}`", service.name))
        })
    }

    /// Removes a volume. Its data stays on the box for [`Volume::KEPT_AFTER_REMOVAL`] and can be had back until then; its
    /// restore points stay for their time, at most 30 days.
    ///
    /// # Errors
    /// When there is none of that name, or something holds it or is about to. What was made since the instance started,
    /// such as the copy of a restore point, is not in use yet.
    pub async fn remove_volume(&self, service: &Service, name: &Name) -> Result<Volume, ControlError> {
        let volume = self.volume(service, name).await?;
        let holders = self.lease(service, &volume).await?.holders;
        let older = self.instance_without(service, &volume).await?;
        let (id, owner, now) = (volume.id.clone(), service.id.clone(), self.now());
        let is_used = self
            .inner
            .store
            .with(move |db| {
                let service = db.load_service(&owner)?;
                let live = service.live.as_ref().filter(|_| service.wanted == Wanted::Running);
                let runs = live.is_some_and(|live| older.is_none() || live.instance != older);
                if !holders.is_empty() || runs || !db.list_unfinished(&owner)?.is_empty() {
                    return Ok(true);
                }
                db.remove_volume(&id, now)?;
                Ok(false)
            })
            .await?;
        if is_used {
            return Err(ControlError::Conflict {
                message: format!("volume `{name}` is in use by service `{}`", service.name),
                hint: Some("stop the service first: trackbed down".into()),
            });
        }
        self.announce();
        Ok(Volume { removed_at: Some(now), ..volume })
    }

    /// Returns the live instance if it began before the volume was made, so that it does not mount it.
    async fn instance_without(
        &self,
        service: &Service,
        volume: &Volume,
    ) -> Result<Option<InstanceId>, ControlError> {
        let Some(instance) = service.live.as_ref().and_then(|live| live.instance.clone()) else {
            return Ok(None);
        };
        let status = self.inner.engine.inspect(&instance).await?;
        let began_before = status.is_some_and(|status| status.started_at < volume.created_at);
        Ok(began_before.then_some(instance))
    }

    /// Takes the removal of a volume back: of the one of that name that was removed last.
    ///
    /// # Errors
    /// When there is none whose data is still there, or another volume has its name or its path by now.
    pub async fn undelete_volume(&self, service: &Service, name: &Name) -> Result<Volume, ControlError> {
        let found = self.removed_volumes(service).await?.into_iter().find(|volume| volume.name == *name);
        let volume = found.ok_or_else(|| {
            ControlError::NotFound(format!(
                "service `{}` has no removed volume `{name}` that can be had back",
                service.name
            ))
        })?;
        let id = volume.id.clone();
        match self.inner.store.with(move |db| db.undelete_volume(&id)).await {
            Ok(()) => {}
            Err(StoreError::Conflict(message)) => {
                let hint = Some("remove that one first: trackbed volume remove".to_owned());
                return Err(ControlError::Conflict { message, hint });
            }
            Err(error) => return Err(error.into()),
        }
        self.announce();
        Ok(Volume { removed_at: None, ..volume })
    }

    /// Sets when backups of a volume are taken by themselves, and the size above which its owner is warned. None leaves
    /// as it is; an empty list means never, a limit of `Some(None)` means no limit.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn change_volume(
        &self,
        service: &Service,
        name: &Name,
        schedules: Option<Vec<Schedule>>,
        limit_bytes: Option<Option<u64>>,
    ) -> Result<Volume, ControlError> {
        let mut volume = self.volume(service, name).await?;
        if let Some(mut schedules) = schedules {
            schedules.sort();
            schedules.dedup();
            volume.schedules = schedules;
        }
        volume.limit_bytes = limit_bytes.unwrap_or(volume.limit_bytes);
        let changed = volume.clone();
        self.inner
            .store
            .with(move |db| {
                db.set_schedules(&changed.id, &changed.schedules)?;
                db.set_volume_limit(&changed.id, changed.limit_bytes)
            })
            .await?;
        self.announce();
        Ok(volume)
    }

    /// Returns the restore points of a volume, newest first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn restore_points(&self, volume: &Volume) -> Result<Vec<RestorePoint>, ControlError> {
        let id = volume.id.clone();
        Ok(self.inner.store.with(move |db| db.list_restore_points(&id)).await?)
    }

    /// Removes a restore point by hand. Its data goes with the next collection.
    ///
    /// # Errors
    /// When there is none, something refers to it, or it is what stays in any case: the only good point of its volume, or
    /// the only proven one.
    pub async fn remove_restore_point(
        &self,
        service: &Service,
        point: &RestorePointId,
    ) -> Result<(), ControlError> {
        let (owner, wanted) = (service.id.clone(), point.clone());
        let proving = self.being_proven();
        let outcome = self.inner.store.with(move |db| {
            let Some(found) = db.find_restore_point(&wanted)?.filter(|found| found.service == owner) else {
                return Ok(Removal::Unknown);
            };
            let is_referred = db
                .list_all_unfinished()?
                .iter()
                .any(|deployment| deployment.points().any(|wish| wish.point == wanted));
            let live = db.load_service(&owner)?.live;
            let is_way_out = live.iter().flat_map(|live| &live.unsettled).any(|wish| wish.point == wanted);
            if is_way_out {
                return Ok(Removal::Refused("it holds the data from before a deployment that failed"));
            }
            if is_referred || proving.as_ref() == Some(&wanted) {
                return Ok(Removal::Refused(
                    "something is being done with it; try again when that has ended",
                ));
            }
            let others = db.list_restore_points(&found.volume)?;
            let mut others = others.iter().filter(|other| other.id != wanted);
            let has_equal = match found.is_proven() {
                true => others.any(RestorePoint::is_proven),
                false => found.is_broken() || others.any(|other| !other.is_broken()),
            };
            if !has_equal {
                return Ok(Removal::Refused("it is the last good one of its volume; take another one first"));
            }
            db.remove_restore_point(&wanted)?;
            Ok(Removal::Done)
        });
        match outcome.await? {
            Removal::Done => {
                self.announce();
                Ok(())
            }
            Removal::Unknown => Err(ControlError::NotFound(format!(
                "service `{}` has no restore point {point}",
                service.name
            ))),
            Removal::Refused(why) => Err(ControlError::Conflict {
                message: format!("restore point {point} stays: {why}"),
                hint: Some("trackbed volume snapshot".into()),
            }),
        }
    }
}

/// What came of the wish to remove a point.
enum Removal {
    Done,
    Unknown,
    Refused(&'static str),
}
