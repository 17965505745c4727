//! Stages: data of a point beside a volume, complete and checked before `staged.json` says so.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};
use trackbed_core::ports::{Depth, PointData, PortError, Staged, VolumePlace};
use trackbed_core::volume::Volume;
use trackbed_core::{DeploymentId, RestorePointId, VolumeId};
use trackbed_stdx::{files, random};

use super::check::{self, Fault, Record};
use super::fill::{self, FillError, Filling, Owner};
use super::swap::{self, Exchange, FolderId, Way, stage_folder};
use super::{lock, space};
use crate::inspect::{Inspected, LookError, Priority};
use crate::manifest::Manifest;
use crate::place::LocalVolumes;

/// What `staged.json` says: written last, so what it names is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StagedRecord {
    volume: VolumeId,
    point: RestorePointId,
    has_content: bool,
    folder: FolderId,
    files: u64,
    bytes: u64,
    rows: u64,
}

/// The stage that a new volume is filled by.
const CLONE: &str = "clone";
const STAGED: &str = "staged.json";

/// A stage of a volume.
#[derive(Debug, Clone)]
struct Stage {
    volume: VolumePlace,
    volume_name: String,
    name: String,
    folder: PathBuf,
}

/// Tells threads that nobody waits for them any more.
pub(super) struct GiveUp(pub(super) Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs work that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(PortError::new(format!("the work on a volume ended badly: {error}"))))
}

impl Stage {
    fn new(volume: VolumePlace, volume_name: String, name: &str) -> Result<Self, PortError> {
        let parent = volume.directory.parent().ok_or_else(|| PortError::new("a volume needs a folder"))?;
        let folder = stage_folder(parent, name);
        Ok(Self { volume, volume_name, name: name.to_owned(), folder })
    }

    fn home(&self) -> &Path {
        self.volume.directory.parent().unwrap_or(&self.volume.directory)
    }

    fn place(&self) -> VolumePlace {
        VolumePlace { directory: self.folder.join("data"), lock: self.folder.join("lock") }
    }

    fn error(&self, attempt: &str, error: &io::Error) -> PortError {
        PortError::new(format!("cannot {attempt} volume `{}`: {error}", self.volume_name))
    }

    fn record(&self) -> io::Result<Option<StagedRecord>> {
        match fs::read(self.folder.join(STAGED)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn lock(&self) -> Result<Flock<fs::File>, PortError> {
        lock::take(&self.place().lock, &format!("the staged data for volume `{}`", self.volume_name))
    }

    /// Makes the stage ready to be filled, or finds it filled with just this.
    fn begin(&self, point: &PointData, depth: Depth) -> Result<Begun, PortError> {
        let failed = |error: &io::Error| self.error("make a stage for", error);
        let make = || {
            let stages = self.folder.parent().unwrap_or(&self.folder);
            fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.folder)?;
            files::sync_folder(stages)?;
            files::sync_folder(self.home())
        };
        make().map_err(|error| failed(&error))?;
        let lock = self.lock()?;
        swap::finish(self.home(), &self.volume.lock).map_err(|error| failed(&error))?;
        let data = self.place().directory;
        let was_held = lock::was_held(&self.place().lock);
        if let Some(record) = self.record().map_err(|error| failed(&error))? {
            let id = |path: &Path| FolderId::of(path).map_err(|error| failed(&error));
            let is_wanted = (&record.volume, &record.point) == (&point.volume, &point.point);
            if id(&self.volume.directory)? == Some(record.folder) {
                return match is_wanted {
                    true => Ok(Begun::Done(self.staged(&record))),
                    false => Err(PortError::new(format!(
                        "the stage {} of volume `{}` keeps the data that was replaced",
                        self.name, self.volume_name
                    ))
                    .hint("discard it first")),
                };
            }
            let is_deep_enough = record.has_content || depth == Depth::Digests;
            if is_wanted && is_deep_enough && !was_held && id(&data)? == Some(record.folder) {
                return Ok(Begun::Done(self.staged(&record)));
            }
        }
        self.clear().map_err(|error| failed(&error))?;
        fs::DirBuilder::new().mode(0o700).create(&data).map_err(|error| failed(&error))?;
        Ok(Begun::Empty(lock))
    }

    /// Throws away what is staged, the record first.
    fn clear(&self) -> io::Result<()> {
        let record = self.folder.join(STAGED);
        if record.exists() {
            fs::remove_file(&record)?;
            files::sync_folder(&self.folder)?;
        }
        for name in ["data", "look"] {
            files::remove_tree(&self.folder.join(name))?;
        }
        // What an instance wrote into it is of the data that is gone. It is free: its lock is ours.
        fs::OpenOptions::new().write(true).open(self.place().lock)?.set_len(0)
    }

    fn staged(&self, record: &StagedRecord) -> Staged {
        Staged { place: self.place(), files: record.files, bytes: record.bytes, rows: record.rows }
    }
}

enum Begun {
    Done(Staged),
    /// Locked, and its `data` is there and empty.
    Empty(Flock<fs::File>),
}

/// Returns the owner that restored files get: that of the volume's own folder, when we may give files away.
pub(super) fn owner_like(folder: &Path) -> Option<Owner> {
    let metadata = fs::metadata(folder).ok()?;
    nix::unistd::geteuid().is_root().then(|| Owner { uid: metadata.uid(), gid: metadata.gid() })
}

/// Says why data could not be restored.
pub(super) fn explain(what: &str, error: &FillError) -> PortError {
    let port = PortError::new(format!("cannot restore {what}: {error}"));
    match error {
        _ if error.is_full() => port.hint("free some disk space; nothing has changed"),
        FillError::Broken { .. } => {
            port.hint("the data of this point is broken on disk: choose an older one")
        }
        FillError::Store { .. } | FillError::Disk { .. } | FillError::GivenUp => port,
    }
}

impl From<LookError> for PortError {
    fn from(error: LookError) -> Self {
        Self::new(error.to_string())
    }
}

impl LocalVolumes {
    /// Reads the manifest of a point that has to be there.
    pub(super) fn load_manifest(&self, point: &PointData) -> Result<Manifest, PortError> {
        self.store.manifest(point)?.ok_or_else(|| {
            PortError::new(format!("there is no data of point {} on this box", point.point))
                .hint("choose another one")
        })
    }

