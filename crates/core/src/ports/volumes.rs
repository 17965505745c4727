//! Volumes on disk, and the data of their restore points.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::PortError;
use crate::restore_point::{Capture, Difference, Proof};
use crate::schema::DatabaseSchema;
use crate::volume::Volume;
use crate::{DeploymentId, RestorePointId, VolumeId};

/// Where a volume lies on the box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePlace {
    /// Its directory.
    pub directory: PathBuf,
    /// Its lock file.
    pub lock: PathBuf,
}

/// Names the data of a restore point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointData {
    /// The volume whose data it is.
    pub volume: VolumeId,
    /// The point.
    pub point: RestorePointId,
}

/// A volume to capture, and the id that its point gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureOrder {
    /// The volume.
    pub volume: Volume,
    /// The id of the point to be, which the caller has stored.
    pub point: RestorePointId,
}

/// Makes the writers of volumes stand still.
#[async_trait]
pub trait Freezer: Send + Sync {
    /// Makes them stand still.
    ///
    /// # Errors
    /// When they do not; then they go on.
    async fn freeze(&self) -> Result<Box<dyn Frozen>, PortError>;
}

/// Writers that stand still. Dropping it lets them go on.
#[async_trait]
pub trait Frozen: Send {
    /// Lets them go on, and returns how long they stood still.
    ///
    /// # Errors
    /// When they were already let go, because it took too long or something died: what was read meanwhile is worthless.
    async fn thaw(self: Box<Self>) -> Result<Duration, PortError>;
}

/// How thoroughly staged data is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every byte against the digests of the manifest.
    Digests,
    /// That, and every database: whole, with the rows and contents that were recorded for the point.
    Content,
}

/// Data of a point in a place of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Where it is; it has a lock of its own, so that an instance can be started on it.
    pub place: VolumePlace,
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows of all databases, as far as they were looked into.
    pub rows: u64,
}

/// A file that moves into a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedFile {
    /// Where it lies on the box. Nobody writes there any more.
    pub from: PathBuf,
    /// Its path within the volume, without `..`; missing directories are made.
    pub to: String,
}

/// The disk that volumes lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Its size in bytes.
    pub total_bytes: u64,
    /// Bytes that can be written without asking anybody.
    pub free_bytes: u64,
}

/// A point that is kept and of which nobody knows what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Which.
    pub data: PointData,
    /// What is damaged.
    pub reason: String,
}

/// What a collection freed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Points that were removed.
    pub points: u64,
    /// Bytes on disk that were freed.
    pub freed_bytes: u64,
    /// The first point that cannot be read. While it is kept, nothing that points use is removed, because it might need it.
    pub unreadable: Option<Unreadable>,
}

/// Volumes on disk. Every method that changes something may be repeated, also after a crash in the middle.
#[async_trait]
pub trait Volumes: Send + Sync {
    /// Makes the directory and lock file of a volume, or finds them made, and returns where they are.
    ///
    /// # Errors
    /// When the disk refuses.
    async fn ensure(&self, volume: &Volume) -> Result<VolumePlace, PortError>;

    /// Reads ahead what has changed since the last capture, while the app goes on, so that [`Volumes::capture`] has to
    /// read only what changes in between.
    ///
    /// # Errors
    /// When the volume cannot be read, or the disk has no room for what is new.
    async fn read_ahead(&self, volumes: &[Volume]) -> Result<(), PortError>;

    /// Captures volumes of one service, all at the same instant. `freezer` makes their writers stand still; without one
    /// nobody may write, and the locks of the volumes are held meanwhile. A point that exists is returned as it is.
    ///
    /// # Errors
    /// When somebody holds a volume although nobody should, the writers do not stand still, or the disk refuses. Then
    /// none of the points exists.
    async fn capture(
        &self,
        orders: &[CaptureOrder],
        freezer: Option<&dyn Freezer>,
    ) -> Result<Vec<Capture>, PortError>;

    /// Restores a point to a scratch place, at low priority, and looks at it with [`Depth::Content`]. The first proof of
    /// a point records what its databases hold; later ones compare with that. The scratch place is removed.
    ///
    /// # Errors
    /// When it could not be looked, for a reason of the box. A point that is broken is a verdict, not an error.
    async fn prove(&self, data: &PointData) -> Result<Proof, PortError>;

    /// Fills a new place beside a volume with the data of a point and verifies it. The stage is named by the deployment
    /// that needs it. What an interrupted attempt left is done again.
    ///
    /// # Errors
    /// When the point is broken or missing, or the disk refuses. The volume is untouched.
    async fn stage(
        &self,
        volume: &Volume,
        point: &PointData,
        stage: &DeploymentId,
        depth: Depth,
    ) -> Result<Staged, PortError>;

    /// Puts staged data in the place of the volume's data, atomically; what was there is kept in the stage. Takes the
    /// volume's lock for the moment.
    ///
    /// # Errors
    /// When somebody holds the volume, or nothing is staged.
    async fn swap_in(&self, volume: &Volume, stage: &DeploymentId) -> Result<(), PortError>;

    /// Takes [`Volumes::swap_in`] back, if it was done.
    ///
    /// # Errors
    /// When somebody holds the volume.
    async fn swap_back(&self, volume: &Volume, stage: &DeploymentId) -> Result<(), PortError>;

    /// Removes a stage: data that was staged and is not in use, or that was replaced. None is fine.
    ///
    /// # Errors
    /// When somebody holds it, or the disk refuses.
    async fn discard(&self, volume: &VolumeId, stage: &DeploymentId) -> Result<(), PortError>;

    /// Copies files into a volume, all of them or none, with the owner of its directory. What is there stays: a file of
    /// the same name and content counts as copied before, so that this may be repeated. Takes the volume's lock for the
    /// moment.
    ///
    /// # Errors
    /// When somebody holds the volume, a name is taken by something else, or the disk refuses.
    async fn adopt(&self, volume: &Volume, files: &[AdoptedFile]) -> Result<(), PortError>;

    /// Returns how a volume differs from a point. Looks at a copy of the databases, never at the live ones.
    ///
    /// # Errors
    /// When the point is missing, or the disk refuses.
    async fn compare(
        &self,
        volume: &Volume,
        point: &PointData,
        freezer: Option<&dyn Freezer>,
    ) -> Result<Difference, PortError>;

    /// Returns what the databases in a place look like. Nobody uses the place meanwhile.
    ///
    /// # Errors
    /// When the box cannot look. A database that cannot be read is told as such.
    async fn schemas(&self, place: &VolumePlace) -> Result<Vec<DatabaseSchema>, PortError>;

    /// Removes every point that is not to be kept, and what only they used. Never touches a volume. A capture that is
    /// under way is safe.
    ///
    /// # Errors
    /// When the disk refuses.
    async fn collect(&self, keep: &[PointData]) -> Result<Collected, PortError>;

    /// Deletes the directory, the lock and every stage of a removed volume for good. Its restore points stay. This is the
    /// only way in which a volume is ever deleted. One that is not there is fine.
    ///
    /// # Errors
    /// When the volume is not marked as removed, somebody holds it, or the disk refuses.
    async fn erase(&self, volume: &Volume) -> Result<(), PortError>;

    /// Returns what a volume uses on disk now, in bytes. Files come and go meanwhile.
    ///
    /// # Errors
    /// When the disk does not say.
    async fn used_bytes(&self, volume: &Volume) -> Result<u64, PortError>;

    /// Returns the room on the disk that volumes lie on.
    ///
    /// # Errors
    /// When the disk does not say.
    async fn space(&self) -> Result<DiskSpace, PortError>;
}
