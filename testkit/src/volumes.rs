//! Volumes on the disk of a world.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;
use trackbed_core::ports::{
    AdoptedFile, CaptureOrder, Collected, Depth, DiskSpace, Freezer, PointData, PortError, Staged,
    Unreadable, VolumePlace, Volumes,
};
use trackbed_core::restore_point::{Capture, Consistency, Difference, Proof, ProofVerdict};
use trackbed_core::schema::DatabaseSchema;
use trackbed_core::volume::Volume;
use trackbed_core::{DeploymentId, Digest, InstanceId, VolumeId};

use crate::clock;
use crate::disk::{Content, key, place_of, stage_place};
use crate::faults::Faults;
use crate::world::World;

/// Size of the disk.
const DISK_BYTES: u64 = 1 << 40;
/// Bytes that one write leaves.
const WRITE_BYTES: u64 = 1000;

/// The volumes of a world.
pub struct FakeVolumes {
    world: World,
    faults: Faults,
}

impl FakeVolumes {
    /// Makes the volumes of a world.
    pub fn new(world: World, faults: Faults) -> Self {
        Self { world, faults }
    }

    async fn take(
        &self,
        orders: &[CaptureOrder],
        freezer: Option<&dyn Freezer>,
    ) -> Result<Vec<Capture>, PortError> {
        let data =
            |order: &CaptureOrder| PointData { volume: order.volume.id.clone(), point: order.point.clone() };
        let is_there = orders.iter().all(|order| self.world.lock().disk.points.contains_key(&data(order)));
        let frozen = match freezer {
            Some(freezer) if !is_there => Some(freezer.freeze().await?),
            Some(_) | None => None,
        };
        if !is_there {
            let mut state = self.world.lock();
            state.refuse_full()?;
            for order in orders {
                let place = place_of(&order.volume.id);
                for holder in state.holders(&place) {
                    if frozen.is_none() {
                        return Err(PortError::new(format!(
                            "volume `{}` is held by {holder}",
                            order.volume.name
                        )));
                    }
                    if !state.is_frozen(&holder) {
                        state.violations.push(format!("{holder} wrote while its volume was captured"));
                    }
                }
            }
        }
        let pause = match frozen {
            Some(frozen) => frozen.thaw().await?,
            None => Duration::ZERO,
        };
        let mut captures = Vec::new();
        for order in orders {
            let mut state = self.world.lock();
            let now = state.disk.places.get(&key(&place_of(&order.volume.id))).cloned().unwrap_or_default();
            let content = state.disk.points.entry(data(order)).or_insert(now).clone();
            captures.push(Capture {
                consistency: Consistency::Instant,
                pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                files: content.files(),
                bytes: content.files() * WRITE_BYTES,
                stored_bytes: WRITE_BYTES,
                databases: Vec::new(),
                skipped: Vec::new(),
            });
        }
        Ok(captures)
    }

    async fn fill(
        &self,
        volume: &VolumeId,
        point: &PointData,
        stage: &DeploymentId,
    ) -> Result<Staged, PortError> {
        sleep(self.world.data_takes()).await;
        let place = stage_place(volume, stage);
        let mut state = self.world.lock();
        state.refuse_full()?;
        let Some(content) = state.disk.points.get(point).cloned() else {
            return Err(PortError::new(format!("there is no restore point {}", point.point)));
        };
        if state.disk.broken.contains(&point.point) {
            return Err(PortError::new(format!(
                "restore point {} is broken: a chunk is missing",
                point.point
            )));
        }
        let name = (volume.clone(), stage.clone());
        if state.disk.stages.get(&name) == Some(&true) {
            state.violations.push(format!("stage {stage} was filled again over what it kept"));
        }
        state.refuse_holder("staging", &place)?;
        state.disk.stages.insert(name, false);
        state.disk.places.insert(key(&place), content.clone());
        Ok(Staged {
            place,
            files: content.files(),
            bytes: content.files() * WRITE_BYTES,
            rows: content.files(),
        })
    }

