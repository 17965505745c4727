//! Capturing volumes: nearly everything is read while the app goes on, what is left while it stands still, and what is
//! new of that is stored when it has gone on.

#[cfg(test)]
mod bad_days;
mod content;
mod frozen;
mod live;
mod per_database;
mod point;
mod scratch;
mod spool;
mod stamps;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use trackbed_core::VolumeId;
use trackbed_core::ports::{CaptureOrder, Freezer, PointData, PortError, VolumePlace};
use trackbed_core::restore_point::{Capture, Consistency};
use trackbed_core::volume::Volume;
use trackbed_stdx::files;

use self::frozen::{Outcome, Still};
use self::live::{Pass, Writers};
use self::point::Facts;
use self::scratch::Scratch;
use self::spool::Spool;
use self::stamps::Stamps;
use crate::chunk_store::{ChunkReader, PackWriter, SnapshotStore, StoreError};
use crate::manifest::{FileContent, Header};
use crate::place::LocalVolumes;
use crate::restore::lock;
use crate::walk::Root;

/// How often the writers are made to stand still, when they were let go too early.
const FREEZES_MAX: usize = 2;

/// Of threads that work in the background. An app that wants a whole processor gets nine parts in ten of it. Not more:
/// whoever gives way to all is not done before a busy box rests, and deployments wait for the gate that it holds.
const BACKGROUND_NICENESS: i32 = 10;

/// What captures and collections of a data directory know of each other.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Captures share it, a collection has it alone for each pack that it removes. Fair: neither starves.
    pub(crate) gate: Arc<RwLock<()>>,
    /// Grows with everything that was captured or read ahead.
    pub(crate) epoch: AtomicU64,
    /// Bytes that were stored by reading ahead, and wait for a capture.
    pub(crate) ahead: Mutex<HashMap<VolumeId, u64>>,
    /// Points that were captured, and when that ended; none while it is under way.
    captured: Mutex<HashMap<PointData, Option<Instant>>>,
    /// How much may be read while an app stands still.
    pub(crate) limits: Limits,
}

/// Bounds of a capture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes read while the app stands still.
    pub(crate) frozen_bytes: u64,
    /// Bytes of them that are kept in memory.
    pub(crate) spool_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frozen_bytes: frozen::READ_BYTES_MAX, spool_bytes: spool::MEMORY_BYTES_MAX }
    }
}

/// A volume on its way through a capture.
#[derive(Debug)]
struct Work {
    data: PointData,
    place: VolumePlace,
    name: String,
    /// Bytes that were stored for it.
    stored_bytes: u64,
    notes: Vec<String>,
}

/// Held from the first look at the store to the last write: no chunk that is there is removed meanwhile.
type Gate = Arc<(OwnedRwLockReadGuard<()>, Option<UnderWay>)>;

/// Points that are being captured; when the last that works on them is done, it is told when that was.
#[derive(Debug)]
struct UnderWay {
    traffic: Arc<Traffic>,
    points: Vec<PointData>,
}

impl UnderWay {
    fn begin(traffic: &Arc<Traffic>, points: Vec<PointData>) -> Self {
        let mut captured = traffic.captured.lock().unwrap_or_else(PoisonError::into_inner);
        captured.extend(points.iter().map(|data| (data.clone(), None)));
        drop(captured);
        Self { traffic: traffic.clone(), points }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut captured = self.traffic.captured.lock().unwrap_or_else(PoisonError::into_inner);
        captured.extend(self.points.drain(..).map(|data| (data, Some(Instant::now()))));
    }
}

impl Traffic {
    /// Returns the points whose capture is under way, or has ended since an instant: whoever decided before what is to
    /// be kept may not know of them.
    pub(crate) fn captured_since(&self, since: Instant) -> HashSet<PointData> {
        let mut captured = self.captured.lock().unwrap_or_else(PoisonError::into_inner);
        captured.retain(|_, ended| ended.is_none_or(|ended| ended >= since));
        captured.keys().cloned().collect()
    }
}

