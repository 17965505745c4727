//! Control groups, v1 (or hybrid) and v2, by plain files. Where a controller is missing, the rest still works.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trackbed_core::instance::{InstanceKind, InstanceStats};
use trackbed_core::settings::Limits;

use crate::freezer::Switch;

const MOUNT: &str = "/sys/fs/cgroup";
/// Controllers that we use on v1. `unified` is the v2 tree of a hybrid box: it has no controllers, but `cgroup.kill`.
const V1: [&str; 6] = ["memory", "cpu", "cpuacct", "pids", "freezer", "unified"];
/// The unit that `trackbed install` makes for the control groups of apps.
const APPS_UNIT: &str = "trackbed-apps.service";
/// What a box is said to lack where processes cannot be counted by group.
pub(crate) const PROCESS_LIMIT: &str = "process limit";
const PERIOD_US: u64 = 100_000;
/// What a job weighs against an app when both want the processor: a tenth of the default, which apps have (100 on v2, 1024
/// on v1). Alone it may take all.
const JOB_WEIGHT_V2: &str = "10";
const JOB_WEIGHT_V1: &str = "102";

/// The directories of one group, by controller. On v2 all are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    v2: bool,
    dirs: Vec<(String, PathBuf)>,
}

impl Cgroup {
    /// Makes the group of a whole box and says what it lacks.
    pub(crate) fn ensure_root(name: &str) -> (Cgroup, Vec<String>) {
        let mut missing = Vec::new();
        let root = if Path::new(MOUNT).join("cgroup.controllers").exists() {
            ensure_v2(name)
        } else {
            let mut dirs = Vec::new();
            for controller in V1 {
                let dir = Path::new(MOUNT).join(controller).join(name);
                match fs::create_dir(&dir) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {}
                    _ => dirs.push((controller.to_owned(), dir)),
                }
            }
            Cgroup { v2: false, dirs }
        };
        for (controller, what) in [("memory", "memory limit"), ("cpu", "cpu limit"), ("pids", PROCESS_LIMIT)]
        {
            if root.dir(controller).is_none() {
                missing.push(format!(
                    "{what}: no `{controller}` control group may be made here (a systemd unit with `Delegate=yes`, or root, gives one)"
                ));
            }
        }
        (root, missing)
    }

    /// Returns the group of an instance within this one. Makes nothing.
    pub(crate) fn child(&self, name: &str) -> Cgroup {
        let dirs = self.dirs.iter().map(|(controller, dir)| (controller.clone(), dir.join(name))).collect();
        Cgroup { v2: self.v2, dirs }
    }

    /// Returns the names of the groups within this one.
    pub(crate) fn children(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .dirs
            .iter()
            .filter_map(|(_, dir)| fs::read_dir(dir).ok())
            .flat_map(|entries| entries.flatten().filter(|entry| entry.path().is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn dir(&self, controller: &str) -> Option<&Path> {
        self.dirs.iter().find(|(name, _)| name == controller).map(|(_, dir)| dir.as_path())
    }

    fn read(&self, controller: &str, file: &str) -> Option<String> {
        fs::read_to_string(self.dir(controller)?.join(file)).ok()
    }

    fn read_number(&self, controller: &str, file: &str) -> Option<u64> {
        self.read(controller, file)?.trim().parse().ok()
    }

    fn read_field(&self, controller: &str, file: &str, field: &str) -> Option<u64> {
        let text = self.read(controller, file)?;
        text.lines().find_map(|line| line.strip_prefix(field)?.trim().parse().ok())
    }

    /// Makes the directories and sets the limits that the box can set.
    pub(crate) fn create(&self, kind: InstanceKind, limits: &Limits) -> io::Result<()> {
        for (_, dir) in &self.dirs {
            match fs::create_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(step(&format!("make control group {}", dir.display()), &error));
                }
                _ => {}
            }
        }
        if kind == InstanceKind::Job {
            let (file, weight) =
                if self.v2 { ("cpu.weight", JOB_WEIGHT_V2) } else { ("cpu.shares", JOB_WEIGHT_V1) };
            self.write("cpu", file, weight)?;
        }
        if let Some(bytes) = limits.memory_bytes {
            let file = if self.v2 { "memory.max" } else { "memory.limit_in_bytes" };
            self.write("memory", file, &bytes.to_string())?;
        }
        if let Some(millis) = limits.cpu_millis {
            let quota = (u64::from(millis) * PERIOD_US / 1000).max(1000);
            if self.v2 {
                self.write("cpu", "cpu.max", &format!("{quota} {PERIOD_US}"))?;
            } else {
                self.write("cpu", "cpu.cfs_period_us", &PERIOD_US.to_string())?;
                self.write("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
            }
        }
        if let Some(pids) = limits.pids {
            self.write("pids", "pids.max", &pids.to_string())?;
        }
        Ok(())
    }

    fn write(&self, controller: &str, file: &str, value: &str) -> io::Result<()> {
        let Some(dir) = self.dir(controller) else { return Ok(()) };
        write_file(&dir.join(file), value)
            .map_err(|error| step(&format!("set {file} of {} to {value}", dir.display()), &error))
    }

    /// Moves a process in; its children follow.
    pub(crate) fn attach(&self, pid: i32) -> io::Result<()> {
        for (_, dir) in &self.dirs {
            write_file(&dir.join("cgroup.procs"), &pid.to_string())
                .map_err(|error| step(&format!("move pid {pid} into {}", dir.display()), &error))?;
        }
        Ok(())
    }

    /// Returns the pids inside.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let Some((_, dir)) = self.dirs.first() else { return Vec::new() };
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Returns the switches that make everything inside stand still, the best first.
    pub(crate) fn switches(&self) -> Vec<Switch> {
        let unified = self.dir("unified").filter(|dir| dir.join("cgroup.freeze").exists());
        let freezer = self.dir("freezer").filter(|dir| dir.join("freezer.state").exists());
        let unified = unified.map(|dir| Switch::Unified(dir.to_owned()));
        unified.into_iter().chain(freezer.map(|dir| Switch::Freezer(dir.to_owned()))).collect()
    }

    /// Returns whether anybody has switched one on.
    pub(crate) fn is_frozen(&self) -> bool {
        self.switches().iter().any(Switch::is_on)
    }

    /// Lets everything inside go on.
    pub(crate) fn thaw(&self) {
        for switch in self.switches() {
            // A group that is gone has nobody left to let go.
            let _ = switch.thaw();
        }
    }

    /// Kills everything inside, also what is frozen. Returns whether nothing is left.
    pub(crate) fn kill_all(&self) -> bool {
        for _ in 0..200 {
            // What v1 has frozen does not die.
            self.thaw();
            if let Some(dir) = self.dir("unified") {
                let _ = write_file(&dir.join("cgroup.kill"), "1");
            }
            if self.pids().is_empty() {
                return true;
            }
            crate::process::kill_listed(|| self.pids());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.pids().is_empty()
    }

    /// Removes the directories. They may be busy for a moment after the last process has gone.
    pub(crate) fn remove(&self) {
        for (_, dir) in &self.dirs {
            for _ in 0..50 {
                match fs::remove_dir(dir) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    _ => break,
                }
            }
        }
    }

    /// Returns how many processes the kernel killed here for memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let file = if self.v2 { "memory.events" } else { "memory.oom_control" };
        self.read_field("memory", file, "oom_kill ").unwrap_or(0)
    }

    /// Returns whether the kernel counts processes here, and so can limit them.
    pub(crate) fn counts_processes(&self) -> bool {
        self.dir("pids").is_some()
    }

    /// Returns how often a process more was refused here.
    pub(crate) fn refused_processes(&self) -> u64 {
        self.read_field("pids", "pids.events", "max ").unwrap_or(0)
    }

    /// Returns what is used now, or none when the memory controller is missing.
    pub(crate) fn stats(&self) -> Option<InstanceStats> {
        let memory = if self.v2 { "memory.current" } else { "memory.usage_in_bytes" };
        let cpu = if self.v2 {
            self.read_field("cpu", "cpu.stat", "usage_usec ").map(Duration::from_micros)
        } else {
            self.read_number("cpuacct", "cpuacct.usage").map(Duration::from_nanos)
        };
        Some(InstanceStats {
            memory_bytes: self.read_number("memory", memory)?,
            cpu: cpu?,
            pids: u32::try_from(self.read_number("pids", "pids.current")?).unwrap_or(u32::MAX),
        })
    }
}