    pub(crate) async fn stage_point(
        &self,
        volume: &Volume,
        point: &PointData,
        stage: &DeploymentId,
        depth: Depth,
    ) -> Result<Staged, PortError> {
        let stage = Stage::new(self.place(&volume.id), volume.name.to_string(), stage.as_str())?;
        self.fill_stage(stage, point, depth).await
    }

    async fn fill_stage(&self, stage: Stage, point: &PointData, depth: Depth) -> Result<Staged, PortError> {
        let (own, wanted, begun) = (self.clone(), point.clone(), stage.clone());
        let (manifest, begun) = blocking(move || {
            let manifest = own.load_manifest(&wanted)?;
            Ok((Arc::new(manifest), begun.begin(&wanted, depth)?))
        })
        .await?;
        let lock = match begun {
            Begun::Done(staged) => return Ok(staged),
            Begun::Empty(lock) => lock,
        };
        let filled = self.fill_and_check(&stage, point, &manifest, depth).await;
        let (own_manifest, point) = (manifest.clone(), point.clone());
        blocking(move || {
            let sealed = filled.and_then(|rows| stage.seal(&point, &own_manifest, depth, rows));
            if sealed.is_err()
                && let Err(error) = stage.clear()
            {
                tracing::warn!(stage = %stage.folder.display(), %error, "cannot remove half-staged data");
            }
            drop(lock);
            sealed
        })
        .await
    }

