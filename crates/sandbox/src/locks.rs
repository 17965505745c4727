//! The locks of an instance's volumes: two writers are impossible, whatever the control plane believes.
//!
//! The kernel closes the files of a dying init, and with them the lock, before it has ended the rest of the sandbox; a
//! process that is frozen or waits for a disk may outlive both for long. So a lock that is free is not enough: whoever
//! takes it looks whether anything of the holder before lives.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, fcntl};
use serde::{Deserialize, Serialize};
use trackbed_core::InstanceId;
use trackbed_core::instance::VolumeMount;
use trackbed_core::ports::{LeaseHolder, VolumeLease};
use trackbed_stdx::files;

use crate::cgroup::Cgroup;
use crate::process::{self, ProcessId};

const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);
/// A record fills a multiple of this, so that the next one is written over it and needs no more room.
const RECORD_BYTES: usize = 1024;

/// What stands in a lock file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// Who took it last.
    #[serde(flatten)]
    latest: Holder,
    /// Those who shared it with the latest when that took it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    beside: Vec<Holder>,
}

/// Who holds, or held, a lock.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
    /// Whether others that say the same may hold it, too.
    shared: bool,
    /// The container that is about to write there, until its first process is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
}

/// Who wants the locks of which volumes.
pub(crate) struct Claim<'a> {
    pub(crate) instance: &'a InstanceId,
    /// For people: `assistant v3`.
    pub(crate) title: &'a str,
    pub(crate) volumes: &'a [VolumeMount],
    /// The group of its processes; empty where another engine makes one.
    pub(crate) cgroup: Cgroup,
    /// The name of its container, where another engine runs it.
    pub(crate) container: Option<&'a str>,
}

impl Record {
    fn all(&self) -> impl Iterator<Item = &Holder> {
        std::iter::once(&self.latest).chain(&self.beside)
    }

    fn names(&self, container: &str) -> bool {
        self.all().any(|holder| holder.container.as_deref() == Some(container))
    }

    /// Returns whether anybody lives who keeps a new holder out.
    fn keeps_out(&self, shared: bool) -> bool {
        self.all().any(|holder| !(holder.shared && shared) && holder.lives())
    }
}

impl Holder {
    /// Returns whether it lives, or is on its way: its shim lives, and has not named an init yet.
    fn is_living(&self) -> bool {
        let shim = i32::try_from(self.pid).ok().and_then(ProcessId::of);
        let begins = self.init.is_none() && self.boot_id == process::boot_id() && shim.is_some();
        begins || self.lives()
    }

    /// Returns whether anything of it lives still.
    fn lives(&self) -> bool {
        // A container may run from the moment on in which its engine was asked for it.
        let may_run = self.container.is_some() && self.init.is_none();
        self.boot_id == process::boot_id()
            && (may_run || self.init.is_some_and(ProcessId::is_alive) || !self.cgroup.pids().is_empty())
    }
}

/// Takes the lock of each volume, waiting about two seconds.
pub(crate) fn take(claim: &Claim<'_>) -> Result<Vec<Flock<File>>, String> {
    let mut locks: Vec<Flock<File>> = Vec::new();
    let mut volumes: Vec<&VolumeMount> = claim.volumes.iter().collect();
    // Always in the same order, so that two instances cannot wait for each other.
    volumes.sort_by(|a, b| a.lock_path.cmp(&b.lock_path));
    for volume in volumes {
        locks.push(take_one(claim, volume)?);
    }
    Ok(locks)
}

