//! An instance: one sandboxed run of one process of a release, or of a job (a build step, a one-off command).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, ServiceId};
use crate::image::Image;
use crate::process::{Formation, ProcessStatus};
use crate::settings::{Limits, seconds};
use crate::volume::MountPath;
use crate::{Secret, Timestamp, VolumeId};

/// What an instance is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceKind {
    /// Runs until stopped and is adopted by a new control plane.
    Service,
    /// Runs to its end for one caller; a new control plane kills it, because nobody waits for it any more.
    Job,
}

/// A volume mounted into an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Which volume; the engine holds its lock for as long as anything of the instance lives.
    pub volume: VolumeId,
    /// Absolute path of its directory on the box.
    pub host_path: String,
    /// Absolute path of its lock file on the box, beside the directory, never inside.
    pub lock_path: String,
    /// Where the instance sees it.
    pub mount: MountPath,
    /// Whether others that say the same may hold it at the same time.
    #[serde(default)]
    pub shared: bool,
}

/// A directory of the box mounted writable into a job, such as a package cache or the layer under construction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Absolute path on the box.
    pub host_path: String,
    /// Absolute path inside.
    pub inside: String,
    /// Whether the job may write.
    pub writable: bool,
}

/// What stands at `/app`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum AppTree {
    /// The layers of an image under a writable top that belongs to this instance alone.
    Image {
        /// Which image.
        image: Box<Image>,
    },
    /// A writable directory of the box (a build).
    Directory {
        /// Absolute path on the box.
        path: String,
    },
}

/// Everything an engine needs to start an instance.
#[derive(Debug, Clone)]
pub struct InstanceSpec {
    /// Its id; starting the same id twice starts it once.
    pub id: InstanceId,
    /// Service or job.
    pub kind: InstanceKind,
    /// The service it belongs to: decides the user id it runs as, so that no two services can read each other's files.
    pub service: ServiceId,
    /// A number of the service's own, from 0 to 49,999: engines derive user ids and addresses from it.
    pub service_number: u32,
    /// For people, in process lists and logs: `assistant v3`.
    pub title: String,
    /// Run by `/bin/sh -c`.
    pub command: String,
    /// What the command is called, and what runs beside it. The end of the command is the end of the instance; one beside it
    /// that ends is started again, and all share the limits.
    pub formation: Formation,
    /// What stands at `/app`, which is also the working directory.
    pub app: AppTree,
    /// Volumes.
    pub volumes: Vec<VolumeMount>,
    /// Further mounts, for jobs.
    pub binds: Vec<BindMount>,
    /// The whole environment, in order; nothing of the box's own environment is added.
    pub env: Vec<(String, Secret<String>)>,
    /// Limits.
    pub limits: Limits,
    /// The port that the instance is told to listen on (also in `env` as `PORT`); none for jobs.
    pub port: Option<u16>,
    /// Whether it reaches nothing but itself: it is tried out on a copy of the data, and must not act on the world. Where
    /// the isolation level cannot do that, the start is refused.
    pub offline: bool,
    /// Files that an app looks for outside its volumes, although they are in one by now (`volume adopt`): symbolic links
    /// made before the command runs, in place of what the image has there.
    pub links: Vec<AppLink>,
}

/// A symbolic link below `/app` into a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppLink {
    /// Absolute path below `/app`, where the app looks.
    pub at: String,
    /// Absolute path inside one of the instance's volumes.
    pub to: String,
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "lowercase")]
pub enum Exit {
    /// The command returned.
    Code {
        /// 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// The kernel ended it because it went over its memory limit.
    Oom,
    /// The sandbox could not be set up; nothing of the command ran.
    Setup {
        /// The step and the error.
        message: String,
    },
    /// It vanished without a record: the box or the supervising process died.
    Lost,
}

impl Exit {
    /// Returns whether this is a good end: code 0.
    pub fn is_success(&self) -> bool {
        matches!(self, Exit::Code { code: 0 })
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code { code } => write!(f, "exited with code {code}"),
            Exit::Signal { signal } => write!(f, "was ended by signal {signal}"),
            Exit::Oom => f.write_str("was killed for using more memory than its limit"),
            Exit::Setup { message } => write!(f, "could not be started: {message}"),
            Exit::Lost => f.write_str("vanished (the box or its supervisor was killed)"),
        }
    }
}

/// Where an instance is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum InstanceState {
    /// The sandbox is being set up.
    Starting,
    /// The command runs.
    Running,
    /// It ended, and nothing of it lives.
    Ended {
        /// How.
        exit: Exit,
        /// When.
        at: Timestamp,
    },
}

/// What an engine knows of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Which.
    pub id: InstanceId,
    /// Service or job.
    pub kind: InstanceKind,
    /// The service it belongs to.
    pub service: ServiceId,
    /// Where it is in its life.
    #[serde(flatten)]
    pub state: InstanceState,
    /// Ids of its processes as the box sees them: supervisor first, then the app's. Empty when ended.
    pub pids: Vec<u32>,
    /// When it was started.
    pub started_at: Timestamp,
    /// The port it was told to listen on.
    pub port: Option<u16>,
    /// What runs beside the main process; empty when ended.
    #[serde(default)]
    pub processes: Vec<ProcessStatus>,
}

/// A socket that an instance listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// Whether it listens on loopback only.
    pub loopback_only: bool,
}

/// Resources used by an instance now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceStats {
    /// Memory in bytes: the limit group's figure, else the sum of proportional set sizes.
    pub memory_bytes: u64,
    /// CPU used since start.
    #[serde(with = "seconds")]
    pub cpu: Duration,
    /// Processes and threads.
    pub pids: u32,
}

/// Which stream of the app a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// Trackbed itself: lines dropped, killed for memory, and the like.
    System,
}

/// A line that an instance wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the supervisor read it.
    pub at: Timestamp,
    /// Where from.
    pub stream: LogStream,
    /// Which process wrote it (`web`, `worker.1`), where there is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// The line without its end; bytes that are not UTF-8 are replaced; longer ones are split at 16 KiB.
    pub text: String,
}

impl LogLine {
    /// Returns whether a process wrote it that goes by a name: `worker` is each of `worker.1` and `worker.2`.
    pub fn is_of(&self, process: &str) -> bool {
        let of = self.process.as_deref().unwrap_or_default();
        of == process || of.strip_prefix(process).is_some_and(|copy| copy.starts_with('.'))
    }

    /// Returns whether the main process wrote it: the others have numbers.
    pub fn is_of_main(&self) -> bool {
        !self.process.as_deref().is_some_and(|name| name.contains('.'))
    }
}

/// A place in an instance's log. Opaque: start with [`LogCursor::START`], go on with what the last page returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogCursor(pub u64);

impl LogCursor {
    /// The oldest line that is still kept.
    pub const START: LogCursor = LogCursor(0);
}

/// Some lines, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// Oldest first.
    pub lines: Vec<LogLine>,
    /// Ask for this next.
    pub next: LogCursor,
}
