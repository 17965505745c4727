//! The locks of an instance's volumes: two writers are impossible, whatever the control plane believes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};
use trackbed_core::instance::VolumeMount;
use trackbed_stdx::files;

use crate::records::Order;

const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// What stands in a lock file: who held it last.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Holder {
    instance: String,
    title: String,
    pid: u32,
    /// Grows with each holder, so that a late writer elsewhere can be told from the present one.
    fence: u64,
}

/// Takes the lock of each volume, waiting about two seconds.
pub(crate) fn take(order: &Order) -> Result<Vec<Flock<File>>, String> {
    let mut locks: Vec<Flock<File>> = Vec::new();
    let mut volumes: Vec<&VolumeMount> = order.volumes.iter().collect();
    // Always in the same order, so that two instances cannot wait for each other.
    volumes.sort_by(|a, b| a.lock_path.cmp(&b.lock_path));
    for volume in volumes {
        locks.push(take_one(order, volume)?);
    }
    Ok(locks)
}

fn take_one(order: &Order, volume: &VolumeMount) -> Result<Flock<File>, String> {
    let path = Path::new(&volume.lock_path);
    for attempt in 0..ATTEMPTS {
        match files::try_lock(path) {
            Ok(Some(lock)) => return sign(lock, order).map_err(|error| failure(volume, &error.to_string())),
            Ok(None) if attempt + 1 < ATTEMPTS => std::thread::sleep(PAUSE),
            Ok(None) => {}
            Err(error) => return Err(failure(volume, &format!("{}: {error}", volume.lock_path))),
        }
    }
    let holder = std::fs::read(path).ok().map(|bytes| parse(&bytes)).unwrap_or_default();
    let by = if holder.title.is_empty() { "another process".to_owned() } else { holder.title };
    Err(format!(
        "volume {} at {} is in use by {by} ({}, pid {}); stop it first",
        volume.volume,
        volume.mount.as_str(),
        holder.instance,
        holder.pid
    ))
}

fn failure(volume: &VolumeMount, why: &str) -> String {
    format!("cannot lock volume {} at {}: {why}", volume.volume, volume.mount.as_str())
}

fn parse(bytes: &[u8]) -> Holder {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn sign(mut lock: Flock<File>, order: &Order) -> std::io::Result<Flock<File>> {
    let mut text = Vec::new();
    lock.read_to_end(&mut text)?;
    let holder = Holder {
        instance: order.id.to_string(),
        title: order.title.clone(),
        pid: std::process::id(),
        fence: parse(&text).fence + 1,
    };
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    lock.write_all(&serde_json::to_vec(&holder)?)?;
    Ok(lock)
}
