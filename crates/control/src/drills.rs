//! Drills: every restore point is proven restorable soon after it was taken, and again and again as long as it is kept.
//!
//! One at a time on the box, and none begins while a handover anywhere has callers wait. A point that turns out broken is
//! said loudly, together with the point that is offered instead; it is looked at again like any other, because the cause
//! may have been the memory of the box and not its disk.

use std::time::Duration;

use trackbed_core::deployment::EventKind;
use trackbed_core::ports::{PointData, PortError};
use trackbed_core::restore_point::{Proof, ProofVerdict, RestorePoint};
use trackbed_core::service::Service;
use trackbed_core::{Name, RestorePointId, Timestamp, VolumeId};

use crate::control::{Control, ControlError};
use crate::keeping::{lock, note_trouble, spoken};

/// How often the drills look for work.
const LOOK: Duration = Duration::from_secs(60);
/// How often the newest point of a volume is proven again.
const NEWEST_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);
/// How often every other point is.
const AGAIN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often a point is looked at in vain, with growing pauses of half an hour together, before the verdict is that it could
/// not be proven. It is looked at again a day later.
const TRIES: u32 = 5;

/// Keeps a point from being removed for as long as it is being proven.
struct Proving<'a>(&'a Control);

impl Drop for Proving<'_> {
    fn drop(&mut self) {
        *lock(&self.0.inner.keeping.proving) = None;
    }
}

