//! The ports with a limit on every call: one that does not answer is an error like any other, and never holds up what
//! waits behind it.
//!
//! These limits only catch what hangs: they lie above everything that the adapters themselves wait for, and how long a
//! step of a deployment may take is decided by the step (`deploy/deadlines.rs`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;
use trackbed_core::instance::{
    Exit, InstanceSpec, InstanceStats, InstanceStatus, Listener, LogCursor, LogPage,
};
use trackbed_core::isolation::Isolation;
use trackbed_core::ports::{
    AdoptedFile, BuildLog, CaptureOrder, Collected, Depth, DiskSpace, Edge, Engine, Freezer, Frozen,
    PointData, PortError, Probe, Staged, StrayFile, VolumeLease, VolumePlace, Volumes,
};
use trackbed_core::restore_point::{Capture, Difference, Proof};
use trackbed_core::route::{Address, EdgeStats, RouteTable, Target};
use trackbed_core::schema::DatabaseSchema;
use trackbed_core::volume::Volume;
use trackbed_core::{DeploymentId, InstanceId, Secret, VolumeId};

/// Calls that only look, or tell the edge something: a message and its answer on this box, also when its disk is busy.
const CALL: Duration = Duration::from_secs(15);
/// Making a directory and a lock file, or removing the files of an instance, which may be many.
const FILES: Duration = Duration::from_secs(60);
/// A start that hands over a big volume or copies a big image. Above the limit of step `start`, which says it better.
const START: Duration = Duration::from_secs(12 * 60);
/// What ending an instance may take beyond its grace: signals to app, init and supervisor, with some seconds each.
const STOP: Duration = Duration::from_secs(100);
/// Reading or writing all the data of a volume, which may be a terabyte on a slow disk. Nobody waits for it but its step,
/// whose own limit is shorter where callers are held.
const DATA: Duration = Duration::from_secs(6 * 3600);
/// Removing what no restore point uses. Deployments with data wait for it before they touch anything.
const COLLECT: Duration = Duration::from_secs(30 * 60);
/// Renaming what is staged, or taking it back: as long as a busy disk needs for a sync.
const SWAP: Duration = Duration::from_secs(2 * 60);
/// Making every process of an instance stand still.
const FREEZE: Duration = Duration::from_secs(30);
/// What a probe may take beyond its own limit.
const PROBE: Duration = Duration::from_secs(5);

/// Waits for a call, within a limit.
pub(crate) async fn bound<T>(
    what: &str,
    limit: Duration,
    call: impl Future<Output = Result<T, PortError>>,
) -> Result<T, PortError> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        Err(PortError::new(format!("{what} gave no answer within {} s", limit.as_secs())).hint(
            "a disk or a process of the box may hang; `journalctl` and `dmesg` of the box may say which",
        ))
    })
}

/// An engine whose calls end.
pub(crate) struct BoundedEngine(pub(crate) Arc<dyn Engine>);

#[async_trait]
impl Engine for BoundedEngine {
    fn isolation(&self) -> Isolation {
        self.0.isolation()
    }

    fn shares_ports(&self) -> bool {
        self.0.shares_ports()
    }

    async fn start(&self, spec: &InstanceSpec) -> Result<(), PortError> {
        bound("the start of an instance", START, self.0.start(spec)).await
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), PortError> {
        bound("the end of an instance", grace.saturating_add(STOP), self.0.stop(id, grace)).await
    }

    async fn remove(&self, id: &InstanceId) -> Result<(), PortError> {
        bound("the removal of an instance", FILES, self.0.remove(id)).await
    }

    async fn list(&self) -> Result<Vec<InstanceStatus>, PortError> {
        bound("the list of instances", CALL, self.0.list()).await
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Option<InstanceStatus>, PortError> {
        bound("a look at an instance", CALL, self.0.inspect(id)).await
    }

    async fn wait(&self, id: &InstanceId) {
        self.0.wait(id).await;
    }

    async fn logs(&self, id: &InstanceId, from: LogCursor, limit: usize) -> Result<LogPage, PortError> {
        bound("the log of an instance", CALL, self.0.logs(id, from, limit)).await
    }

    async fn stats(&self, id: &InstanceId) -> Result<InstanceStats, PortError> {
        bound("the figures of an instance", CALL, self.0.stats(id)).await
    }

    async fn listeners(&self, id: &InstanceId) -> Result<Vec<Listener>, PortError> {
        bound("the ports of an instance", CALL, self.0.listeners(id)).await
    }

    async fn address(&self, id: &InstanceId, port: u16) -> Result<Address, PortError> {
        bound("the address of an instance", CALL, self.0.address(id, port)).await
    }

    async fn free_port(&self) -> Result<u16, PortError> {
        bound("the search for a free port", CALL, self.0.free_port()).await
    }

    async fn lease(&self, place: &VolumePlace) -> Result<VolumeLease, PortError> {
        bound("a look at the lock of a volume", CALL, self.0.lease(place)).await
    }

    async fn freeze(&self, id: &InstanceId, limit: Duration) -> Result<Box<dyn Frozen>, PortError> {
        bound("the freezing of an instance", FREEZE, self.0.freeze(id, limit)).await
    }

    async fn stray_files(&self, id: &InstanceId, limit: usize) -> Result<Vec<StrayFile>, PortError> {
        bound("a look at the files of an instance", FILES, self.0.stray_files(id, limit)).await
    }

    /// Runs as long as its caller listens.
    async fn exec(
        &self,
        id: &InstanceId,
        command: &[String],
        env: &[(String, Secret<String>)],
        log: &dyn BuildLog,
    ) -> Result<Exit, PortError> {
        self.0.exec(id, command, env, log).await
    }
}

/// An edge whose calls end.
pub(crate) struct BoundedEdge(pub(crate) Arc<dyn Edge>);

#[async_trait]
impl Edge for BoundedEdge {
    async fn apply(&self, table: &RouteTable) -> Result<(), PortError> {
        bound("the edge", CALL, self.0.apply(table)).await
    }

