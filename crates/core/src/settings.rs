//! The settings of a service: what may be asked for, where each value came from, and what it resolves to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cron::CronSchedule;
use crate::process::{Beside, Formation, SideProcess};
use crate::volume::MountPath;
use crate::{Name, ProcessName};

/// Who set a value, strongest first. The order of the variants is the order of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A flag of `trackbed up`.
    Flag,
    /// `trackbed.toml`.
    TrackbedToml,
    /// `railway.json` or `railway.toml`.
    Railway,
    /// `railpack.json`.
    Railpack,
    /// `nixpacks.toml`.
    Nixpacks,
    /// `Procfile`.
    Procfile,
    /// A file of another platform: `fly.toml`, `render.yaml`, ….
    Platform,
    /// Found by a provider in the source.
    Detection,
    /// Kept with the service on the box (`volume add`, earlier choices).
    Stored,
    /// Nobody said anything.
    Default,
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Who set it.
    pub origin: Origin,
    /// The place in words: `railway.json:4`, `--start`, `default`.
    pub place: String,
}

/// When an instance that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RestartMode {
    /// After a non-zero exit or a signal.
    OnFailure,
    /// After every exit.
    Always,
    /// Never.
    Never,
}

/// The restart policy of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// When to restart.
    pub mode: RestartMode,
    /// How many restarts in a row before the service counts as crashed; a run of [`RestartPolicy::STEADY`] starts afresh.
    pub max_retries: u32,
}

impl RestartPolicy {
    /// An instance that ran this long counts as having started well: its restarts are counted from zero again.
    pub const STEADY: Duration = Duration::from_secs(60);
}

/// How a release is found healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The path that must answer 200; without one, accepting a TCP connection is enough.
    pub path: Option<String>,
    /// How long a start may take until the first good answer.
    #[serde(with = "seconds")]
    pub timeout: Duration,
}

/// Limits of one instance. None means: no limit of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes, page cache of the instance included.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// A volume that a source asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRequest {
    /// Its name.
    pub name: Name,
    /// Where it is wanted.
    pub mount: MountPath,
}

/// How traffic moves from the old release to the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handover {
    /// New beside old, health, one route swap, drain old. For services without a volume.
    Overlap,
    /// Park requests, stop old, start new, health, release the requests. For services with a volume: never two writers.
    Held,
}

/// The resolved configuration of a release: everything decided, nothing left to look up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConfig {
    /// Run by `/bin/sh -c` in `/app`.
    pub start_command: String,
    /// What the process of the start command is called.
    #[serde(default)]
    pub main: ProcessName,
    /// What runs beside it in the same instance, by name; also those of which no copy runs.
    #[serde(default)]
    pub processes: Vec<SideProcess>,
    /// The health gate.
    pub health: HealthCheck,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// Its limits.
    pub limits: Limits,
    /// The port the app was told to listen on when it insists on one; none means that the engine picks.
    pub port: Option<u16>,
    /// Volumes that the source asks for. Those added by hand are the service's, not the release's.
    pub volumes: Vec<VolumeRequest>,
    /// The deployment is refused unless a volume is mounted here.
    pub required_mount: Option<MountPath>,
    /// Time between SIGTERM and SIGKILL.
    #[serde(with = "seconds")]
    pub stop_grace: Duration,
    /// How long the old release may go on with streams that are open when the new one takes over.
    #[serde(with = "seconds")]
    pub drain_timeout: Duration,
    /// How long callers may be held while this release takes over a volume: from the moment of parking until it is
    /// healthy. None means: as long as starts of the service take, see `control`.
    #[serde(default, with = "optional_seconds")]
    pub hold_window: Option<Duration>,
    /// How traffic moves to this release when the owner said so; none means: `held` with a volume, else `overlap`.
    #[serde(default)]
    pub handover: Option<Handover>,
    /// Whether the owner says that the app copes with two instances that write to its volumes at once.
    #[serde(default)]
    pub shared: bool,
    /// Whether a new release is tried on a copy of the data before callers are held for it.
    #[serde(default)]
    pub rehearse: bool,
    /// Run by `/bin/sh -c` in `/app` before the release starts, with its volumes: first on a copy of them, then in earnest.
    #[serde(default)]
    pub pre_deploy: Option<String>,
    /// Whether the command before the start is left out on a copy of the data: it needs the network, which a copy lacks.
    #[serde(default)]
    pub pre_deploy_untried: bool,
    /// When the start command runs, if it is a job that ends; none means that the service runs all the time.
    #[serde(default)]
    pub cron: Option<CronSchedule>,
    /// Which changes of the source deploy it, in gitignore's syntax from the root of the repository; empty means all.
    /// They count where a push deploys, never for `trackbed up`.
    #[serde(default)]
    pub watch_patterns: Vec<String>,
    /// Variables that files of the source set. The owner's own win; no secrets, because they stand in the source.
    #[serde(default)]
    pub variables: Vec<(String, String)>,
}

impl ServiceConfig {
    /// Returns whether an instance of this release takes its volumes together with others that do, too.
    pub fn shares_volumes(&self) -> bool {
        self.shared && self.handover != Some(Handover::Held)
    }

    /// Returns the processes of an instance that serves: the main one and each copy of the others. A job runs its start
    /// command alone.
    pub fn formation(&self) -> Formation {
        let others = self.processes.iter().filter(|_| self.cron.is_none());
        let copies = others.flat_map(|process| {
            let copy = |number| Beside {
                name: format!("{}.{number}", process.name),
                command: process.command.clone(),
            };
            (1..=process.count).map(copy)
        });
        Formation { main: self.main.clone(), beside: copies.collect() }
    }
}

/// Default time between SIGTERM and SIGKILL. Railway's is 0 (immediate kill), which loses writes; Fly's is 5 s and Render's 30 s.
pub const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// Default drain limit, as kamal-proxy's.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Shortest hold window that is chosen by itself.
pub const HOLD_WINDOW_DEFAULT: Duration = Duration::from_secs(30);
/// Default health timeout, as Railway's (docs.railway.com/deployments/healthchecks).
pub const HEALTH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);
/// Default number of restarts in a row, as Railway's.
pub const MAX_RETRIES_DEFAULT: u32 = 10;

/// As [`seconds`], for a time that may be absent.
mod optional_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_some(&value.as_secs_f64()),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        seconds.map(Duration::try_from_secs_f64).transpose().map_err(serde::de::Error::custom)
    }
}

/// Durations as whole or broken seconds, as the configuration files write them.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(value.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}
