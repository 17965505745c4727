//! Lets go of what is kept no longer: restore points, stages, removed volumes. The rows go first, the data after.
//!
//! Nothing goes for its age until the wall clock has gone steadily for an hour ([`crate::keeping::ClockWatch`]).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use trackbed_core::deployment::{Deployment, DeploymentState, EventKind};
use trackbed_core::ports::{Collected, PointData, Unreadable};
use trackbed_core::volume::Volume;
use trackbed_core::{ReleaseId, RestorePointId, Timestamp, VolumeId};
use trackbed_store::{Db, StoreError};

use crate::control::{Control, ControlError};
use crate::keeping::lock;
use crate::retention::{Room, expired};

/// How often old points are looked for.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Longest time without a collection, because what a crash left behind is in no list.
const COLLECT_AT_LEAST: Duration = Duration::from_secs(6 * 60 * 60);
/// How long staged data, and data that was set aside, is kept after its deployment has ended.
const STAGES_KEPT: Duration = Duration::from_secs(48 * 60 * 60);
/// How long the points of a removed volume are kept at most. Its directory goes after [`Volume::KEPT_AFTER_REMOVAL`].
const POINTS_KEPT_AFTER_REMOVAL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Successful deployments of a service whose pins are kept whatever their age.
const DEPLOYMENTS_PINNED: usize = 10;
/// Releases of a service for which the data is kept as each left it, for a rollback with data.
const RELEASES_PINNED: usize = 10;
/// Deployments of a service that are looked through for those.
const LOOKED_THROUGH: u32 = 200;

/// What the keeper of the past remembers between its passes.
#[derive(Default)]
struct Passes {
    collected_at: Option<Instant>,
    owes_collection: bool,
}

