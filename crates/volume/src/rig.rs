//! A data directory with a volume, and writers that stand still, for the tests of this crate.
#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trackbed_core::ports::{CaptureOrder, Collected, Freezer, Frozen, PointData, PortError, Volumes};
use trackbed_core::restore_point::Capture;
use trackbed_core::volume::Volume;
use trackbed_core::{RestorePointId, ServiceId, Timestamp, VolumeId};
use trackbed_stdx::{clock, random};

use crate::chunk_store::CHUNK_BYTES;
use crate::manifest::{Kind, Manifest};
use crate::place::LocalVolumes;

/// A data directory with one volume.
pub(crate) struct Rig {
    pub(crate) volumes: LocalVolumes,
    pub(crate) volume: Volume,
    pub(crate) data_dir: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut rig = Self::at(folder.path()).await;
        rig._folder = Some(folder);
        rig
    }

    /// In a directory that outlives it; the volume is always the same one.
    pub(crate) async fn at(data_dir: &Path) -> Self {
        let volumes = LocalVolumes::new(data_dir);
        let volume = volume(1);
        volumes.ensure(&volume).await.unwrap();
        Self { volumes, volume, data_dir: data_dir.to_owned(), _folder: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.volumes.place(&self.volume.id).directory.join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn point(&self) -> PointData {
        PointData { volume: self.volume.id.clone(), point: RestorePointId::from_random(random::bytes()) }
    }

    pub(crate) fn order(&self, data: &PointData) -> CaptureOrder {
        CaptureOrder { volume: self.volume.clone(), point: data.point.clone() }
    }

    /// Captures while nobody writes.
    pub(crate) async fn capture(&self) -> (PointData, Capture) {
        let data = self.point();
        let captured = self.volumes.capture(&[self.order(&data)], None).await.unwrap();
        (data, captured[0].clone())
    }

    pub(crate) async fn capture_with(
        &self,
        freezer: &dyn Freezer,
    ) -> Result<(PointData, Capture), PortError> {
        let data = self.point();
        let captured = self.volumes.capture(&[self.order(&data)], Some(freezer)).await?;
        Ok((data, captured[0].clone()))
    }

    pub(crate) async fn collect(&self, keep: &[&PointData]) -> Collected {
        let keep: Vec<PointData> = keep.iter().map(|data| (*data).clone()).collect();
        self.volumes.collect(&keep).await.unwrap()
    }

    pub(crate) fn manifest(&self, data: &PointData) -> Manifest {
        self.volumes.store.manifest(data).unwrap().unwrap()
    }

    /// Returns every file of a point with its bytes, or what is wrong with it.
    pub(crate) fn try_read(&self, data: &PointData) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
        let missing = || format!("no point {}", data.point);
        let manifest = self.volumes.store.manifest(data).map_err(|e| e.to_string())?.ok_or_else(missing)?;
        let reader = self.volumes.store.reader().map_err(|e| e.to_string())?;
        let (mut files, mut chunk) = (BTreeMap::new(), Vec::new());
        for entry in manifest.entries {
            let Kind::File(file) = entry.kind else { continue };
            let mut bytes = Vec::new();
            for extent in reader.recipe(file.size, file.content.as_ref()).map_err(|e| e.to_string())? {
                assert_eq!(extent.offset, bytes.len() as u64);
                match extent.chunk {
                    Some(id) => {
                        reader.chunk(&id, &mut chunk).map_err(|e| e.to_string())?;
                        assert_eq!(extent.length, chunk.len() as u64);
                        bytes.extend_from_slice(&chunk);
                    }
                    None => bytes.resize(bytes.len() + usize::try_from(extent.length).unwrap(), 0),
                }
            }
            assert_eq!(bytes.len() as u64, file.size);
            files.insert(entry.path, bytes);
        }
        Ok(files)
    }

    pub(crate) fn read(&self, data: &PointData) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.try_read(data).unwrap()
    }

    /// Returns files of the store with this ending, by folder below `snapshots`.
    pub(crate) fn stored(&self, folder: &str, ending: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.data_dir.join("snapshots").join(folder)) else {
            return Vec::new();
        };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.to_string_lossy().ends_with(ending));
        paths.sort();
        paths
    }

    /// Returns all points of the volume, in the order of their ids.
    pub(crate) fn points(&self) -> Vec<PointData> {
        let manifests = self.stored(&format!("points/{}", self.volume.id), ".manifest");
        let point = |path: &PathBuf| PointData {
            volume: self.volume.id.clone(),
            point: path.file_stem().unwrap().to_str().unwrap().parse().unwrap(),
        };
        manifests.iter().map(point).collect()
    }

    pub(crate) fn pack_bytes(&self) -> u64 {
        self.stored("packs", ".pack").iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    }

    /// Lets every file look as if nobody had written to it for long. What cannot be set back is waited for.
    pub(crate) fn age(&self) {
        let old = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for path in files_below(&self.path("")) {
            fs::File::open(&path).unwrap().set_modified(old).unwrap();
        }
        let set = clock::now_ms();
        wait_for("the changes to be old enough", || clock::now_ms() > set + 100);
    }
}