    /// Fills the stage and returns the rows that were found in it.
    async fn fill_and_check(
        &self,
        stage: &Stage,
        point: &PointData,
        manifest: &Arc<Manifest>,
        depth: Depth,
    ) -> Result<u64, PortError> {
        let given_up = Arc::new(AtomicBool::new(false));
        let _guard = GiveUp(given_up.clone());
        let what = format!("point {}", point.point);
        // A journal is rolled back by the look, so what has one is looked at in a copy: what is staged stays as it was.
        let journaled = match depth {
            Depth::Content => check::with_journal(&manifest.entries),
            Depth::Digests => Vec::new(),
        };
        let (own, own_manifest, own_stage, what_filled) =
            (self.clone(), manifest.clone(), stage.clone(), what.clone());
        let copied = journaled.clone();
        blocking(move || {
            let reader = own.store.reader()?;
            let place = own_stage.place().directory;
            space::check(&place, &reader, &own_manifest.entries, own.reserve_bytes, &what_filled)?;
            let mut filling = Filling {
                reader: &reader,
                entries: &own_manifest.entries,
                owner: owner_like(&own_stage.volume.directory),
                priority: Priority::Normal,
                is_durable: true,
                is_given_up: &given_up,
            };
            fill::fill(&place, &filling).map_err(|error| explain(&what_filled, &error))?;
            if !copied.is_empty() {
                let look = own_stage.folder.join("look");
                fs::DirBuilder::new()
                    .mode(0o700)
                    .create(&look)
                    .map_err(|error| own_stage.error("stage", &error))?;
                let entries =
                    check::only_databases(&own_manifest.entries, |path| copied.iter().any(|one| one == path));
                filling.entries = &entries;
                filling.is_durable = false;
                fill::fill(&look, &filling).map_err(|error| explain(&what_filled, &error))?;
            }
            Ok(())
        })
        .await?;
        let (place, synced) = (stage.place().directory, stage.clone());
        let sync = blocking(move || {
            fill::sync_disk_of(&place).map_err(|error| synced.error("make durable the stage of", &error))
        });
        if depth == Depth::Digests {
            sync.await?;
            return Ok(0);
        }
        let (synced, found) = tokio::join!(sync, self.look(stage, &journaled));
        synced?;
        let record = Record::load(&self.store.content_path(point))
            .map_err(|error| PortError::new(format!("cannot read what {what} holds: {error}")))?;
        match check::check(&found?, record.as_ref()) {
            Ok(sound) => Ok(sound.rows),
            Err(Fault::Broken(why)) => Err(PortError::new(format!("{what} is not what it was: {why}"))
                .hint("choose an older point, or one that was proven")),
            Err(Fault::Box(why)) => Err(PortError::new(format!("cannot check {what}: {why}"))),
        }
    }

    async fn look(&self, stage: &Stage, journaled: &[Vec<u8>]) -> Result<Vec<Inspected>, PortError> {
        let skip: Vec<String> =
            journaled.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        let data = stage.place().directory;
        let mut found = self.inspector.content(&data, &skip, Priority::Normal).await?;
        if !journaled.is_empty() {
            let look = stage.folder.join("look");
            found.extend(self.inspector.content(&look, &[], Priority::Normal).await?);
        }
        Ok(found)
    }

    pub(crate) async fn swap_stage_in(&self, volume: &Volume, stage: &DeploymentId) -> Result<(), PortError> {
        let stage = Stage::new(self.place(&volume.id), volume.name.to_string(), stage.as_str())?;
        blocking(move || stage.swap_in()).await
    }

    pub(crate) async fn swap_stage_back(
        &self,
        volume: &Volume,
        stage: &DeploymentId,
    ) -> Result<(), PortError> {
        let stage = Stage::new(self.place(&volume.id), volume.name.to_string(), stage.as_str())?;
        blocking(move || stage.swap_back()).await
    }

    pub(crate) async fn discard_stage(
        &self,
        volume: &VolumeId,
        stage: &DeploymentId,
    ) -> Result<(), PortError> {
        let stage = Stage::new(self.place(volume), volume.to_string(), stage.as_str())?;
        blocking(move || stage.discard()).await
    }

    /// Fills a new volume, which has to be empty, with the data of a point, checked with [`Depth::Content`]. May be
    /// repeated, also after a crash in the middle; nobody sees a volume that is half full.
    ///
    /// # Errors
    /// When the volume holds something or somebody holds it, the point is broken or missing, or the disk refuses.
    pub async fn clone_to(&self, point: &PointData, volume: &Volume) -> Result<Staged, PortError> {
        use trackbed_core::ports::Volumes;
        let place = self.ensure(volume).await?;
        let stage = Stage::new(place, volume.name.to_string(), CLONE)?;
        let checked = stage.clone();
        blocking(move || checked.check_clone()).await?;
        let staged = self.fill_stage(stage.clone(), point, Depth::Content).await?;
        blocking(move || {
            stage.swap_in()?;
            stage.discard()?;
            Ok(Staged { place: stage.volume.clone(), ..staged })
        })
        .await
    }
}

impl Stage {
    /// Refuses to fill a volume that holds something else than what an earlier attempt put there.
    fn check_clone(&self) -> Result<(), PortError> {
        let failed = |error: io::Error| self.error("fill", &error);
        let record = self.record().map_err(failed)?;
        let is_ours = match record {
            Some(record) => FolderId::of(&self.volume.directory).map_err(failed)? == Some(record.folder),
            None => false,
        };
        let is_empty = fs::read_dir(&self.volume.directory).map_err(failed)?.next().is_none();
        if is_ours || is_empty {
            return Ok(());
        }
        Err(PortError::new(format!("volume `{}` is not empty", self.volume_name)).hint("name a new one"))
    }