    fn swap(&self, volume: &Volume, stage: &DeploymentId, is_in: bool) -> Result<(), PortError> {
        let (place, staged) = (place_of(&volume.id), stage_place(&volume.id, stage));
        let mut state = self.world.lock();
        let name = (volume.id.clone(), stage.clone());
        match state.disk.stages.get(&name) {
            None if is_in => return Err(PortError::new(format!("nothing is staged as {stage}"))),
            None => return Ok(()),
            Some(is_swapped) if *is_swapped == is_in => return Ok(()),
            Some(_) => {}
        }
        state.refuse_holder("a swap", &place)?;
        state.refuse_holder("a swap", &staged)?;
        let ours = state.disk.places.remove(&key(&place)).unwrap_or_default();
        let theirs = state.disk.places.insert(key(&staged), ours).unwrap_or_default();
        state.disk.places.insert(key(&place), theirs);
        state.disk.stages.insert(name, is_in);
        Ok(())
    }

    fn throw_away(&self, volume: &VolumeId, stage: &DeploymentId) -> Result<(), PortError> {
        let mut state = self.world.lock();
        let place = stage_place(volume, stage);
        state.refuse_holder("the removal", &place)?;
        state.disk.stages.remove(&(volume.clone(), stage.clone()));
        state.disk.places.remove(&key(&place));
        Ok(())
    }

    fn take_in(&self, volume: &Volume, files: &[AdoptedFile]) -> Result<(), PortError> {
        let place = place_of(&volume.id);
        let mut state = self.world.lock();
        state.refuse_full()?;
        state.refuse_holder("an adoption", &place)?;
        let content = state.disk.places.entry(key(&place)).or_default();
        for file in files {
            let from = file.from.to_string_lossy().into_owned();
            if content.adopted.get(&file.to).is_some_and(|before| *before != from) {
                return Err(PortError::new(format!(
                    "volume `{}` already has a file {}",
                    volume.name, file.to
                )));
            }
            content.adopted.insert(file.to.clone(), from);
        }
        Ok(())
    }

    async fn differ(
        &self,
        volume: &Volume,
        point: &PointData,
        freezer: Option<&dyn Freezer>,
    ) -> Result<Difference, PortError> {
        if let Some(freezer) = freezer {
            freezer.freeze().await?.thaw().await?;
        }
        let state = self.world.lock();
        let Some(then) = state.disk.points.get(point) else {
            return Err(PortError::new(format!("there is no restore point {}", point.point)));
        };
        let empty = Content::default();
        let now = state.disk.places.get(&key(&place_of(&volume.id))).unwrap_or(&empty);
        let is_shared = |(a, b): &(&(InstanceId, Digest), &(InstanceId, Digest))| a == b;
        let shared = now.writes.iter().zip(&then.writes).take_while(is_shared).count();
        let adopted = now.adopted.keys().filter(|path| !then.adopted.contains_key(*path)).count();
        let mut paths: Vec<String> = now.writes[shared..].iter().map(|(id, _)| format!("+{id}")).collect();
        paths.extend(then.writes[shared..].iter().map(|(id, _)| format!("-{id}")));
        Ok(Difference {
            added: (now.writes.len() - shared + adopted) as u64,
            changed: 0,
            missing: (then.writes.len() - shared) as u64,
            paths,
            tables: Vec::new(),
        })
    }

    fn look_at(&self, data: &PointData) -> Result<Proof, PortError> {
        let state = self.world.lock();
        let verdict = match state.disk.points.get(data) {
            None => return Err(PortError::new(format!("there is no restore point {}", data.point))),
            Some(_) if state.disk.baffling.contains(&data.point) => {
                return Err(PortError::new("the look ended by signal 11"));
            }
            Some(_) if state.disk.broken.contains(&data.point) => {
                ProofVerdict::Broken { reason: "a chunk is missing".into() }
            }
            Some(content) => ProofVerdict::Proven { databases: 1, rows: content.files() },
        };
        Ok(Proof { at: clock::wall(), verdict, took_ms: 30 })
    }

    fn delete(&self, volume: &Volume) -> Result<(), PortError> {
        if volume.removed_at.is_none() {
            return Err(PortError::new(format!("volume `{}` is not removed", volume.name)));
        }
        let place = place_of(&volume.id);
        let mut state = self.world.lock();
        state.refuse_holder("the deletion", &place)?;
        state.disk.stages.retain(|(owner, _), _| *owner != volume.id);
        let folder = format!("/volumes/{}/", volume.id);
        state.disk.places.retain(|directory, _| !directory.starts_with(&folder));
        Ok(())
    }