    async fn stats(&self) -> Result<EdgeStats, PortError> {
        bound("the edge", CALL, self.0.stats()).await
    }

    async fn end_streams(&self, instance: &InstanceId, over: Duration) -> Result<(), PortError> {
        bound("the edge", CALL, self.0.end_streams(instance, over)).await
    }

    async fn cut(&self, instance: &InstanceId) -> Result<(), PortError> {
        bound("the edge", CALL, self.0.cut(instance)).await
    }

    async fn probe(&self, target: &Target, path: Option<&str>, host: &str, limit: Duration) -> Probe {
        let probe = self.0.probe(target, path, host, limit);
        let late = || Probe::Broken { detail: "the probe itself gave no answer".into() };
        timeout(limit.saturating_add(PROBE), probe).await.unwrap_or_else(|_| late())
    }
}

/// Volumes whose calls end.
pub(crate) struct BoundedVolumes(pub(crate) Arc<dyn Volumes>);

#[async_trait]
impl Volumes for BoundedVolumes {
    async fn ensure(&self, volume: &Volume) -> Result<VolumePlace, PortError> {
        bound(&format!("making volume `{}`", volume.name), FILES, self.0.ensure(volume)).await
    }

    async fn read_ahead(&self, volumes: &[Volume]) -> Result<(), PortError> {
        bound("reading volumes ahead", DATA, self.0.read_ahead(volumes)).await
    }

    async fn capture(
        &self,
        orders: &[CaptureOrder],
        freezer: Option<&dyn Freezer>,
    ) -> Result<Vec<Capture>, PortError> {
        bound("the capture of volumes", DATA, self.0.capture(orders, freezer)).await
    }

    async fn prove(&self, data: &PointData) -> Result<Proof, PortError> {
        bound("the proof of a restore point", DATA, self.0.prove(data)).await
    }

    async fn stage(
        &self,
        volume: &Volume,
        point: &PointData,
        stage: &DeploymentId,
        depth: Depth,
    ) -> Result<Staged, PortError> {
        let what = format!("staging data of volume `{}`", volume.name);
        bound(&what, DATA, self.0.stage(volume, point, stage, depth)).await
    }

    async fn swap_in(&self, volume: &Volume, stage: &DeploymentId) -> Result<(), PortError> {
        bound(&format!("swapping volume `{}`", volume.name), SWAP, self.0.swap_in(volume, stage)).await
    }

    async fn swap_back(&self, volume: &Volume, stage: &DeploymentId) -> Result<(), PortError> {
        bound(&format!("swapping volume `{}` back", volume.name), SWAP, self.0.swap_back(volume, stage)).await
    }

    async fn discard(&self, volume: &VolumeId, stage: &DeploymentId) -> Result<(), PortError> {
        bound("the removal of staged data", FILES, self.0.discard(volume, stage)).await
    }

    async fn adopt(&self, volume: &Volume, files: &[AdoptedFile]) -> Result<(), PortError> {
        let what = format!("adopting files into volume `{}`", volume.name);
        bound(&what, DATA, self.0.adopt(volume, files)).await
    }

    async fn compare(
        &self,
        volume: &Volume,
        point: &PointData,
        freezer: Option<&dyn Freezer>,
    ) -> Result<Difference, PortError> {
        let what = format!("comparing volume `{}`", volume.name);
        bound(&what, DATA, self.0.compare(volume, point, freezer)).await
    }

    async fn schemas(&self, place: &VolumePlace) -> Result<Vec<DatabaseSchema>, PortError> {
        bound("a look at the schemas of databases", DATA, self.0.schemas(place)).await
    }

    async fn collect(&self, keep: &[PointData]) -> Result<Collected, PortError> {
        bound("the collection of old restore points", COLLECT, self.0.collect(keep)).await
    }

    async fn erase(&self, volume: &Volume) -> Result<(), PortError> {
        bound(&format!("deleting volume `{}`", volume.name), DATA, self.0.erase(volume)).await
    }

    async fn used_bytes(&self, volume: &Volume) -> Result<u64, PortError> {
        bound(&format!("measuring volume `{}`", volume.name), FILES, self.0.used_bytes(volume)).await
    }

    async fn space(&self) -> Result<DiskSpace, PortError> {
        bound("a look at the disk", CALL, self.0.space()).await
    }
}
