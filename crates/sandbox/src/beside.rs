//! What another engine on the same box shares with the sandbox, so that a service may move between them: one protocol of
//! locks, one form of logs, one way to know processes and to make them stand still.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};
use trackbed_core::InstanceId;
use trackbed_core::instance::{Listener, LogCursor, LogPage, LogStream, VolumeMount};
use trackbed_stdx::clock::now_ms;

use crate::cgroup::Cgroup;
use crate::freezer::Switch;
use crate::locks::{self, Claim};
use crate::logfile::{self, LineCutter, LogWriter};
use crate::process::{self, ProcessId};
use crate::{listening, ownership, shim};

pub use crate::folder::{End, Folder, WithVariables};
pub use crate::locks::forget_container;
pub use crate::shim::{PROGRESS, detach, report_ready};

/// The locks of an instance's volumes. Dropping them gives the volumes free.
#[derive(Debug)]
pub struct VolumeLocks(Vec<Flock<File>>);

impl VolumeLocks {
    /// Takes the lock of each volume for a container, waiting about two seconds. From now on the container counts as
    /// running, until [`VolumeLocks::name_process`] or [`forget_container`].
    ///
    /// # Errors
    /// When somebody else holds one; says who.
    pub fn take(
        instance: &InstanceId,
        title: &str,
        volumes: &[VolumeMount],
        container: &str,
    ) -> Result<VolumeLocks, String> {
        let cgroup = Cgroup::default();
        locks::take(&Claim { instance, title, volumes, cgroup, container: Some(container) }).map(VolumeLocks)
    }

    /// Writes down which process is the container's first: when that is gone, nothing of it lives.
    ///
    /// # Errors
    /// When a lock file cannot be written.
    pub fn name_process(&mut self, process: Process) -> io::Result<()> {
        locks::name_init(&mut self.0, Some(process.0))
    }

    /// As [`forget_container`], for the holder itself.
    ///
    /// # Errors
    /// When a lock file cannot be written.
    pub fn forget(&mut self, container: &str) -> io::Result<()> {
        locks::forget_own_container(&mut self.0, container)
    }
}

/// A process, told from every later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Process(ProcessId);

impl Process {
    /// Returns the process with this number, if it lives.
    pub fn of(pid: i32) -> Option<Process> {
        ProcessId::of(pid).map(Process)
    }

    /// Returns its number.
    pub fn pid(self) -> i32 {
        self.0.pid
    }

    /// Returns when it began, in the kernel's ticks since boot.
    pub fn start_time(self) -> u64 {
        self.0.start_time
    }

    /// Returns whether it runs still.
    pub fn is_alive(self) -> bool {
        self.0.is_alive()
    }

    /// Sends it a signal. One that is gone is fine.
    pub fn signal(self, signal: i32) {
        self.0.signal(signal);
    }

    /// Waits until it has ended, at most `limit`. Blocks. Returns whether it has.
    pub fn wait_gone(self, limit: Duration) -> bool {
        self.0.wait_gone(limit)
    }

    /// Waits until it has ended. Cancel-safe.
    pub async fn gone(self) {
        const LOOK: Duration = Duration::from_millis(100);
        while self.is_alive() {
            match self.0.watch_end() {
                Some(end) => drop(end.readable().await),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Returns its descendants with their process groups, parents before children.
    pub fn descendants(self) -> Vec<(Process, i32)> {
        let kin = process::descendants(self.0.pid).into_iter().filter_map(process::find_kin);
        kin.map(|kin| (Process(kin.id), kin.group)).collect()
    }

    /// Returns the TCP ports that anything in its network listens on.
    pub fn listeners(self) -> Vec<Listener> {
        listening::listeners(self.0.pid, None)
    }

    /// Finds the switch that makes its control group stand still.
    pub fn find_switch(self) -> Option<GroupSwitch> {
        self.find_group(|controllers, path| {
            let v1 = PathBuf::from("/sys/fs/cgroup/freezer").join(path);
            let v2 = PathBuf::from("/sys/fs/cgroup").join(path);
            match controllers {
                "freezer" if v1.join("freezer.state").exists() => Some(Switch::Freezer(v1)),
                "" if v2.join("cgroup.freeze").exists() => Some(Switch::Unified(v2)),
                _ => None,
            }
        })
        .map(GroupSwitch)
    }

    /// Finds where the kernel counts whom it has killed for want of memory in its control group.
    pub fn find_oom_count(self) -> Option<OomCount> {
        self.find_group(|controllers, path| {
            let v1 = Path::new("/sys/fs/cgroup/memory").join(path).join("memory.oom_control");
            let v2 = Path::new("/sys/fs/cgroup").join(path).join("memory.events");
            let is_v1 = controllers.split(',').any(|name| name == "memory");
            [(is_v1, v1), (controllers.is_empty(), v2)]
                .into_iter()
                .find_map(|(fits, file)| (fits && file.exists()).then_some(file))
        })
        .map(OomCount)
    }

    /// Looks through the groups that it is in, by controllers and path, until one fits (cgroups(7)).
    fn find_group<T>(self, fits: impl Fn(&str, &str) -> Option<T>) -> Option<T> {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", self.0.pid)).ok()?;
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
            // The root group holds the whole box.
            if path.is_empty() || path.contains("..") {
                return None;
            }
            fits(controllers, path)
        })
    }
}

/// Where kills for want of memory are counted. It goes with its group, a moment after the last process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomCount(PathBuf);

impl OomCount {
    /// The count of the whole box (proc_vmstat(5)), which holds those of all groups.
    pub fn of_box() -> OomCount {
        OomCount("/proc/vmstat".into())
    }