    fn throw_points_away(&self, keep: &[PointData]) -> Collected {
        let mut state = self.world.lock();
        let before = state.disk.points.len();
        state.disk.points.retain(|data, _| keep.contains(data));
        let points = (before - state.disk.points.len()) as u64;
        let kept = state.disk.points.keys().find(|data| state.disk.unreadable.contains(&data.point));
        let unreadable =
            kept.map(|data| Unreadable { data: data.clone(), reason: "its manifest is damaged".into() });
        Collected { points, freed_bytes: points * WRITE_BYTES, unreadable }
    }
}

#[async_trait]
impl Volumes for FakeVolumes {
    async fn ensure(&self, volume: &Volume) -> Result<VolumePlace, PortError> {
        self.faults.pass("volumes.ensure", Err, || async { Ok(place_of(&volume.id)) }).await
    }

    async fn read_ahead(&self, _volumes: &[Volume]) -> Result<(), PortError> {
        let read = || async {
            sleep(self.world.data_takes()).await;
            self.world.lock().refuse_full()
        };
        self.faults.pass("volumes.read_ahead", Err, read).await
    }

    async fn capture(
        &self,
        orders: &[CaptureOrder],
        freezer: Option<&dyn Freezer>,
    ) -> Result<Vec<Capture>, PortError> {
        self.faults.pass("volumes.capture", Err, || self.take(orders, freezer)).await
    }

    async fn prove(&self, data: &PointData) -> Result<Proof, PortError> {
        let prove = || async {
            sleep(self.world.data_takes()).await;
            self.look_at(data)
        };
        self.faults.pass("volumes.prove", Err, prove).await
    }

    async fn stage(
        &self,
        volume: &Volume,
        point: &PointData,
        stage: &DeploymentId,
        _depth: Depth,
    ) -> Result<Staged, PortError> {
        self.faults.pass("volumes.stage", Err, || self.fill(&volume.id, point, stage)).await
    }

    async fn swap_in(&self, volume: &Volume, stage: &DeploymentId) -> Result<(), PortError> {
        self.faults.pass("volumes.swap_in", Err, || async { self.swap(volume, stage, true) }).await
    }

    async fn swap_back(&self, volume: &Volume, stage: &DeploymentId) -> Result<(), PortError> {
        self.faults.pass("volumes.swap_back", Err, || async { self.swap(volume, stage, false) }).await
    }

    async fn discard(&self, volume: &VolumeId, stage: &DeploymentId) -> Result<(), PortError> {
        self.faults.pass("volumes.discard", Err, || async { self.throw_away(volume, stage) }).await
    }

    async fn adopt(&self, volume: &Volume, files: &[AdoptedFile]) -> Result<(), PortError> {
        self.faults.pass("volumes.adopt", Err, || async { self.take_in(volume, files) }).await
    }

    async fn compare(
        &self,
        volume: &Volume,
        point: &PointData,
        freezer: Option<&dyn Freezer>,
    ) -> Result<Difference, PortError> {
        self.faults.pass("volumes.compare", Err, || self.differ(volume, point, freezer)).await
    }

    async fn schemas(&self, _place: &VolumePlace) -> Result<Vec<DatabaseSchema>, PortError> {
        self.faults.pass("volumes.schemas", Err, || async { Ok(Vec::new()) }).await
    }

    async fn collect(&self, keep: &[PointData]) -> Result<Collected, PortError> {
        self.faults.pass("volumes.collect", Err, || async { Ok(self.throw_points_away(keep)) }).await
    }

    async fn erase(&self, volume: &Volume) -> Result<(), PortError> {
        self.faults.pass("volumes.erase", Err, || async { self.delete(volume) }).await
    }

    async fn used_bytes(&self, volume: &Volume) -> Result<u64, PortError> {
        let look = || async { Ok(self.world.content(&volume.id).files() * WRITE_BYTES) };
        self.faults.pass("volumes.used_bytes", Err, look).await
    }

    async fn space(&self) -> Result<DiskSpace, PortError> {
        let look = || async {
            let free_bytes = self.world.lock().disk.free_bytes.unwrap_or(DISK_BYTES / 2);
            Ok(DiskSpace { total_bytes: DISK_BYTES, free_bytes })
        };
        self.faults.pass("volumes.space", Err, look).await
    }
}
