//! Processes as `/proc` shows them: identity that survives pid reuse, descendants, and waiting for an end.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use trackbed_core::isolation::IsolationLevel;

/// A process, named so that a later one with the same pid is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub(crate) start_time: u64,
}

/// What `/proc/<pid>/stat` says.
struct Stat {
    state: u8,
    parent: i32,
    group: i32,
    session: i32,
    cpu_ticks: u64,
    start_time: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    stat_of(Path::new(&format!("/proc/{pid}")))
}

/// Reads the file of a process or of one of its threads.
fn stat_of(entry: &Path) -> Option<Stat> {
    let text = fs::read(entry.join("stat")).ok()?;
    // The name stands in parentheses and may hold anything, so the fields start after the last one.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 2..)?).ok()?;
    let mut fields = rest.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let mut number = |skip: usize| fields.nth(skip)?.parse::<u64>().ok();
    let cpu_ticks = number(7)? + number(0)?;
    let start_time = number(6)?;
    Some(Stat { state, parent, group, session, cpu_ticks, start_time })
}

/// A process with the group and the session that it belongs to.
pub(crate) struct Kin {
    pub(crate) id: ProcessId,
    pub(crate) group: i32,
    pub(crate) session: i32,
}

/// Returns what a process belongs to.
pub(crate) fn find_kin(pid: i32) -> Option<Kin> {
    let Stat { group, session, start_time, .. } = stat(pid)?;
    Some(Kin { id: ProcessId { pid, start_time }, group, session })
}

impl ProcessId {
    /// Returns the identity of a living process.
    pub(crate) fn of(pid: i32) -> Option<ProcessId> {
        stat(pid).map(|stat| ProcessId { pid, start_time: stat.start_time })
    }

    /// Returns whether it still runs. A zombie does not.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid)
            .is_some_and(|stat| stat.start_time == self.start_time && !matches!(stat.state, b'Z' | b'X'))
    }

    /// Opens a handle; none when it is gone, or on a kernel before 5.3.
    fn handle(self) -> Option<OwnedFd> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel just made this descriptor for us alone.
        let handle = unsafe { OwnedFd::from_raw_fd(fd) };
        // Checked after opening: from here on the handle cannot mean another process.
        self.is_alive().then_some(handle)
    }

    /// Sends a signal. A process that is gone is fine.
    pub(crate) fn signal(self, signal: i32) {
        let handle = self.handle();
        if handle.is_none() && self.is_alive() {
            // SAFETY: kill takes two integers. A kernel without pidfds (before 5.3) leaves a moment in which the process
            // may end and another take its number; pids go round, so that takes thousands of new ones.
            unsafe { libc::kill(self.pid, signal) };
        }
        if let Some(handle) = handle {
            // SAFETY: the descriptor is open, the info pointer may be null, flags must be 0.
            unsafe {
                libc::syscall(
                    libc::SYS_pidfd_send_signal,
                    handle.as_raw_fd(),
                    signal,
                    std::ptr::null::<u8>(),
                    0,
                )
            };
        }
    }

    /// Returns what becomes readable when it ends; none as for any handle. To be called within a runtime.
    pub(crate) fn watch_end(self) -> Option<AsyncFd<OwnedFd>> {
        let handle = self.handle()?;
        // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, and the watch owns it.
        unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }.ok()
    }

    /// Waits until it has ended, at most `limit`. Returns whether it has.
    pub(crate) fn wait_gone(self, limit: Duration) -> bool {
        let Some(handle) = self.handle() else {
            let deadline = std::time::Instant::now() + limit;
            while self.is_alive() && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            return !self.is_alive();
        };
        let mut poll = libc::pollfd { fd: handle.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid pollfd, and its count.
        unsafe { libc::poll(&raw mut poll, 1, limit_ms) };
        !self.is_alive()
    }
}

/// Returns the pid that a process has in its own pid namespace.
pub(crate) fn inside_pid(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    pids.split_ascii_whitespace().last()?.parse().ok()
}

/// Returns the CPU time of a process; clock ticks are hundredths of a second on every Linux there is.
pub(crate) fn cpu_time(pid: i32) -> Duration {
    Duration::from_millis(stat(pid).map_or(0, |stat| stat.cpu_ticks * 10))
}

/// Returns the boot's id: pids of another boot mean nothing.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Returns whether a signal has stopped a process, or will before it does anything else: SIGSTOP cannot be held off, but
/// waits for as long as its receiver gets no processor.
pub(crate) fn is_stopped(pid: i32) -> bool {
    let stops = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        let pending = pending.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        pending.is_some_and(|bits| bits & (1 << (libc::SIGSTOP - 1)) != 0)
    };
    // In this order: it stops between the looks, and does not start.
    stops() || stat(pid).is_some_and(|stat| stat.state == b'T')
}

/// Returns whether every thread of a process is stopped or has ended. One that is gone stands still, too.
pub(crate) fn stands_still(pid: i32) -> bool {
    thread_states(pid).all(|state| matches!(state, b'T' | b't' | b'Z' | b'X'))
}