/// Reads volumes ahead, at low priority.
pub(crate) async fn read_ahead(volumes: &LocalVolumes, wanted: &[Volume]) -> Result<(), PortError> {
    let gate: Gate = Arc::new((volumes.traffic.gate.clone().read_owned().await, None));
    for volume in wanted {
        let (store, place) = (volumes.store.clone(), volumes.place(&volume.id));
        let (id, traffic) = (volume.id.clone(), volumes.traffic.clone());
        let read = with_gate(&gate, move || {
            let reader = store.reader()?;
            let root = Root::open(&place.directory)?;
            let mut writer = PackWriter::new(&reader);
            let path = store.stamps_path(&id);
            let pass = live::read(&root, &reader, &mut writer, Stamps::load(&path), Writers::Working)?;
            writer.close()?;
            pass.stamps.save(&path)?;
            let mut ahead = traffic.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            *ahead.entry(id).or_default() += writer.stored_bytes;
            traffic.epoch.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        in_background(read).await.map_err(|error| explain(error, "read ahead", volume.name.as_str()))?;
    }
    Ok(())
}

/// Captures volumes, all at the same instant.
pub(crate) async fn capture(
    volumes: &LocalVolumes,
    orders: &[CaptureOrder],
    freezer: Option<&dyn Freezer>,
) -> Result<Vec<Capture>, PortError> {
    let under_way = UnderWay::begin(&volumes.traffic, orders.iter().map(data_of).collect());
    let gate: Gate = Arc::new((volumes.traffic.gate.clone().read_owned().await, Some(under_way)));
    let Some(first) = orders.first() else { return Ok(Vec::new()) };
    let explain = |error| explain(error, "capture", first.volume.name.as_str());
    let (store, together) = (volumes.store.clone(), orders.iter().map(data_of).collect::<Vec<_>>());
    let standing = {
        let (store, together) = (store.clone(), together.clone());
        blocking(&gate, move || standing(&store, &together)).await.map_err(explain)?
    };
    let work: Vec<Work> = (orders.iter().zip(&standing).filter(|(_, standing)| standing.is_none()))
        .map(|(order, _)| Work {
            data: data_of(order),
            place: volumes.place(&order.volume.id),
            name: order.volume.name.to_string(),
            stored_bytes: 0,
            notes: Vec::new(),
        })
        .collect();
    let ids: Vec<VolumeId> = work.iter().map(|work| work.data.volume.clone()).collect();
    let task = Task { store, together, gate, limits: volumes.traffic.limits, work };
    let mut captured = match freezer {
        _ if ids.is_empty() => Vec::new(),
        None => task.held(&volumes.traffic).await.map_err(explain)?,
        Some(freezer) => task.frozen(volumes, freezer).await?,
    }
    .into_iter();
    let mut ahead = volumes.traffic.ahead.lock().unwrap_or_else(PoisonError::into_inner);
    ahead.retain(|id, _| !ids.contains(id));
    Ok(standing.into_iter().filter_map(|standing| standing.or_else(|| captured.next())).collect())
}

fn data_of(order: &CaptureOrder) -> PointData {
    PointData { volume: order.volume.id.clone(), point: order.point.clone() }
}

/// Returns the points that exist. Some but not all of one capture are what a crash left, and not of one instant with
/// what would be captured now: they are removed, and all are captured again.
fn standing(store: &SnapshotStore, wanted: &[PointData]) -> Result<Vec<Option<Capture>>, StoreError> {
    let mut found = Vec::new();
    for data in wanted {
        found.push(store.manifest(data)?.map(|manifest| manifest.header));
    }
    if found.iter().any(Option::is_none) {
        let is_wanted =
            |(volume, point): &(VolumeId, _)| wanted.iter().any(|w| w.volume == *volume && w.point == *point);
        for (data, found) in wanted.iter().zip(&mut found) {
            let is_rest = |header: &Header| {
                header.together.len() == wanted.len() && header.together.iter().all(is_wanted)
            };
            if found.as_ref().is_some_and(is_rest) {
                let path = store.manifest_path(data);
                files::remove_tree(&path)
                    .map_err(|error| StoreError::disk("remove the manifest", &path, error))?;
                *found = None;
            }
        }
    }
    Ok(found.into_iter().map(|header| header.map(|header| header.capture)).collect())
}

/// A capture under way.
struct Task {
    store: SnapshotStore,
    together: Vec<PointData>,
    gate: Gate,
    limits: Limits,
    work: Vec<Work>,
}

impl Task {
    /// Captures while nobody writes, which the locks of the volumes say.
    async fn held(self, traffic: &Arc<Traffic>) -> Result<Vec<Capture>, StoreError> {
        let Self { store, together, gate, mut work, .. } = self;
        let traffic = traffic.clone();
        blocking(&gate, move || {
            let locks = lock_all(&work)?;
            let reader = store.reader()?;
            let mut passes = Vec::new();
            let mut writer = PackWriter::new(&reader);
            for work in &mut work {
                let root = Root::open(&work.place.directory)?;
                let before = Stamps::load(&store.stamps_path(&work.data.volume));
                let so_far = writer.stored_bytes;
                passes.push(live::read(&root, &reader, &mut writer, before, Writers::None)?);
                work.stored_bytes += writer.stored_bytes - so_far;
            }
            writer.close()?;
            drop(locks);
            finish(&store, &traffic, &together, work, passes, Consistency::Instant, Duration::ZERO)
        })
        .await
    }

    /// Captures while an app is at work, which stands still for a moment.
    async fn frozen(self, volumes: &LocalVolumes, freezer: &dyn Freezer) -> Result<Vec<Capture>, PortError> {
        let Self { store, together, gate, limits, mut work } = self;
        let title = work.iter().map(|work| work.name.as_str()).collect::<Vec<_>>().join("`, `");
        let explain = |error| explain(error, "capture", &title);
        let mut ahead = {
            let (store, mut reading) = (store.clone(), std::mem::take(&mut work));
            let ahead = with_gate(&gate, move || Ok((Ahead::read(&store, &mut reading)?, reading)));
            let (ahead, read) = in_background(ahead).await.map_err(explain)?;
            work = read;
            ahead
        };
        let mut attempt = 1;
        let (outcome, pause) = loop {
            let standing = freezer.freeze().await?;
            let looked = blocking(&gate, move || Ok((ahead.read_still(limits), ahead))).await;
            // Whatever came of it: the app goes on.
            let thawed = standing.thaw().await;
            let (outcome, back) = looked.map_err(explain)?;
            ahead = back;
            match thawed {
                Ok(pause) => break (outcome.map_err(explain)?, pause),
                Err(error) if attempt == FREEZES_MAX => return Err(error),
                Err(error) => tracing::warn!(%error, "the app was let go while it was captured; once more"),
            }
            attempt += 1;
        };
        let traffic = volumes.traffic.clone();
        let Some((stills, spool)) = outcome else {
            let consistency = Consistency::PerDatabase;
            let (work, passes) =
                per_database::read(&volumes.inspector, &gate, ahead, work).await.map_err(explain)?;
            let done = move || finish(&store, &traffic, &together, work, passes, consistency, pause);
            return in_background(with_gate(&gate, done)).await.map_err(explain);
        };
        let stored = with_gate(&gate, move || {
            let Ahead { scratch: _scratch, reader, volumes } = ahead;
            let mut writer = PackWriter::new(&reader);
            let mut passes = Vec::new();
            for ((still, (root, stamps)), work) in stills.into_iter().zip(volumes).zip(&mut work) {
                let so_far = writer.stored_bytes;
                passes.push(still.store(&root, &reader, &mut writer, stamps, &spool)?);
                work.stored_bytes += writer.stored_bytes - so_far;
            }
            writer.close()?;
            finish(&store, &traffic, &together, work, passes, Consistency::Instant, pause)
        });
        in_background(stored).await.map_err(explain)
    }
}

/// Volumes that were read ahead.
#[derive(Debug)]
struct Ahead {
    scratch: Scratch,
    reader: ChunkReader,
    volumes: Vec<(Root, Stamps)>,
}

impl Ahead {
    fn read(store: &SnapshotStore, work: &mut [Work]) -> Result<Self, StoreError> {
        let (scratch, reader) = (Scratch::make(store)?, store.reader()?);
        let mut volumes = Vec::new();
        let mut writer = PackWriter::new(&reader);
        for work in work {
            let root = Root::open(&work.place.directory)?;
            let before = Stamps::load(&store.stamps_path(&work.data.volume));
            let so_far = writer.stored_bytes;
            let pass = live::read(&root, &reader, &mut writer, before, Writers::Working)?;
            work.stored_bytes += writer.stored_bytes - so_far;
            volumes.push((root, pass.stamps));
        }
        writer.close()?;
        drop(writer);
        let ahead = Self { scratch, reader, volumes };
        ahead.flush();
        Ok(ahead)
    }

    /// Writes out what will have to be cloned: a clone waits until its file is on the disk, and the app with it.
    fn flush(&self) {
        for (root, stamps) in &self.volumes {
            let hot = stamps.files.iter().filter(|(_, known)| !known.is_settled);
            for (path, _) in hot.filter(|(_, known)| frozen::clones(&known.stamp, &self.scratch)) {
                // At worst the app waits for it.
                let _ = root.open_file(path).and_then(|file| Ok(rustix::fs::fdatasync(&file)?));
            }
        }
    }

    /// Reads what has changed since; none when that is too much to hold an app for.
    fn read_still(&self, limits: Limits) -> Result<Option<(Vec<Still>, Spool)>, StoreError> {
        let mut spool = Spool::new(self.scratch.path("spool"), limits.spool_bytes);
        let (mut stills, mut left) = (Vec::new(), limits.frozen_bytes);
        for (number, (root, stamps)) in self.volumes.iter().enumerate() {
            let name = format!("clone-{number}");
            match frozen::read(root, stamps, &mut spool, &self.scratch, left, &name)? {
                Outcome::Still(still, read) => {
                    stills.push(still);
                    left -= read;
                }
                Outcome::TooMuch(bytes) => {
                    tracing::info!(bytes, limit = left, "too much has changed to hold an app for");
                    return Ok(None);
                }
            }
        }
        Ok(Some((stills, spool)))
    }
}

fn lock_all(work: &[Work]) -> Result<Vec<impl Drop + use<>>, StoreError> {
    let mut locks = Vec::new();
    for work in work {
        let lock = lock::take(&work.place.lock, &format!("volume `{}`", work.name));
        locks.push(lock.map_err(|error| {
            StoreError::Refused(format!("{}, although nobody should write to it", error.message))
        })?);
    }
    Ok(locks)
}

/// Writes the points, and remembers the volumes for the next time.
fn finish(
    store: &SnapshotStore,
    traffic: &Traffic,
    together: &[PointData],
    work: Vec<Work>,
    passes: Vec<Pass>,
    consistency: Consistency,
    pause: Duration,
) -> Result<Vec<Capture>, StoreError> {
    let mut manifests = Vec::new();
    let ahead = traffic.ahead.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for (work, pass) in work.into_iter().zip(&passes) {
        let stored_bytes = work.stored_bytes + ahead.get(&work.data.volume).copied().unwrap_or_default();
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let facts = Facts { consistency, pause_ms, stored_bytes };
        let mut manifest = point::manifest(&work.data, together, pass, facts, work.notes);
        manifest.header.capture.stored_bytes += manifest.encode().len() as u64;
        manifests.push(manifest);
    }
    point::write(store, &manifests)?;
    traffic.epoch.fetch_add(1, Ordering::SeqCst);
    let mut captures = Vec::new();
    for (manifest, pass) in manifests.into_iter().zip(passes) {
        let path = store.stamps_path(&manifest.header.volume);
        if let Err(error) = pass.stamps.save(&path) {
            // The point exists; only the next one takes longer.
            tracing::warn!(%error, "cannot remember what was read of a volume");
        }
        captures.push(manifest.header.capture);
    }
    Ok(captures)
}

/// Makes work hold the gate to its end, also when nobody waits for it any more.
fn with_gate<T>(
    gate: &Gate,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> impl FnOnce() -> Result<T, StoreError> + Send + 'static {
    let gate = gate.clone();
    move || {
        let _gate = gate;
        work()
    }
}

/// Runs blocking work for which somebody stands still.
async fn blocking<T: Send + 'static>(
    gate: &Gate,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(with_gate(gate, work));
    done.await.unwrap_or_else(|error| {
        Err(StoreError::Refused(format!("a thread that reads the volume died: {error}")))
    })
}

/// Runs blocking work on a thread of its own that gives way to every other.
pub(crate) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (done, result) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("volume".to_owned()).spawn(move || {
        // Of this thread only, as Linux does it; and not of the pool's, which could not be taken back without rights.
        let thread = rustix::thread::gettid();
        if let Err(error) = rustix::process::setpriority_process(Some(thread), BACKGROUND_NICENESS) {
            tracing::debug!(%error, "cannot lower the priority of a thread");
        }
        // Nobody waits any more: then nobody needs it.
        let _ = done.send(work());
    });
    thread.map_err(|error| StoreError::Refused(format!("cannot start a thread: {error}")))?;
    result
        .await
        .unwrap_or_else(|_| Err(StoreError::Refused("a thread that works on volumes died".to_owned())))
}

/// Returns the files that a volume is remembered to hold.
pub(crate) fn remembered(store: &SnapshotStore, volume: &VolumeId) -> Vec<FileContent> {
    let stamps = Stamps::load(&store.stamps_path(volume));
    stamps.files.into_values().map(|known| known.file).collect()
}

fn explain(error: StoreError, attempt: &str, volume: &str) -> PortError {
    let error = PortError::from(error);
    PortError { message: format!("cannot {attempt} volume `{volume}`: {}", error.message), hint: error.hint }
}
