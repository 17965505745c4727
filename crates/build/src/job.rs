//! One command of a build in the sandbox: its environment, its mounts, its limits, and its last words when it fails.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use trackbed_core::instance::{AppTree, BindMount, Exit, InstanceKind, InstanceSpec, LogStream};
use trackbed_core::ports::{BuildLog, BuildRequest, JobEnd, JobRunner, PortError};
use trackbed_core::process::Formation;
use trackbed_core::settings::Limits;
use trackbed_core::{InstanceId, Secret};
use trackbed_stdx::random;

use crate::layers::DISK_FULL;

/// Longest time that one command of a build may take.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Memory of a build: half of the box, but at least this.
const MEMORY_MIN_BYTES: u64 = 2 << 30;
const PIDS_MAX: u32 = 1024;
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
    jobs: &dyn JobRunner,
    request: &BuildRequest,
    job: Job<'_>,
    log: &dyn BuildLog,
) -> Result<(), Failure> {
    let tail = Tail { inner: log, lines: Mutex::default() };
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
        limits: Limits { memory_bytes: memory_limit(), cpu_millis: None, pids: Some(PIDS_MAX) },
        port: None,
        offline: false,
        links: Vec::new(),
    };
    let how = match jobs.run_job(spec, TIME_LIMIT, &tail).await.map_err(Failure::Port)? {
        JobEnd::Exit(exit) if exit.is_success() => return Ok(()),
        JobEnd::Exit(Exit::Setup { message }) => {
            return Err(Failure::Port(PortError::new(format!(
                "the build's sandbox could not be made: {message}"
            ))));
        }
        JobEnd::Exit(exit) => exit.to_string(),
        JobEnd::TimedOut => format!("was ended after {} minutes", TIME_LIMIT.as_secs() / 60),
    };
    if is_full(job.app) {
        // What the command said of it may be lost, because the log had no room either.
        return Err(Failure::Port(
            PortError::new(format!("the disk of the box is full: the command {how}")).hint(DISK_FULL),
        ));
    }
    let lines = tail.lines.into_inner().expect("no holder of this lock panics");
    Err(Failure::Command { how, tail: lines.into() })
}

struct Tail<'a> {
    inner: &'a dyn BuildLog,
    lines: Mutex<VecDeque<String>>,
}

impl BuildLog for Tail<'_> {
    fn line(&self, stream: LogStream, text: &str) {
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

fn memory_limit() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = line.split_whitespace().next()?.parse::<u64>().ok()? << 10;
    Some((total / 2).max(MEMORY_MIN_BYTES).min(total))
}
