//! What the control plane needs from the outside, declared for its needs; adapters live above and are wired by `server`.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use crate::finding::Findings;
use crate::image::Image;
use crate::instance::{
    Exit, InstanceSpec, InstanceStats, InstanceStatus, Listener, LogCursor, LogPage, LogStream,
};
use crate::isolation::Isolation;
use crate::plan::Plan;
use crate::route::{Address, EdgeStats, RouteTable, StreamFault, Target};
use crate::settings::VolumeRequest;
use crate::volume::MountPath;
use crate::{Digest, InstanceId, Secret, ServiceId};

mod images;
mod offsite;
mod volumes;

pub use images::{Dockerfile, Images, NoImages};
pub use offsite::{Conditional, Offsite, Ownership, StateCopy};
pub use volumes::{
    AdoptedFile, CaptureOrder, Collected, Depth, DiskSpace, Freezer, Frozen, PointData, Staged, Unreadable,
    VolumePlace, Volumes,
};

/// An error from the outside, in words for the owner of the service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    /// The attempt, the value and the cause.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl PortError {
    /// Makes an error without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// An immutable tree that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Digest of names, modes and contents.
    pub digest: Digest,
    /// Where it lies on the box; nobody writes there.
    pub path: PathBuf,
}

/// What a plan is made from.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// The source.
    pub source: Source,
    /// Flags of `trackbed up`: dotted key (`deploy.startCommand`) and value; the strongest origin.
    pub overrides: Vec<(String, String)>,
    /// Settings kept with the service; weaker than anything in the source.
    pub stored: Vec<(String, String)>,
    /// The variables of the service, because some are settings (`RAILWAY_HEALTHCHECK_TIMEOUT_SEC`, `PORT`).
    pub variables: Vec<(String, Secret<String>)>,
}

/// Takes what a build says, line by line. Must not block.
pub trait BuildLog: Send + Sync {
    /// Adds a line without its end.
    fn line(&self, stream: LogStream, text: &str);

    /// Returns whether the next line would be lost. Whoever reads from a running command then reads no further for a
    /// moment, which holds the command back.
    fn is_full(&self) -> bool {
        false
    }
}

/// What a build is made from.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The source.
    pub source: Source,
    /// Its plan.
    pub plan: Plan,
    /// Which service asks.
    pub service: ServiceId,
    /// The service's own number, see [`InstanceSpec::service_number`].
    pub service_number: u32,
    /// Variables for the build, as Railway gives them. They are in no cache key.
    pub variables: Vec<(String, Secret<String>)>,
}

/// What a look at a source is made from.
#[derive(Debug, Clone)]
pub struct CheckRequest {
    /// The source.
    pub source: Source,
    /// Its plan.
    pub plan: Plan,
    /// All variables of the service.
    pub variables: Vec<(String, Secret<String>)>,
    /// Where its volumes are mounted; those that the plan asks for need not be among them.
    pub mounts: Vec<MountPath>,
}

/// What a look at an image is made from, before its release touches anything.
#[derive(Debug, Clone)]
pub struct PreflightRequest {
    /// The image.
    pub image: Image,
    /// The start command.
    pub command: String,
    /// Which service asks.
    pub service: ServiceId,
    /// The service's own number, see [`InstanceSpec::service_number`].
    pub service_number: u32,
    /// For people.
    pub title: String,
    /// The environment that an instance of the release would get.
    pub env: Vec<(String, Secret<String>)>,
}

/// What such a look came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preflight {
    /// Nothing is missing of what was looked for.
    Passed {
        /// What was found, for people.
        found: String,
        /// What is odd all the same.
        warnings: Vec<String>,
    },
    /// The release would not start: what was looked for, what was found, and the way out.
    Failed(PortError),
    /// It could not be looked, for a reason of the box. Says nothing about the release.
    NotRun(String),
}

/// Something in a source that may cause a fault of its event streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// `main.py:14`.
    pub place: String,
    /// What stands there.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

/// How two sources differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceChanges {
    /// Files and links that were added, changed or removed.
    pub files: u64,
    /// Of those, the ones that match the patterns.
    pub watched: u64,
}

/// What a builder let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LetGo {
    /// Layers.
    pub layers: u64,
    /// Bytes of their files.
    pub layer_bytes: u64,
    /// Sources.
    pub sources: u64,
}

/// Source → plan → image.
#[async_trait]
pub trait Builder: Send + Sync {
    /// Reads a source and decides everything. Runs none of it.
    ///
    /// # Errors
    /// When the source cannot be deployed as it is; the message names file, line and what was expected.
    async fn plan(&self, request: PlanRequest) -> Result<Plan, PortError>;

    /// Looks in a source for what would ruin its deployment, or its data. Runs none of it; bounded in files, bytes and time.
    ///
    /// # Errors
    /// When the source cannot be looked at for a reason of the box.
    async fn check(&self, request: CheckRequest) -> Result<Findings, PortError>;

