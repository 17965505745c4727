//! One command of a build in the sandbox: its environment, its mounts, its limits, and its last words when it fails.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trackbed_core::instance::{AppTree, BindMount, Exit, InstanceKind, InstanceSpec, LogStream};
use trackbed_core::ports::{BuildLog, BuildRequest, JobEnd, PortError};
use trackbed_core::process::Formation;
use trackbed_core::settings::Limits;
use trackbed_core::{InstanceId, Secret};
use trackbed_stdx::random;

use crate::builder::Workshop;
use crate::layers::DISK_FULL;

/// Longest time that one command of a build may take.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Memory of a build where nobody says otherwise: half of the box, shared by the builds that may run at once, but at least
/// this.
const MEMORY_MIN_BYTES: u64 = 2 << 30;
/// Most processes and threads of a build at once.
const PIDS_MAX: u32 = 1024;
/// How the supervisor begins to say that processes were refused.
const REFUSED: &str = "was refused more than ";
/// Last lines that are quoted when a limit ended a build.
const QUOTED: usize = 12;
/// A disk with less room than this is full: whatever failed, failed of that.
const FULL_BYTES: u64 = 256 << 10;
/// Lines kept for the error.
const TAIL_LINES: usize = 200;

/// A command to run.
pub(crate) struct Job<'a> {
    /// For people.
    pub(crate) title: String,
    /// The command.
    pub(crate) command: String,
    /// What stands at `/app`.
    pub(crate) app: &'a Path,
    /// Further mounts.
    pub(crate) binds: Vec<BindMount>,
    /// The whole environment.
    pub(crate) env: Vec<(String, Secret<String>)>,
}

/// How a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not be run at all.
    Port(PortError),
    /// It ran and failed; with its last lines.
    Command {
        /// How it ended.
        how: String,
        /// Its last lines.
        tail: Vec<String>,
    },
}

/// Runs a command to its end.
pub(crate) async fn run(
    workshop: &Workshop,
    request: &BuildRequest,
    job: Job<'_>,
    log: &dyn BuildLog,
) -> Result<(), Failure> {
    let memory_bytes = workshop.memory_bytes;
    let tail = Tail { inner: log, lines: Mutex::default(), refused: AtomicBool::new(false) };
    let spec = InstanceSpec {
        id: InstanceId::from_random(random::bytes()),
        kind: InstanceKind::Job,
        service: request.service.clone(),
        service_number: request.service_number,
        title: job.title,
        command: job.command,
        formation: Formation::default(),
        app: AppTree::Directory { path: job.app.display().to_string() },
        volumes: Vec::new(),
        binds: job.binds,
        env: job.env,
        limits: Limits { memory_bytes, cpu_millis: None, pids: Some(PIDS_MAX) },
        port: None,
        offline: false,
        links: Vec::new(),
    };
    let (how, bound) = match workshop.jobs.run_job(spec, TIME_LIMIT, &tail).await.map_err(Failure::Port)? {
        JobEnd::Exit(exit) if exit.is_success() => return Ok(()),
        JobEnd::Exit(Exit::Setup { message }) => {
            return Err(Failure::Port(PortError::new(format!(
                "the build's sandbox could not be made: {message}"
            ))));
        }
        JobEnd::Exit(exit) => {
            let bound = match exit {
                Exit::Oom => Some(Bound::Memory(memory_bytes.unwrap_or_default())),
                _ if tail.refused.load(Ordering::Relaxed) => Some(Bound::Processes),
                _ => None,
            };
            (exit.to_string(), bound)
        }
        JobEnd::TimedOut => {
            (format!("was ended after {} minutes", TIME_LIMIT.as_secs() / 60), Some(Bound::Time))
        }
    };
    if is_full(job.app) {
        // What the command said of it may be lost, because the log had no room either.
        return Err(Failure::Port(
            PortError::new(format!("the disk of the box is full: the command {how}")).hint(DISK_FULL),
        ));
    }
    let lines: Vec<String> = tail.lines.into_inner().expect("no holder of this lock panics").into();
    match bound {
        Some(bound) => Err(Failure::Port(bound.explain(&lines))),
        None => Err(Failure::Command { how, tail: lines }),
    }
}

/// A limit of the jail that ended a command.
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// So many bytes.
    Memory(u64),
    Processes,
    Time,
}

impl Bound {
    /// Says which limit it was, what the command said last, and the way out.
    fn explain(self, lines: &[String]) -> PortError {
        let (what, hint) = match self {
            Bound::Memory(bytes) => (
                format!("the build was killed for using more than {} MB of memory, its limit", bytes >> 20),
                "build with fewer processes at once, or give builds more: trackbed serve --build-memory SIZE",
            ),
            Bound::Processes => (
                format!("the build wanted more than {PIDS_MAX} processes and threads at once, its limit"),
                "a command that starts itself again without end does that; the last lines say which one",
            ),
            Bound::Time => (
                format!("the build was ended after {} minutes, its limit", TIME_LIMIT.as_secs() / 60),
                "a command of a build must come to its end: what goes on running belongs into the start command",
            ),
        };
        let said = lines[lines.len().saturating_sub(QUOTED)..].join("\n");
        let quoted = if said.is_empty() { String::new() } else { format!(":\n{said}") };
        PortError::new(format!("{what}{quoted}"))
            .hint(format!("{hint}; the whole output is in `trackbed logs --build`"))
    }
}

struct Tail<'a> {
    inner: &'a dyn BuildLog,
    lines: Mutex<VecDeque<String>>,
    /// Whether the supervisor said that processes were refused: nobody else speaks in this stream of a job.
    refused: AtomicBool,
}

impl BuildLog for Tail<'_> {
    fn line(&self, stream: LogStream, text: &str) {
        if stream == LogStream::System && text.starts_with(REFUSED) {
            self.refused.store(true, Ordering::Relaxed);
        }
        let mut lines = self.lines.lock().expect("no holder of this lock panics");
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(text.to_owned());
        drop(lines);
        self.inner.line(stream, text);
    }
}

/// Returns whether the filesystem of a path has next to no room left.
fn is_full(path: &Path) -> bool {
    let left = nix::sys::statvfs::statvfs(path).map(|place| place.blocks_available() * place.fragment_size());
    left.is_ok_and(|left| left < FULL_BYTES)
}

/// Mounts a path of the box read-only at the same place, unless every sandbox sees it anyway.
pub(crate) fn show(path: &str) -> Option<BindMount> {
    let seen = ["/usr/", "/etc/ssl/", "/app"].iter().any(|place| path.starts_with(place));
    (!seen).then(|| BindMount { host_path: path.to_owned(), inside: path.to_owned(), writable: false })
}

/// Returns how much memory a build may use, when so many run at once and nobody says otherwise.
pub(crate) fn share_of_memory(builds: usize) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = line.split_whitespace().next()?.parse::<u64>().ok()? << 10;
    let share = total / 2 / u64::try_from(builds.max(1)).unwrap_or(u64::MAX);
    Some(share.max(MEMORY_MIN_BYTES).min(total))
}