/// Forgets a container of which nothing lives: its engine has removed it, and nobody can start it any more. A lock file
/// without it is fine. Blocks for up to two seconds.
///
/// # Errors
/// When the lock file cannot be written.
pub fn forget_container(path: &Path, container: &str) -> std::io::Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    // As one of several, so that others who share the volume are not in the way.
    let mut lock = None;
    for _ in 0..ATTEMPTS {
        lock = files::try_lock_shared(path)?;
        if lock.is_some() {
            break;
        }
        // Whoever has it has looked at the record before.
        if !parse(&std::fs::read(path)?).names(container) {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    let Some(mut lock) = lock else { return Err(Errno::EBUSY.into()) };
    alone(&mut lock, |lock| forget(lock, container))
}

/// Adds its init to the record of a holder, before that begins.
pub(crate) fn name_init(locks: &mut [Flock<File>], init: Option<ProcessId>) -> std::io::Result<()> {
    for lock in locks {
        alone(lock, |lock| {
            let (mut record, text) = read(lock)?;
            let own = std::process::id();
            let Record { latest, beside } = &mut record;
            if let Some(holder) = std::iter::once(latest).chain(beside).find(|holder| holder.pid == own) {
                holder.init = init;
            }
            write(lock, &record, &text)
        })?;
    }
    Ok(())
}

/// Forgets the container of a holder itself, of which nothing lives.
pub(crate) fn forget_own_container(locks: &mut [Flock<File>], container: &str) -> std::io::Result<()> {
    locks.iter_mut().try_for_each(|lock| alone(lock, |lock| forget(lock, container)))
}

fn forget(lock: &mut Flock<File>, container: &str) -> std::io::Result<()> {
    let (mut record, text) = read(lock)?;
    if !record.names(container) {
        return Ok(());
    }
    let Record { latest, beside } = &mut record;
    for holder in std::iter::once(latest).chain(beside) {
        if holder.container.as_deref() == Some(container) {
            holder.container = None;
        }
    }
    write(lock, &record, &text)
}

fn take_one(claim: &Claim<'_>, volume: &VolumeMount) -> Result<Flock<File>, String> {
    let path = Path::new(&volume.lock_path);
    let mut lock = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        if lock.is_none() {
            lock = if volume.shared { files::try_lock_shared(path) } else { files::try_lock(path) }
                .map_err(|error| failure(volume, &format!("{}: {error}", volume.lock_path)))?;
        }
        if let Some(mut free) = lock.take() {
            let signed = alone(&mut free, |free| sign(free, claim, volume.shared));
            if signed.map_err(|error| failure(volume, &error.to_string()))? {
                return Ok(free);
            }
            lock = Some(free);
        }
    }
    let Record { latest: holder, .. } =
        std::fs::read(path).ok().map(|bytes| parse(&bytes)).unwrap_or_default();
    let by = if holder.title.is_empty() { "another process".to_owned() } else { holder.title };
    let advice = match (lock, &holder.container) {
        (None, _) => "stop it first".to_owned(),
        (Some(_), Some(container)) => {
            format!(
                "its supervisor is gone, and its container {container} may still run: the container engine must answer"
            )
        }
        (Some(_), None) => "its supervisor is gone, but the kernel has not ended its processes".to_owned(),
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

fn parse(bytes: &[u8]) -> Record {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn read(lock: &mut Flock<File>) -> std::io::Result<(Record, Vec<u8>)> {
    let mut text = Vec::new();
    lock.seek(SeekFrom::Start(0))?;
    lock.read_to_end(&mut text)?;
    Ok((parse(&text), text))
}

/// Writes a new holder into the record, unless somebody lives who keeps it out.
fn sign(lock: &mut Flock<File>, claim: &Claim<'_>, shared: bool) -> std::io::Result<bool> {
    let (before, text) = read(lock)?;
    if before.keeps_out(shared) {
        return Ok(false);
    }
    let latest = Holder {
        instance: claim.instance.to_string(),
        title: claim.title.to_owned(),
        pid: std::process::id(),
        fence: before.latest.fence + 1,
        boot_id: process::boot_id(),
        init: None,
        cgroup: claim.cgroup.clone(),
        shared,
        container: claim.container.map(str::to_owned),
    };
    let beside = before.all().filter(|holder| holder.is_living()).cloned().collect();
    write(lock, &Record { latest, beside }, &text)?;
    Ok(true)
}

/// Does something with the record that others who share the lock must not do at the same time (fcntl(2), open file
/// description locks, which know nothing of flock(2)).
fn alone<T>(
    lock: &mut Flock<File>,
    work: impl FnOnce(&mut Flock<File>) -> std::io::Result<T>,
) -> std::io::Result<T> {
    let mut whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let mut attempt = 0;
    while let Err(errno) = fcntl(&**lock, FcntlArg::F_OFD_SETLK(&whole)) {
        attempt += 1;
        if attempt == ATTEMPTS || !matches!(errno, Errno::EAGAIN | Errno::EACCES) {
            return Err(errno.into());
        }
        std::thread::sleep(PAUSE);
    }
    let done = work(lock);
    whole.l_type = libc::F_UNLCK as libc::c_short;
    fcntl(&**lock, FcntlArg::F_OFD_SETLK(&whole))?;
    done
}

/// Tells who holds a lock now, by the kernel and by what the holders wrote. A lock that is free is taken for a moment,
/// which others who want it wait out.
pub(crate) fn lease(path: &Path) -> std::io::Result<VolumeLease> {
    if !path.is_file() {
        return Ok(VolumeLease::default());
    }
    let free = files::try_lock(path)?;
    let record = parse(&std::fs::read(path)?);
    let holds = |holder: &&Holder| match free {
        // What is left of it may write still.
        Some(_) => holder.lives(),
        None => holder.is_living(),
    };
    let holders: Vec<LeaseHolder> = record
        .all()
        .filter(holds)
        .filter_map(|holder| {
            let instance = holder.instance.parse().ok()?;
            Some(LeaseHolder { instance, title: holder.title.clone(), shared: holder.shared })
        })
        .collect();
    Ok(VolumeLease { fence: record.latest.fence, is_held: free.is_none() || !holders.is_empty(), holders })
}

/// Writes over the record `before`. The file is never empty in between: on a full disk the fence would be lost.
fn write(lock: &mut Flock<File>, record: &Record, before: &[u8]) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(record)?;
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
