//! A data directory with one volume, for each test.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test file uses its own part"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;
use trackbed_core::ports::{CaptureOrder, PointData, Volumes};
use trackbed_core::restore_point::{Proof, ProofVerdict};
use trackbed_core::volume::Volume;
use trackbed_core::{DeploymentId, RestorePointId, ServiceId, Timestamp, VolumeId};
use trackbed_stdx::random;
use trackbed_volume::LocalVolumes;
use trackbed_volume::inspect::Inspector;

pub struct World {
    pub folder: TempDir,
    pub volumes: LocalVolumes,
    pub volume: Volume,
}

pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("trackbed-test-").tempdir_in("/var/tmp").unwrap()
}

pub fn deployment(number: u8) -> DeploymentId {
    DeploymentId::from_random([number; 10])
}

fn volume(name: &str) -> Volume {
    let (id, service) = (VolumeId::from_random(random::bytes()), ServiceId::from_random([2; 10]));
    Volume::new(id, service, name.parse().unwrap(), "/data".parse().unwrap(), Timestamp(0))
}

impl World {
    pub async fn new() -> Self {
        Self::make(folder()).await
    }

    pub async fn below(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        Self::make(tempfile::tempdir_in(path).unwrap()).await
    }

    async fn make(folder: TempDir) -> Self {
        let inspector = Inspector::by(env!("CARGO_BIN_EXE_volume-look-into"));
        let volumes = LocalVolumes::new(folder.path()).with_inspector(inspector).keep_free(0);
        let volume = volume("data");
        volumes.ensure(&volume).await.unwrap();
        Self { folder, volumes, volume }
    }

    pub fn another(&self) -> Volume {
        volume("copy")
    }

    pub fn data(&self) -> PathBuf {
        self.volumes.place(&self.volume.id).directory
    }

    pub fn home(&self) -> PathBuf {
        self.data().parent().unwrap().to_owned()
    }

    pub async fn capture(&self) -> PointData {
        let point = RestorePointId::from_random(random::bytes());
        let order = CaptureOrder { volume: self.volume.clone(), point: point.clone() };
        self.volumes.capture(&[order], None).await.unwrap();
        PointData { volume: self.volume.id.clone(), point }
    }

    pub fn sql(&self, sql: &str) {
        Connection::open(self.data().join("app.db")).unwrap().execute_batch(sql).unwrap();
    }

    pub fn manifest(&self, point: &PointData) -> PathBuf {
        let points = self.folder.path().join("snapshots/points").join(point.volume.as_str());
        points.join(format!("{}.manifest", point.point))
    }

    pub fn content(&self, point: &PointData) -> PathBuf {
        self.manifest(point).with_file_name(format!("{}.content.json", point.point))
    }

    pub fn packs(&self) -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(self.folder.path().join("snapshots/packs")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|end| end == "pack")).collect()
    }

    /// Waits until nothing is left of what was looked at.
    pub async fn scratch_is_empty(&self) -> bool {
        let is_empty = || match fs::read_dir(self.folder.path().join("scratch")) {
            Ok(entries) => entries.count() == 0,
            Err(_) => true,
        };
        let waited = async {
            while !is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), waited).await.is_ok()
    }
}

pub fn proven(proof: &Proof) -> (u64, u64) {
    match &proof.verdict {
        ProofVerdict::Proven { databases, rows } => (*databases, *rows),
        ProofVerdict::Broken { reason } | ProofVerdict::Unknown { reason } => panic!("broken: {reason}"),
    }
}

pub fn broken(proof: &Proof) -> String {
    match &proof.verdict {
        ProofVerdict::Broken { reason } => reason.clone(),
        other @ (ProofVerdict::Proven { .. } | ProofVerdict::Unknown { .. }) => panic!("{other:?}"),
    }
}

/// Bytes that do not repeat.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// All entries by path, each with mode, time and a sum of what it holds.
pub fn tree(root: &Path) -> Vec<(Vec<u8>, String)> {
    let (mut all, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let holds = if metadata.is_dir() {
                folders.push(path.clone());
                String::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if metadata.file_type().is_fifo() {
                "pipe".into()
            } else {
                trackbed_stdx::program::digest(&path).unwrap()
            };
            let told =
                format!("{:o} {}.{} {holds}", metadata.mode(), metadata.mtime(), metadata.mtime_nsec());
            all.push((path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), told));
        }
    }
    all.sort();
    all
}

/// A disk of its own that is soon full.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts it, as root; else none.
    pub fn mount(bytes: u64) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let folder = folder();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},nr_inodes=0"), "none"])
            .arg(folder.path())
            .status()
            .unwrap();
        mounted.success().then_some(Self(folder))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