impl Control {
    pub(crate) fn spawn_drills(&self) {
        let control = self.clone();
        let mut shutdown = self.inner.tasks.shutdown();
        self.inner.tasks.spawn("drills", async move {
            loop {
                tokio::select! {
                    () = shutdown.wait() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
                let drilled = tokio::select! {
                    () = shutdown.wait() => return,
                    drilled = control.drill_what_is_due() => drilled,
                };
                if let Err(error) = drilled {
                    tracing::warn!(%error, "the restore points could not be read");
                }
            }
        });
    }

    /// Proves points one after the other until none is due or a handover needs the box for itself.
    async fn drill_what_is_due(&self) -> Result<(), ControlError> {
        loop {
            let (unfinished, points) =
                self.inner.store.with(|db| Ok((db.list_all_unfinished()?, db.list_all_points()?))).await?;
            if unfinished.iter().any(|deployment| deployment.step.parks()) {
                return Ok(());
            }
            let waits = {
                let mut unprovable = lock(&self.inner.keeping.unprovable);
                unprovable.retain(|id, _| points.iter().any(|point| point.id == *id));
                unprovable.clone()
            };
            let may_be_tried =
                |point: &&RestorePoint| waits.get(&point.id).is_none_or(|trouble| trouble.is_over());
            let points: Vec<_> = points.iter().filter(may_be_tried).collect();
            let Some(point) = next_drill(&points, self.now()).cloned() else { return Ok(()) };
            self.drill(&point).await?;
        }
    }

    /// Proves a point of a volume now, or the newest that it has, and returns it with its proof. Dropping the future gives
    /// it up.
    ///
    /// # Errors
    /// When there is no such volume or point, or it could not be looked. A point that is broken is a proof, too.
    pub async fn request_drill(
        &self,
        service: &Service,
        volume: &Name,
        point: Option<RestorePointId>,
    ) -> Result<RestorePoint, ControlError> {
        let found = self.volume(service, volume).await?;
        let points = self.restore_points(&found).await?;
        let wanted = match &point {
            Some(id) => points.into_iter().find(|point| point.id == *id),
            None => points.into_iter().next(),
        };
        let none = || match &point {
            Some(id) => ControlError::NotFound(format!("volume `{volume}` has no restore point {id}")),
            None => ControlError::Conflict {
                message: format!("volume `{volume}` has no restore point yet"),
                hint: Some(format!("take one: trackbed volume snapshot {volume}")),
            },
        };
        let wanted = wanted.ok_or_else(none)?;
        self.drill(&wanted).await?;
        if let Some(trouble) = lock(&self.inner.keeping.unprovable).get(&wanted.id) {
            let text = format!("restore point {} could not be looked at: {}", wanted.id, trouble.message);
            return Err(PortError::new(text).into());
        }
        let id = wanted.id.clone();
        let proven = self.inner.store.with(move |db| db.find_restore_point(&id)).await?;
        proven.ok_or_else(|| {
            ControlError::NotFound(format!("restore point {} was removed meanwhile", wanted.id))
        })
    }

    /// Proves one point and stores what came out. What the box could not do is tried again later.
    async fn drill(&self, point: &RestorePoint) -> Result<(), ControlError> {
        let _turn = self.inner.keeping.drill_turn.lock().await;
        *lock(&self.inner.keeping.proving) = Some(point.id.clone());
        let _proving = Proving(self);
        // It may have been removed before it was marked.
        let id = point.id.clone();
        if self.inner.store.with(move |db| db.find_restore_point(&id)).await?.is_none() {
            return Ok(());
        }
        let data = PointData { volume: point.volume.clone(), point: point.id.clone() };
        match self.inner.volumes.prove(&data).await {
            Ok(proof) => {
                lock(&self.inner.keeping.unprovable).remove(&point.id);
                self.store_proof(point, proof).await
            }
            Err(error) => {
                tracing::warn!(point = %point.id, %error, "a restore point could not be proven; it is tried again");
                let unprovable = &self.inner.keeping.unprovable;
                let tries = note_trouble(unprovable, point.id.clone(), error.to_string(), self.now());
                // What an earlier drill found stays what is known.
                if tries < TRIES || point.proof.is_some() && !point.is_undecided() {
                    return Ok(());
                }
                lock(unprovable).remove(&point.id);
                let reason = format!("{error} (tried {tries} times)");
                let verdict = ProofVerdict::Unknown { reason };
                self.store_proof(point, Proof { at: self.now(), verdict, took_ms: 0 }).await
            }
        }
    }

    async fn store_proof(&self, point: &RestorePoint, proof: Proof) -> Result<(), ControlError> {
        // The stamp is ours: what is due is decided by the same clock.
        let proof = Proof { at: self.now(), ..proof };
        let (id, stored) = (point.id.clone(), proof.clone());
        self.inner.store.with(move |db| db.set_proof(&id, stored)).await?;
        if let ProofVerdict::Broken { reason } = &proof.verdict
            && !point.is_broken()
        {
            self.tell_broken(point, reason).await?;
        }
        self.announce();
        Ok(())
    }

    /// Says loudly that a point is broken, and what to take instead.
    async fn tell_broken(&self, point: &RestorePoint, reason: &str) -> Result<(), ControlError> {
        let (id, volume, at) = (point.id.clone(), point.volume.clone(), point.taken_at);
        let service = point.service.clone();
        let (volume, instead, newest) = self
            .inner
            .store
            .with(move |db| {
                let instead = db
                    .list_restore_points(&volume)?
                    .into_iter()
                    .find(|other| other.id != id && !other.is_broken() && other.taken_at <= at);
                Ok((db.find_volume(&volume)?, instead, db.list_deployments(&service, 1)?))
            })
            .await?;
        let name = volume.map_or_else(|| point.volume.to_string(), |volume| volume.name.to_string());
        let instead = match instead {
            Some(other) => {
                let state = if other.is_proven() { "proven" } else { "not proven yet" };
                let age = spoken(self.now().since(other.taken_at));
                format!("the next older good one is {}, {age} old, {state}", other.id)
            }
            None => "there is no older good one; take one now: trackbed volume snapshot".to_owned(),
        };
        let text =
            format!("restore point {} of volume `{name}` cannot be restored: {reason}; {instead}", point.id);
        tracing::error!(service = %point.service, text);
        if let Some(deployment) = newest.first() {
            self.event(deployment, EventKind::Warning, &text).await?;
        }
        Ok(())
    }

    /// Returns the point that is being proven, which must stay until that is done.
    pub(crate) fn being_proven(&self) -> Option<RestorePointId> {
        lock(&self.inner.keeping.proving).clone()
    }
}

/// Returns the point to prove next: one that never was, the newest first; then the newest of a volume whose proof is a day
/// old; then whichever was proven longest ago, if that is a week. Points come newest first.
fn next_drill<'a>(points: &[&'a RestorePoint], now: Timestamp) -> Option<&'a RestorePoint> {
    if let Some(point) = points.iter().find(|point| point.proof.is_none()) {
        return Some(point);
    }
    let mut volumes: Vec<&VolumeId> = Vec::new();
    let mut again: Option<(Duration, &RestorePoint)> = None;
    for point in points {
        let Some(proof) = &point.proof else { continue };
        let age = distance(now, proof.at);
        let is_newest = !volumes.contains(&&point.volume);
        if is_newest {
            volumes.push(&point.volume);
        }
        if is_newest && age >= NEWEST_AGAIN {
            return Some(point);
        }
        let limit = if point.is_undecided() { NEWEST_AGAIN } else { AGAIN };
        if age >= limit && again.is_none_or(|(oldest, _)| age > oldest) {
            again = Some((age, point));
        }
    }
    again.map(|(_, point)| point)
}

/// A proof that lies in the future was stamped by a wrong clock: it counts by its distance, so that it is not believed for
/// ever.
fn distance(a: Timestamp, b: Timestamp) -> Duration {
    a.since(b).max(b.since(a))
}