    /// Makes the image, or finds it made. Idempotent; safe to drop: what is half made is never used.
    ///
    /// # Errors
    /// When a command of the build fails; its output is in the log.
    async fn build(&self, request: BuildRequest, log: &dyn BuildLog) -> Result<Image, PortError>;

    /// Looks whether an image can do what the start command asks of it, without running the app. Bounded in time; safe
    /// to drop.
    async fn preflight(&self, request: PreflightRequest) -> Preflight;

    /// Looks in a source for what may cause a fault of its event streams, the likeliest first. Runs none of it.
    ///
    /// # Errors
    /// When the source cannot be read.
    async fn suspects(&self, source: &Source, fault: StreamFault) -> Result<Vec<Suspect>, PortError>;

    /// Compares two sources, and the names that differ with patterns in gitignore's syntax from the root of the source.
    ///
    /// # Errors
    /// When a source is gone or cannot be read, or a pattern is none.
    async fn changes(
        &self,
        from: &Source,
        to: &Source,
        patterns: &[String],
    ) -> Result<SourceChanges, PortError>;

    /// Removes the layers that none of these images has, and every other source, except one that has just been received.
    /// Whoever calls sees to it that nothing is built meanwhile. May be repeated, also after a crash in the middle.
    ///
    /// # Errors
    /// When the disk refuses.
    async fn collect(&self, keep: &[Image], sources: &[Digest]) -> Result<LetGo, PortError>;

    /// Removes what only makes the next build faster. Whoever calls sees to it that nothing is built meanwhile.
    ///
    /// # Errors
    /// When the disk refuses.
    async fn drop_caches(&self) -> Result<(), PortError>;
}

/// A job, run to its end for one caller.
#[async_trait]
pub trait JobRunner: Send + Sync {
    /// Runs a job and feeds its output to the log. When the future is dropped, the job is killed.
    ///
    /// # Errors
    /// When the sandbox cannot be made. A command that fails is an [`Exit`], not an error.
    async fn run_job(
        &self,
        spec: InstanceSpec,
        time_limit: Duration,
        log: &dyn BuildLog,
    ) -> Result<JobEnd, PortError>;
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// By itself, or by the kernel.
    Exit(Exit),
    /// It was killed at its time limit.
    TimedOut,
}

/// Who holds the lock of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeLease {
    /// Grows with each holder: whoever has a smaller one came before.
    pub fence: u64,
    /// Whether anybody holds it, known or not.
    pub is_held: bool,
    /// The holders that are known, the latest first: more than one only where all share it.
    pub holders: Vec<LeaseHolder>,
}

/// A holder of a volume's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHolder {
    /// The instance.
    pub instance: InstanceId,
    /// For people: `assistant v3`.
    pub title: String,
    /// Whether it lets others hold it, too.
    pub shared: bool,
}

