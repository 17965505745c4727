//! Removing points that are not kept any more, and what only they used.
//!
//! First the manifests go, then packs of which nothing is needed, then packs of which little is needed are written anew.
//! At every moment each kept point has all its chunks in packs with an index: a new pack is durable before an old index
//! goes, and an index goes before its pack.

mod mark;
mod strays;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use trackbed_core::VolumeId;
use trackbed_core::ports::{Collected, PointData, PortError};
use trackbed_stdx::files;

use self::sweep::Plan;
use crate::capture::{Traffic, in_background};
use crate::chunk_store::{SnapshotStore, StoreError};
use crate::crash;
use crate::place::LocalVolumes;

/// How long a collection waits for captures to end, each time.
const GATE_WAIT: Duration = Duration::from_secs(10 * 60);

/// Removes what is not to be kept.
pub(crate) async fn collect(volumes: &LocalVolumes, keep: &[PointData]) -> Result<Collected, PortError> {
    let keep: HashSet<PointData> = keep.iter().cloned().collect();
    let store = volumes.store.clone();
    // Before any wait: what is captured meanwhile is nobody's to remove.
    let began = Instant::now();
    let listed = in_background(move || list(&store)).await.map_err(explain)?;
    let captured = volumes.traffic.captured_since(began);
    let is_old = |data: &PointData| !keep.contains(data) && !captured.contains(data);
    let old: Vec<PointData> = listed.into_iter().filter(is_old).collect();
    let (store, places) = (volumes.store.clone(), volumes.clone());
    let mut collected = alone(volumes, move |_| {
        let mut collected = remove_points(&store, &old)?;
        collected.freed_bytes += strays::remove(&store, |volume| places.place(volume).directory.is_dir())?;
        Ok(collected)
    })
    .await?;
    // A pack at a time, so that a capture never waits for more than one.
    let mut plan = Plan::default();
    loop {
        let store = volumes.store.clone();
        let (freed_bytes, rest) = alone(volumes, move |traffic| {
            // What was captured or read ahead since may need what nobody needed before.
            let epoch = traffic.epoch.load(Ordering::SeqCst);
            if plan.epoch() != Some(epoch) {
                let ahead = traffic.ahead.lock().unwrap_or_else(PoisonError::into_inner);
                let ahead: Vec<VolumeId> = ahead.keys().cloned().collect();
                plan = Plan::make(&store, epoch, &ahead)?;
            }
            Ok((plan.step()?, plan))
        })
        .await?;
        collected.freed_bytes += freed_bytes;
        plan = rest;
        if plan.is_done() {
            collected.unreadable = plan.unreadable;
            return Ok(collected);
        }
    }
}

/// Runs a piece of a collection while no capture is under way.
async fn alone<T: Send + 'static>(
    volumes: &LocalVolumes,
    work: impl FnOnce(&Traffic) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, PortError> {
    let gate = timeout(GATE_WAIT, volumes.traffic.gate.clone().write_owned()).await;
    let gate = gate.map_err(|_| {
        PortError::new("cannot remove old restore points: captures have been under way for ten minutes")
    })?;
    let traffic = volumes.traffic.clone();
    let worked = in_background(move || {
        let _gate = gate;
        work(&traffic)
    });
    worked.await.map_err(explain)
}

fn explain(error: StoreError) -> PortError {
    let error = PortError::from(error);
    PortError { message: format!("cannot remove old restore points: {}", error.message), hint: error.hint }
}

/// Returns all points that exist.
fn list(store: &SnapshotStore) -> Result<Vec<PointData>, StoreError> {
    let mut points = Vec::new();
    for volume in names_in(&store.points())? {
        let Ok(id) = volume.parse::<VolumeId>() else { continue };
        for name in names_in(&store.points().join(&volume))? {
            let point = name.strip_suffix(".manifest").and_then(|point| point.parse().ok());
            points.extend(point.map(|point| PointData { volume: id.clone(), point }));
        }
    }
    Ok(points)
}

/// Returns the names in a folder that are text; none when there is no such folder.
fn names_in(folder: &Path) -> Result<Vec<String>, StoreError> {
    let failed = |error| StoreError::disk("list", folder, error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

fn remove_points(store: &SnapshotStore, old: &[PointData]) -> Result<Collected, StoreError> {
    let mut collected = Collected::default();
    let mut folders = HashSet::new();
    for data in old {
        let manifest = store.manifest_path(data);
        collected.freed_bytes += remove_file(&manifest)?;
        collected.freed_bytes += remove_file(&store.content_path(data))?;
        collected.points += 1;
        folders.extend(manifest.parent().map(Path::to_owned));
        crash::point("a manifest removed");
    }
    // Durable before any chunk goes: a manifest that comes back after a crash would name what is not there.
    for folder in folders {
        files::sync_folder(&folder).map_err(|error| StoreError::disk("write the folder", &folder, error))?;
        // Only when it is empty.
        let _ = fs::remove_dir(&folder);
    }
    Ok(collected)
}

/// Removes a file and returns its size; one that is gone has none.
fn remove_file(path: &Path) -> Result<u64, StoreError> {
    let bytes = fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
    match fs::remove_file(path) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::disk("remove", path, error)),
    }
}