pub(crate) fn volume(number: u8) -> Volume {
    let (id, service) = (VolumeId::from_random([number; 10]), ServiceId::from_random([2; 10]));
    Volume::new(id, service, "data".parse().unwrap(), "/data".parse().unwrap(), Timestamp(0))
}

pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}

pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Bytes that do not pack, the same for the same seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

pub(crate) const CHUNK: usize = CHUNK_BYTES;

/// A freezer of writers that the test plays itself.
pub(crate) struct Scripted {
    /// Done at each freeze, before the writers stand still.
    pub(crate) before: Box<dyn Fn() + Send + Sync>,
    /// Freezes that end too early.
    pub(crate) broken: Mutex<usize>,
}

impl Scripted {
    pub(crate) fn new(before: impl Fn() + Send + Sync + 'static) -> Self {
        Self { before: Box::new(before), broken: Mutex::new(0) }
    }
}

struct Still(bool, Instant);

#[async_trait]
impl Freezer for Scripted {
    async fn freeze(&self) -> Result<Box<dyn Frozen>, PortError> {
        (self.before)();
        let mut broken = self.broken.lock().unwrap();
        let is_broken = *broken > 0;
        *broken = broken.saturating_sub(1);
        Ok(Box::new(Still(is_broken, Instant::now())))
    }
}

#[async_trait]
impl Frozen for Still {
    async fn thaw(self: Box<Self>) -> Result<Duration, PortError> {
        if self.0 { Err(PortError::new("let go too early")) } else { Ok(self.1.elapsed()) }
    }
}

/// A program that writes to a volume, and stands still by SIGSTOP.
pub(crate) struct Writer {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Writer {
    pub(crate) fn python(script: &str, argument: &Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(argument).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is needed for writers in tests");
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    /// Sends a line and waits for the answer.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        let to = self.to.as_mut().unwrap();
        writeln!(to, "{line}").unwrap();
        to.flush().unwrap();
        self.line()
    }

    pub(crate) fn line(&mut self) -> String {
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    pub(crate) fn freezer(&self) -> Stopper {
        Stopper(Pid::from_raw(self.child.id().try_into().unwrap()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stops a process, and lets it go on.
pub(crate) struct Stopper(Pid);

struct Stopped(Pid, Instant);

#[async_trait]
impl Freezer for Stopper {
    async fn freeze(&self) -> Result<Box<dyn Frozen>, PortError> {
        let began = Instant::now();
        kill(self.0, Signal::SIGSTOP).unwrap();
        let stat = format!("/proc/{}/stat", self.0);
        wait_for("the writer to stop", || {
            let stat = fs::read_to_string(&stat).unwrap();
            stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
        });
        Ok(Box::new(Stopped(self.0, began)))
    }
}

#[async_trait]
impl Frozen for Stopped {
    async fn thaw(self: Box<Self>) -> Result<Duration, PortError> {
        kill(self.0, Signal::SIGCONT).unwrap();
        Ok(self.1.elapsed())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