/// Runs instances. The embedded sandbox is the first one; a Docker engine or a cluster may be others.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Returns what isolation instances get on this box.
    fn isolation(&self) -> Isolation;

    /// Returns whether instances share the ports of the box: two of them cannot listen on the same one.
    fn shares_ports(&self) -> bool {
        false
    }

    /// Starts an instance, or finds it started. Returns when its command runs or has ended.
    ///
    /// # Errors
    /// When the sandbox cannot be made: a volume is held by another instance, a limit cannot be set, a layer is missing.
    async fn start(&self, spec: &InstanceSpec) -> Result<(), PortError>;

    /// Ends an instance: SIGTERM, SIGKILL after `grace`. Returns when nothing of it lives and its volumes are free.
    /// An unknown or ended instance is fine.
    ///
    /// # Errors
    /// When it cannot be ended even so.
    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), PortError>;

    /// Forgets an ended instance: its record, logs and writable top.
    ///
    /// # Errors
    /// When it still runs, or its files cannot be removed.
    async fn remove(&self, id: &InstanceId) -> Result<(), PortError>;

    /// Returns every instance that the engine knows, ended ones included until they are removed.
    ///
    /// # Errors
    /// When the engine's own records cannot be read.
    async fn list(&self) -> Result<Vec<InstanceStatus>, PortError>;

    /// Returns one instance, or none.
    ///
    /// # Errors
    /// As [`Engine::list`].
    async fn inspect(&self, id: &InstanceId) -> Result<Option<InstanceStatus>, PortError>;

    /// Returns when an instance has ended, at once when it has already or is unknown. Cancel-safe. What it knows may be a
    /// moment old: ask [`Engine::inspect`] then.
    async fn wait(&self, id: &InstanceId);

    /// Returns lines of an instance's log from a place on, oldest first; at most `limit`.
    ///
    /// # Errors
    /// When the instance is unknown.
    async fn logs(&self, id: &InstanceId, from: LogCursor, limit: usize) -> Result<LogPage, PortError>;

    /// Returns what an instance uses now.
    ///
    /// # Errors
    /// When it is unknown or ended.
    async fn stats(&self, id: &InstanceId) -> Result<InstanceStats, PortError>;

    /// Returns the TCP ports that the processes of an instance listen on.
    ///
    /// # Errors
    /// When it is unknown or ended.
    async fn listeners(&self, id: &InstanceId) -> Result<Vec<Listener>, PortError>;

    /// Returns how to reach a port of an instance.
    ///
    /// # Errors
    /// When it is unknown or ended.
    async fn address(&self, id: &InstanceId, port: u16) -> Result<Address, PortError>;

    /// Returns a port for a new instance to listen on: free now, and not promised to any other instance that shares its
    /// network.
    ///
    /// # Errors
    /// When none is free.
    async fn free_port(&self) -> Result<u16, PortError>;

    /// Returns who holds the lock of a volume now, as it is and not as anybody remembers it.
    ///
    /// # Errors
    /// When the lock file cannot be read.
    async fn lease(&self, place: &VolumePlace) -> Result<VolumeLease, PortError>;

    /// Makes every process of a running instance stand still, all at once, until it is thawed: by the returned guard, by
    /// the drop of it, by the end of this control plane, or after `limit`, whichever comes first. An order to end the
    /// instance thaws it, too.
    ///
    /// # Errors
    /// When it does not run, or does not stand still in time; then it goes on running.
    async fn freeze(&self, id: &InstanceId, limit: Duration) -> Result<Box<dyn Frozen>, PortError>;

    /// Returns what an instance has written outside its volumes, where it is lost with the instance: regular files below
    /// `/app` that are not the image's own. Also of one that has ended and is still known. At most `limit` files, SQLite
    /// databases first, then the largest.
    ///
    /// # Errors
    /// When it is unknown, or its files cannot be read.
    async fn stray_files(&self, id: &InstanceId, limit: usize) -> Result<Vec<StrayFile>, PortError>;

    /// Runs a command inside a running instance, with its volumes, user and limits.
    /// Its output goes to the log sink; when the future is dropped, the command is killed.
    ///
    /// # Errors
    /// When the instance does not run.
    async fn exec(
        &self,
        id: &InstanceId,
        command: &[String],
        env: &[(String, Secret<String>)],
        log: &dyn BuildLog,
    ) -> Result<Exit, PortError>;
}

/// A file that an app wrote outside every volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrayFile {
    /// Absolute path as the app sees it.
    pub path: String,
    /// Where it lies on the box.
    pub host_path: PathBuf,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Whether it begins with the header of a SQLite database.
    pub is_database: bool,
}

/// What a health probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The path answered with this status, or (without a path) a connection was accepted (status 200).
    Answered {
        /// HTTP status.
        status: u16,
        /// Where a redirect leads, or the first bytes of the body: quoted when the status is not 200.
        detail: String,
    },
    /// Nobody accepted a connection.
    Refused,
    /// A connection was accepted, but no answer came in time or it was not HTTP.
    Broken {
        /// What happened.
        detail: String,
    },
}

/// Moves traffic.
#[async_trait]
pub trait Edge: Send + Sync {
    /// Puts a whole table in force. Returns when every later request follows it. An older sequence is ignored.
    ///
    /// # Errors
    /// When the edge cannot be reached; it goes on with the table that it has.
    async fn apply(&self, table: &RouteTable) -> Result<(), PortError>;

    /// Returns the counters now.
    ///
    /// # Errors
    /// When the edge cannot be reached.
    async fn stats(&self) -> Result<EdgeStats, PortError>;

    /// Ends the open streams of an instance politely, spread evenly over a time so that clients do not all come back at
    /// once: an event stream at the end of an event and with a `retry:` hint, a WebSocket with close code 1012. Returns
    /// at once; one that has not ended a second after its turn is cut. Other requests go on.
    ///
    /// # Errors
    /// When the edge cannot be reached.
    async fn end_streams(&self, instance: &InstanceId, over: Duration) -> Result<(), PortError>;

    /// Ends every request still open to an instance, at once and wherever it is.
    ///
    /// # Errors
    /// When the edge cannot be reached.
    async fn cut(&self, instance: &InstanceId) -> Result<(), PortError>;

    /// Asks a target once, as a request would reach it.
    async fn probe(&self, target: &Target, path: Option<&str>, host: &str, timeout: Duration) -> Probe;
}

/// Says when something happened that people may want to hear of.
pub trait Notifier: Send + Sync {
    /// Passes a notice on. Must not block.
    fn notify(&self, service: &ServiceId, message: &str);
}

/// Asks for volumes in the order of their mount paths, so that nested mounts come after what they lie in.
pub fn sort_by_mount(requests: &mut [VolumeRequest]) {
    requests.sort_by(|a, b| a.mount.cmp(&b.mount));
}
