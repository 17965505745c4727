//! The locks of an instance's volumes: two writers are impossible, whatever the control plane believes.
//!
//! The kernel closes the files of a dying init, and with them the lock, before it has ended the rest of the sandbox; a
//! process that is frozen or waits for a disk may outlive both for long. So a lock that is free is not enough: whoever
//! takes it looks whether anything of the holder before lives.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};
use trackbed_core::instance::VolumeMount;
use trackbed_stdx::files;

use crate::cgroup::Cgroup;
use crate::process::{self, ProcessId};
use crate::records::Order;

const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);
/// A record fills a multiple of this, so that the next one is written over it and needs no more room.
const RECORD_BYTES: usize = 1024;

/// What stands in a lock file: who held it last.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Holder {
    instance: String,
    title: String,
    pid: u32,
    /// Grows with each holder, so that a late writer elsewhere can be told from the present one.
    fence: u64,
    boot_id: String,
    init: Option<ProcessId>,
    cgroup: Cgroup,
}

impl Holder {
    /// Returns whether anything of it lives still.
    fn lives(&self) -> bool {
        self.boot_id == process::boot_id()
            && (self.init.is_some_and(ProcessId::is_alive) || !self.cgroup.pids().is_empty())
    }
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

/// Adds its init to the record of a holder, before that begins.
pub(crate) fn name_init(locks: &mut [Flock<File>], init: Option<ProcessId>) -> std::io::Result<()> {
    for lock in locks {
        let (holder, text) = read(lock)?;
        write(lock, &Holder { init, ..holder }, &text)?;
    }
    Ok(())
}

fn take_one(order: &Order, volume: &VolumeMount) -> Result<Flock<File>, String> {
    let path = Path::new(&volume.lock_path);
    let mut lock = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        if lock.is_none() {
            lock = files::try_lock(path)
                .map_err(|error| failure(volume, &format!("{}: {error}", volume.lock_path)))?;
        }
        if let Some(mut free) = lock.take() {
            let (holder, text) = read(&mut free).map_err(|error| failure(volume, &error.to_string()))?;
            if !holder.lives() {
                sign(&mut free, order, &holder, &text)
                    .map_err(|error| failure(volume, &error.to_string()))?;
                return Ok(free);
            }
            lock = Some(free);
        }
    }
    let holder = std::fs::read(path).ok().map(|bytes| parse(&bytes)).unwrap_or_default();
    let by = if holder.title.is_empty() { "another process".to_owned() } else { holder.title };
    let advice = match lock {
        None => "stop it first",
        Some(_) => "its supervisor is gone, but the kernel has not ended its processes",
    };
    Err(format!(
        "volume {} at {} is in use by {by} ({}, pid {}); {advice}",
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

fn read(lock: &mut Flock<File>) -> std::io::Result<(Holder, Vec<u8>)> {
    let mut text = Vec::new();
    lock.seek(SeekFrom::Start(0))?;
    lock.read_to_end(&mut text)?;
    Ok((parse(&text), text))
}

fn sign(lock: &mut Flock<File>, order: &Order, before: &Holder, text: &[u8]) -> std::io::Result<()> {
    let holder = Holder {
        instance: order.id.to_string(),
        title: order.title.clone(),
        pid: std::process::id(),
        fence: before.fence + 1,
        boot_id: process::boot_id(),
        init: None,
        cgroup: order.cgroup.clone(),
    };
    write(lock, &holder, text)
}

/// Writes over the record `before`. The file is never empty in between: on a full disk the fence would be lost.
fn write(lock: &mut Flock<File>, holder: &Holder, before: &[u8]) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(holder)?;
    // White space may follow a JSON value.
    text.resize(text.len().next_multiple_of(RECORD_BYTES), b' ');
    lock.seek(SeekFrom::Start(0))?;
    if let Err(error) = lock.write_all(&text) {
        lock.seek(SeekFrom::Start(0))?;
        lock.write_all(before)?;
        lock.set_len(before.len() as u64)?;
        return Err(error);
    }
    lock.set_len(text.len() as u64)
}