/// On v2 the box's group lies in a subtree that is ours: that of the unit which systemd keeps for apps, if one stands
/// beside our own unit, else in our own group. There, processes of ours step aside into a leaf first, because a group
/// with controllers for its children may hold no process itself; for the same reason systemd could not start our own
/// unit again while apps live in it.
fn ensure_v2(name: &str) -> Cgroup {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let own = own.trim_end_matches("/supervisor").trim_start_matches('/');
    let mut base = Path::new(MOUNT).join(own);
    let apps = base.with_file_name(APPS_UNIT);
    if own.ends_with(".service") && apps.is_dir() {
        base = apps;
    } else if !own.is_empty() {
        let leaf = base.join("supervisor");
        let pid = std::process::id().to_string();
        let moved = fs::create_dir_all(&leaf).and_then(|()| write_file(&leaf.join("cgroup.procs"), &pid));
        if moved.is_err() && nix::unistd::geteuid().is_root() && !Path::new("/run/systemd/system").exists() {
            base = PathBuf::from(MOUNT);
        }
    }
    let root = base.join(name);
    if fs::create_dir(&root).is_err() && !root.is_dir() {
        return Cgroup { v2: true, dirs: Vec::new() };
    }
    let mut dirs = vec![("unified".to_owned(), root.clone())];
    for controller in ["memory", "cpu", "pids"] {
        let wanted = format!("+{controller}");
        let _ = write_file(&base.join("cgroup.subtree_control"), &wanted);
        if write_file(&root.join("cgroup.subtree_control"), &wanted).is_ok() {
            dirs.push((controller.to_owned(), root.clone()));
        }
    }
    Cgroup { v2: true, dirs }
}

/// Files of the kernel take one write; there is nothing to make atomic.
fn write_file(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn step(attempt: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {attempt}: {error}"))
}
