//! Services, their releases and instances.

use serde::{Deserialize, Serialize};

use crate::{Deployment, IsolationInfo, Volume};

/// A service and how it does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    /// Project name.
    pub project: String,
    /// Service name.
    pub service: String,
    /// `new`, `starting`, `running`, `restarting`, `stopped`, `crashed`, a job between two runs `scheduled`, or `blocked`: not
    /// started, because its data could not be put back after a deployment that failed; `detail` names the ways out.
    pub state: String,
    /// One sentence about the state when it needs one: why it crashed, when it is tried again.
    pub detail: Option<String>,
    /// Where it answers.
    pub url: String,
    /// The live release.
    pub release: Option<Release>,
    /// The live instance.
    pub instance: Option<Instance>,
    /// What is known of its runs, if it is a job.
    #[serde(default)]
    pub job: Option<Job>,
    /// A deployment under way.
    pub deploying: Option<Deployment>,
    /// The newest deployment.
    pub last_deployment: Option<Deployment>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// How its instances are kept apart.
    pub isolation: IsolationInfo,
    /// Requests that wait at the edge now.
    #[serde(default)]
    pub parked: u64,
    /// What is odd about the live release, and the mend: event streams that do not arrive one event at a time.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Process ids of the live instance: supervisor first.
    pub pids: Vec<u32>,
    /// The newest restore point, of the volume where that is the oldest, in milliseconds since 1970 UTC; none while one of
    /// its volumes has none.
    pub last_restore_point: Option<i64>,
    /// The newest restore point that is proven restorable, likewise.
    #[serde(default)]
    pub last_proven: Option<i64>,
    /// When that was proven, likewise.
    pub last_proof: Option<i64>,
}

/// A job: its start command runs at the ticks of a schedule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Five fields of cron, in UTC.
    pub schedule: String,
    /// The next tick, in milliseconds since 1970 UTC.
    pub next_at: Option<i64>,
    /// The last runs, the oldest first.
    pub runs: Vec<JobRun>,
}

/// One tick of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobRun {
    /// The tick, in milliseconds since 1970 UTC.
    pub due_at: i64,
    /// `running`, `ended`, or `skipped` because the run before still ran.
    pub state: String,
    /// What ran.
    pub instance: Option<String>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// With which code, if it ended by itself.
    pub exit_code: Option<i32>,
    /// How it ended, for people.
    pub outcome: Option<String>,
}

/// A release.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Release {
    /// Its number.
    pub version: u32,
    /// What is built in: `python`.
    pub provider: String,
    /// Digest of its source.
    pub source: String,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
}

/// An instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// The port it serves on.
    pub port: Option<u16>,
    /// When it started.
    pub started_at: i64,
    /// Restarts in a row since it last ran well.
    pub restarts: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// CPU seconds used.
    pub cpu_seconds: f64,
    /// Requests open at the edge, streams included.
    pub in_flight: u64,
    /// Event streams and upgraded connections open at the edge.
    pub streams: u64,
    /// Of the streams, upgraded connections (WebSockets).
    #[serde(default)]
    pub websockets: u64,
    /// Age of the oldest open stream in milliseconds.
    #[serde(default)]
    pub oldest_stream_ms: u64,
    /// The longest time that any open stream has been without a byte from the app, in milliseconds.
    #[serde(default)]
    pub longest_silence_ms: u64,
    /// Requests finished since the edge first saw it.
    pub requests: u64,
    /// What runs beside the main process.
    #[serde(default)]
    pub processes: Vec<Process>,
}

/// A process beside the main one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// Its name and number: `worker.1`.
    pub name: String,
    /// Since when it runs, in milliseconds since 1970 UTC; none while it waits to be started again.
    pub since: Option<i64>,
    /// How often it has ended in this instance and was started again.
    pub ends: u32,
    /// How often of these by anything but code 0.
    pub failures: u32,
    /// How it ended last, for people: `exited with code 1`.
    pub last: Option<String>,
}