    fn seal(
        &self,
        point: &PointData,
        manifest: &Manifest,
        depth: Depth,
        rows: u64,
    ) -> Result<Staged, PortError> {
        let failed = |error: io::Error| self.error("stage", &error);
        files::remove_tree(&self.folder.join("look")).map_err(failed)?;
        let data = self.place().directory;
        let folder = FolderId::of(&data).map_err(failed)?;
        let folder = folder.ok_or_else(|| failed(io::Error::other("the staged data is gone")))?;
        let record = StagedRecord {
            volume: point.volume.clone(),
            point: point.point.clone(),
            has_content: depth == Depth::Content,
            folder,
            files: manifest.header.capture.files,
            bytes: manifest.header.capture.bytes,
            rows,
        };
        let bytes = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        files::write_atomic(&self.folder.join(STAGED), &bytes, 0o600).map_err(failed)?;
        Ok(self.staged(&record))
    }

    fn lock_volume(&self) -> Result<Flock<fs::File>, PortError> {
        let lock = lock::take(&self.volume.lock, &format!("volume `{}`", self.volume_name))?;
        swap::finish_locked(self.home()).map_err(|error| self.error("finish the exchange of", &error))?;
        Ok(lock)
    }

    fn swap_in(&self) -> Result<(), PortError> {
        let failed = |error: io::Error| self.error("replace the data of", &error);
        let nothing = || {
            PortError::new(format!("nothing is staged for volume `{}` as {}", self.volume_name, self.name))
                .hint("stage it again")
        };
        let _volume = self.lock_volume()?;
        let record = self.record().map_err(failed)?.ok_or_else(nothing)?;
        if FolderId::of(&self.volume.directory).map_err(failed)? == Some(record.folder) {
            return Ok(());
        }
        if FolderId::of(&self.place().directory).map_err(failed)? != Some(record.folder) {
            return Err(nothing());
        }
        let _stage = self.lock()?;
        if lock::was_held(&self.place().lock) {
            let what = format!("an instance has run on the data that is staged for `{}`", self.volume_name);
            return Err(PortError::new(what).hint("stage it again"));
        }
        self.exchange().map_err(failed)
    }

    fn swap_back(&self) -> Result<(), PortError> {
        let failed = |error: io::Error| self.error("bring back the data of", &error);
        let _volume = self.lock_volume()?;
        let Some(record) = self.record().map_err(failed)? else { return Ok(()) };
        if FolderId::of(&self.volume.directory).map_err(failed)? != Some(record.folder) {
            return Ok(());
        }
        let _stage = self.lock()?;
        self.exchange().map_err(failed)
    }

    fn exchange(&self) -> io::Result<()> {
        Exchange { volume: self.home(), stage: &self.name, way: Way::Best, before: &|_| Ok(()) }.run()
    }

    fn discard(&self) -> Result<(), PortError> {
        let failed = |error: io::Error| self.error("discard a stage of", &error);
        let stages = self.folder.parent().unwrap_or(&self.folder);
        if self.folder.exists() {
            swap::finish(self.home(), &self.volume.lock).map_err(failed)?;
            let _stage = self.lock()?;
            let record = self.folder.join(STAGED);
            if record.exists() {
                fs::remove_file(&record).map_err(failed)?;
                files::sync_folder(&self.folder).map_err(failed)?;
            }
            let tail: String = random::bytes::<6>().iter().map(|byte| format!("{byte:02x}")).collect();
            fs::rename(&self.folder, stages.join(format!("{GONE}{tail}"))).map_err(failed)?;
            files::sync_folder(stages).map_err(failed)?;
        }
        for entry in fs::read_dir(stages).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(GONE) {
                files::remove_tree(&entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// How the name of a stage begins that is being removed.
const GONE: &str = ".gone-";