impl Control {
    pub(crate) fn spawn_retention_keeper(&self) {
        let control = self.clone();
        let mut shutdown = self.inner.tasks.shutdown();
        self.inner.tasks.spawn("retention keeper", async move {
            let mut passes = Passes::default();
            // The first look at the clock.
            control.is_clock_trusted();
            loop {
                tokio::select! {
                    () = shutdown.wait() => return,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
                tokio::select! {
                    () = shutdown.wait() => return,
                    () = control.let_go(&mut passes) => {}
                }
            }
        });
    }

    /// One pass. What fails is tried again by the next one, and keeps nothing else from being done.
    async fn let_go(&self, passes: &mut Passes) {
        if self.is_clock_trusted() {
            match self.retire_points(Room::Enough).await {
                Ok(gone) => passes.owes_collection |= gone > 0,
                Err(error) => tracing::warn!(%error, "old restore points could not be let go"),
            }
            match self.erase_removed_volumes().await {
                Ok(gone) => passes.owes_collection |= gone > 0,
                Err(error) => tracing::warn!(%error, "a removed volume could not be deleted"),
            }
            if let Err(error) = self.discard_old_stages().await {
                tracing::warn!(%error, "data that was set aside could not be removed");
            }
        }
        self.keep_disk_free().await;
        let is_long_ago = passes.collected_at.is_none_or(|at| at.elapsed() >= COLLECT_AT_LEAST);
        if is_long_ago {
            self.tidy_code().await;
        }
        if !passes.owes_collection && !is_long_ago {
            return;
        }
        match self.collect_points().await {
            Ok(Some(collected)) => {
                *passes = Passes { collected_at: Some(Instant::now()), owes_collection: false };
                let Collected { points, freed_bytes, .. } = collected;
                if points > 0 || freed_bytes > 0 {
                    tracing::info!(points, freed_bytes, "data of old restore points removed");
                }
            }
            // A point is being made; the next pass tries again.
            Ok(None) => passes.owes_collection = true,
            Err(error) => tracing::warn!(%error, "the data of old restore points could not be removed"),
        }
    }

    /// Returns whether things may be deleted for their age.
    fn is_clock_trusted(&self) -> bool {
        let now = self.now();
        lock(&self.inner.keeping.clock).look(now)
    }

    /// Forgets the points that are kept no longer, and returns how many. Their data goes with the next collection.
    pub(crate) async fn retire_points(&self, room: Room) -> Result<usize, ControlError> {
        let (now, proving) = (self.now(), self.being_proven());
        let retired = self.inner.store.with(move |db| {
            let mut wanted = referred_points(db)?;
            if room == Room::Enough {
                wanted.extend(points_for_rollbacks(db)?);
            }
            wanted.extend(proving);
            let mut by_volume: BTreeMap<VolumeId, Vec<_>> = BTreeMap::new();
            for point in db.list_all_points()? {
                by_volume.entry(point.volume.clone()).or_default().push(point);
            }
            let mut count = 0;
            for (volume, points) in by_volume {
                let schedules = db.find_volume(&volume)?.map(|volume| volume.schedules).unwrap_or_default();
                for id in expired(&points, &schedules, &wanted, room, now) {
                    db.remove_restore_point(&id)?;
                    count += 1;
                }
            }
            Ok(count)
        });
        Ok(retired.await?)
    }

    /// Removes the data of all points that are not kept. None when a point is being made just now.
    pub(crate) async fn collect_points(&self) -> Result<Option<Collected>, ControlError> {
        let Some(_alone) = self.begin_collection() else { return Ok(None) };
        let keep = self
            .inner
            .store
            .with(|db| {
                let mut keep: BTreeSet<PointData> = db.list_kept_data()?.into_iter().collect();
                for deployment in db.list_all_unfinished()? {
                    let named = deployment.points();
                    keep.extend(named.map(|wish| PointData { volume: wish.volume, point: wish.point }));
                }
                Ok(keep.into_iter().collect::<Vec<_>>())
            })
            .await?;
        let collected = self.inner.volumes.collect(&keep).await?;
        self.tell_unreadable(collected.unreadable.as_ref()).await?;
        Ok(Some(collected))
    }

    /// Says once that a point cannot be read, so that no space is freed while it is kept, and keeps it for the status.
    async fn tell_unreadable(&self, unreadable: Option<&Unreadable>) -> Result<(), ControlError> {
        let Some(unreadable) = unreadable else {
            *lock(&self.inner.keeping.unreadable) = None;
            return Ok(());
        };
        if lock(&self.inner.keeping.unreadable).as_ref().is_some_and(|(data, _)| *data == unreadable.data) {
            return Ok(());
        }
        let PointData { volume, point } = unreadable.data.clone();
        let (name, told) = self
            .inner
            .store
            .with(move |db| {
                let Some(volume) = db.find_volume(&volume)? else { return Ok((None, None)) };
                let newest = db.list_deployments(&volume.service, 1)?.into_iter().next();
                let events = newest.as_ref().map(|newest| db.list_events(&newest.id, 0)).transpose()?;
                Ok((Some(volume.name), newest.zip(events)))
            })
            .await?;
        let name = name.map_or_else(|| unreadable.data.volume.to_string(), |name| name.to_string());
        let text = format!(
            "restore point {point} cannot be read, so no space of removed restore points is freed on this box while it is \
             kept: {}; if it is not needed: trackbed volume forget {name} {point}",
            unreadable.reason
        );
        tracing::error!(text);
        // An earlier control plane may have said it.
        if let Some((newest, events)) = told
            && !events.iter().any(|event| event.message == text)
        {
            self.event(&newest, EventKind::Warning, &text).await?;
        }
        *lock(&self.inner.keeping.unreadable) = Some((unreadable.data.clone(), text));
        self.announce();
        Ok(())
    }

    /// Deletes the data of volumes that were removed long enough ago, and forgets those of which nothing is left. Returns
    /// how many points went with them.
    async fn erase_removed_volumes(&self) -> Result<usize, ControlError> {
        let now = self.now();
        let erased = self
            .inner
            .store
            .with(move |db| {
                // The word first: from here on it cannot be had back, however far the deletion comes.
                for volume in db.list_volumes_to_erase()? {
                    if removed_for(&volume, now) >= Volume::KEPT_AFTER_REMOVAL {
                        db.set_erased(&volume.id, now)?;
                    }
                }
                db.list_erased_volumes()
            })
            .await?;
        let mut gone = 0;
        for volume in erased {
            if let Err(error) = self.inner.volumes.erase(&volume).await {
                tracing::warn!(volume = %volume.id, %error, "a removed volume could not be deleted yet");
                continue;
            }
            let is_over = removed_for(&volume, now) >= POINTS_KEPT_AFTER_REMOVAL;
            let id = volume.id.clone();
            let forget = self.inner.store.with(move |db| {
                let points = if is_over { db.list_restore_points(&id)? } else { Vec::new() };
                for point in &points {
                    db.remove_restore_point(&point.id)?;
                }
                Ok((points.len(), db.forget_volume(&id)?))
            });
            let (points, is_forgotten) = forget.await?;
            gone += points;
            if is_forgotten {
                tracing::info!(volume = %volume.id, name = %volume.name, "nothing is left of a removed volume");
            }
        }
        Ok(gone)
    }

    /// Removes what deployments left beside the volumes, two days after their end.
    async fn discard_old_stages(&self) -> Result<(), ControlError> {
        let now = self.now();
        let deployments = self.inner.store.with(|db| db.list_with_stages()).await?;
        let is_old =
            |deployment: &Deployment| deployment.finished_at.is_some_and(|at| now.since(at) >= STAGES_KEPT);
        for deployment in deployments.into_iter().filter(is_old) {
            let service = deployment.service.clone();
            let volumes = self
                .inner
                .store
                .with(move |db| Ok([db.list_volumes(&service)?, db.list_removed_volumes(&service)?].concat()))
                .await?;
            for volume in &volumes {
                for stage in deployment.stages() {
                    self.inner.volumes.discard(&volume.id, stage).await?;
                }
            }
            self.inner.store.with(move |db| db.set_stages_discarded(&deployment.id)).await?;
        }
        Ok(())
    }
}

fn removed_for(volume: &Volume, now: Timestamp) -> Duration {
    volume.removed_at.map_or(Duration::ZERO, |at| now.since(at))
}

/// Returns the points of deployments that are under way or whose stages still lie there, and those to which data is yet to
/// go back.
fn referred_points(db: &Db<'_>) -> Result<HashSet<RestorePointId>, StoreError> {
    let deployments = db.list_all_unfinished()?.into_iter().chain(db.list_with_stages()?);
    let named = deployments.flat_map(|deployment| deployment.points().collect::<Vec<_>>());
    let live = db.list_services()?.into_iter().filter_map(|service| service.live);
    Ok(named.chain(live.flat_map(|live| live.unsettled)).map(|wish| wish.point).collect())
}

/// Returns the points that a rollback with data may want.
fn points_for_rollbacks(db: &Db<'_>) -> Result<HashSet<RestorePointId>, StoreError> {
    let mut wanted = HashSet::new();
    for service in db.list_services()? {
        wanted.extend(wanted_by_rollback(&db.list_deployments(&service.id, LOOKED_THROUGH)?));
    }
    Ok(wanted)
}

/// Returns the pins of one service that a rollback with data may want, from its deployments, newest first.
fn wanted_by_rollback(deployments: &[Deployment]) -> HashSet<RestorePointId> {
    let mut wanted = HashSet::new();
    let mut releases: HashSet<&ReleaseId> = HashSet::new();
    let successes = deployments.iter().filter(|deployment| deployment.state == DeploymentState::Success);
    for (index, deployment) in successes.enumerate() {
        // The newest pin that a release left is the data as it was when that release served last.
        let is_last_of_release = match &deployment.previous {
            Some(previous) => releases.len() < RELEASES_PINNED && releases.insert(previous),
            None => false,
        };
        if index < DEPLOYMENTS_PINNED || is_last_of_release {
            wanted.extend(deployment.pins.iter().map(|pin| pin.point.clone()));
        }
    }
    wanted
}