/// Returns whether a thread of a process waits for something that no signal but SIGKILL interrupts.
pub(crate) fn hangs_in_kernel(pid: i32) -> bool {
    thread_states(pid).any(|state| state == b'D')
}

/// Returns the states of the threads of a process, a letter each as in `/proc/<pid>/stat`.
pub(crate) fn states(pid: i32) -> String {
    thread_states(pid).map(char::from).collect()
}

fn thread_states(pid: i32) -> impl Iterator<Item = u8> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| Some(stat_of(&thread.path())?.state))
}

/// Returns the children of a process, as its threads have them; none where the kernel does not list them.
fn listed_children(parent: i32) -> Option<Vec<i32>> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).ok()?;
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            // The thread is gone, or the kernel was built without.
            Err(_) if thread.path().exists() => return None,
            Err(_) => {}
        }
    }
    Some(found)
}

/// Returns the children of a process.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    let all = || {
        let is_child = |pid: &i32| stat(*pid).is_some_and(|stat| stat.parent == parent);
        all_pids().into_iter().filter(is_child).collect()
    };
    listed_children(parent).unwrap_or_else(all)
}

/// As [`descendants`], without a look at every process of the box where that can be. While some of them run, some may be
/// missed.
pub(crate) fn descendants_by_children(root: i32) -> Vec<i32> {
    let Some(mut found) = listed_children(root) else { return descendants(root) };
    let mut next = 0;
    while next < found.len() {
        // One that is gone has left its children to another.
        found.extend(listed_children(found[next]).unwrap_or_default());
        next += 1;
    }
    found
}

/// Returns every descendant of a process, parents before children.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in all_pids() {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while next < found.len() {
        found.extend(children.remove(&found[next]).unwrap_or_default());
        next += 1;
    }
    found
}

/// Returns every pid in `/proc`.
pub(crate) fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Returns how many processes and threads `/proc` shows.
pub(crate) fn count_tasks() -> u64 {
    let threads = |pid: i32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    all_pids().into_iter().map(|pid| threads(pid) as u64).sum()
}

/// Returns whether `RLIMIT_NPROC` bounds one instance alone. It does for an ordinary user, in a user namespace of its
/// own, since Linux 5.14 (user_namespaces(7), setrlimit(2)); before, and outside, it counts all that the user runs.
/// Root's are not bounded by it.
pub(crate) fn are_counted_within(level: IsolationLevel) -> bool {
    level == IsolationLevel::Userns && !nix::unistd::geteuid().is_root() && kernel() >= Some((5, 14))
}

/// Returns version and patch level of the running kernel.
fn kernel() -> Option<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|text| text.parse().ok());
    numbers.next().zip(numbers.next())
}

/// Kills every descendant of this very process until none is left. Children are reaped on the way.
pub(crate) fn kill_descendants_of_self(limit_rounds: u32) {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    for _ in 0..limit_rounds {
        reap();
        if descendants(me).is_empty() {
            return;
        }
        kill_listed(|| descendants(me));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills the processes of a list. Children of others are reaped by others, so a number may change hands between the
/// listing and the kill: each is identified, must be on a second list, and is killed by what it is, not by number.
pub(crate) fn kill_listed(list: impl Fn() -> Vec<i32>) {
    let found: Vec<ProcessId> = list().into_iter().filter_map(ProcessId::of).collect();
    let still = list();
    for process in found.into_iter().filter(|process| still.contains(&process.pid)) {
        process.signal(libc::SIGKILL);
    }
}

/// Reaps every child that has ended, without waiting.
pub(crate) fn reap() {
    // SAFETY: waitpid with a null status pointer only reaps.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// Waits for a child and returns its raw status.
pub(crate) fn wait_for(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for one int.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_reused_pid_is_not_it() {
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { start_time: me.start_time + 1, ..me }.is_alive());
        assert!(ProcessId { start_time: me.start_time + 1, ..me }.wait_gone(Duration::from_secs(9)));
    }
    /// A process in vfork(2) waits for its child, which here waits for somebody to write to a fifo.
    #[test]
    fn a_process_that_has_yet_to_take_notice_of_its_stop_counts_as_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = "import os, sys\n\
            os.posix_spawn('/bin/true', ['true'], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 3, sys.argv[1], os.O_RDONLY, 0)])";
        let mut python =
            std::process::Command::new("python3").args(["-c", script]).arg(&fifo).spawn().unwrap();
        let pid = i32::try_from(python.id()).unwrap();
        let within = |what: &str, is_so: &dyn Fn() -> bool| {
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            while !is_so() {
                assert!(std::time::Instant::now() < deadline, "{what}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        within("it waits for its child", &|| states(pid) == "D" && !children(pid).is_empty());
        assert!(!is_stopped(pid));
        ProcessId::of(pid).unwrap().signal(libc::SIGSTOP);
        assert_eq!(states(pid), "D");
        assert!(is_stopped(pid));
        let _writer = fs::File::options().write(true).open(&fifo).unwrap();
        within("it has stopped", &|| states(pid) == "T");
        assert!(is_stopped(pid));
        ProcessId::of(pid).unwrap().signal(libc::SIGCONT);
        assert!(python.wait().unwrap().success());
        assert!(!is_stopped(pid));
    }
}