    /// Returns how many there were; 0 when the group is gone.
    pub fn read(&self) -> u64 {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }
}

/// The switch of a container's control group. What is frozen can be thawed without the engine that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSwitch(Switch);

impl GroupSwitch {
    /// Tells everything inside to stand still.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn freeze(&self) -> io::Result<()> {
        self.0.freeze()
    }

    /// Lets everything go on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn thaw(&self) -> io::Result<()> {
        self.0.thaw()
    }

    /// Returns whether everything inside stands still.
    pub fn is_still(&self) -> bool {
        self.0.is_still()
    }

    /// Returns whether it is on.
    pub fn is_on(&self) -> bool {
        self.0.is_on()
    }
}

/// The log of an instance, written.
pub struct Log {
    writer: LogWriter,
    cutters: [LineCutter; 2],
}

impl Log {
    /// Begins the log of a new instance in a folder that exists.
    pub fn create(folder: &Path) -> Log {
        let cutters = [LineCutter::new(LogStream::Out, None), LineCutter::new(LogStream::Err, None)];
        Log { writer: LogWriter::create(folder), cutters }
    }

    /// Takes bytes of standard error, or else of standard output; whole lines are on disk afterwards.
    pub fn feed(&mut self, is_error: bool, bytes: &[u8]) {
        let now = now_ms();
        self.cutters[usize::from(is_error)].feed(now, bytes, &mut self.writer);
        self.writer.flush(now);
    }

    /// Adds a line of Trackbed's own.
    pub fn note(&mut self, text: &str) {
        let now = now_ms();
        self.writer.line(now, LogStream::System, text.as_bytes());
        self.writer.flush(now);
    }

    /// Writes what has no line end yet: nothing more comes.
    pub fn finish(&mut self) {
        let now = now_ms();
        for cutter in &mut self.cutters {
            cutter.finish(now, &mut self.writer);
        }
        self.writer.flush(now);
    }
}

/// Reads whole lines of a log from a place on, at most `limit`.
///
/// # Errors
/// When a file cannot be read.
pub fn read_log(folder: &Path, from: LogCursor, limit: usize) -> io::Result<LogPage> {
    logfile::read(folder, from, limit)
}

/// Gives a tree to a user, unless its top already belongs to it, and tells that it goes on ([`PROGRESS`]).
///
/// # Errors
/// When the disk refuses.
pub fn ensure_owned(path: &Path, uid: u32) -> io::Result<()> {
    ownership::ensure_owned(path, uid)
}

/// Tells whoever started this process, now and then, that a long preparation goes on.
pub fn report_progress() {
    shim::report_progress();
}

/// Returns the boot's id: processes of another boot mean nothing.
pub fn boot_id() -> String {
    process::boot_id()
}

/// Returns this box's mark in names that it gives outside its data directory.
pub fn tag(data_dir: &Path) -> String {
    crate::sandbox::tag(data_dir)
}

/// Tells who holds a lock now, by the kernel and by what the holders wrote.
///
/// # Errors
/// When the lock file cannot be read.
pub fn lease(path: &Path) -> io::Result<trackbed_core::ports::VolumeLease> {
    locks::lease(path)
}

/// Returns the user that the sandbox runs a service as, by the service's number.
pub fn service_uid(number: u32) -> u32 {
    crate::sandbox::SERVICE_UID + number
}

#[cfg(test)]
mod tests {
    use trackbed_core::VolumeId;

    use super::*;

    /// As a keeper leaves it that is killed between its order to the engine and the engine's word.
    #[test]
    fn a_container_that_may_have_started_keeps_the_volume_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        let volume = VolumeMount {
            volume: VolumeId::from_random([1; trackbed_core::ids::ID_BYTES]),
            host_path: folder.path().display().to_string(),
            lock_path: lock.display().to_string(),
            mount: "/data".parse().unwrap(),
            shared: false,
        };
        let take = |id: u8, container: &str| {
            let instance = InstanceId::from_random([id; trackbed_core::ids::ID_BYTES]);
            VolumeLocks::take(&instance, "shop v1", std::slice::from_ref(&volume), container)
        };
        drop(take(1, "one").unwrap());
        assert!(lease(&lock).unwrap().is_held);
        let refused = take(2, "two").unwrap_err();
        assert!(refused.contains("its container one may still run"), "{refused}");
        forget_container(&lock, "other").unwrap();
        assert!(lease(&lock).unwrap().is_held);
        forget_container(&lock, "one").unwrap();
        assert!(!lease(&lock).unwrap().is_held);
        let mut ended = take(3, "three").unwrap();
        ended.forget("three").unwrap();
        drop(ended);
        assert!(!lease(&lock).unwrap().is_held);
        // Its first process is known, and gone.
        let mut named = take(4, "four").unwrap();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        named.name_process(process).unwrap();
        drop(named);
        assert!(lease(&lock).unwrap().is_held);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!lease(&lock).unwrap().is_held);
    }
}
