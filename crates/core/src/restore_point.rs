//! A restore point: the data of one volume at one instant, kept so that one can go back to it, and what is known of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{DeploymentId, ReleaseId, RestorePointId, ServiceId, Timestamp, VolumeId};

/// When backups are taken by themselves, and how many are kept. Daily, weekly and monthly are Railway's
/// (docs.railway.com/reference/backups); hourly is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Every hour, 24 kept.
    Hourly,
    /// Every day, kept for 6 days.
    Daily,
    /// Every week, kept for a month.
    Weekly,
    /// Every month, kept for 3 months.
    Monthly,
}

impl Schedule {
    /// All schedules, the most frequent first.
    pub const ALL: [Schedule; 4] = [Schedule::Hourly, Schedule::Daily, Schedule::Weekly, Schedule::Monthly];
    /// What a new volume gets.
    pub const DEFAULT: [Schedule; 2] = [Schedule::Hourly, Schedule::Daily];

    /// Returns the time from one tick to the next. A month is 30 days.
    pub fn interval(self) -> Duration {
        const HOUR: u64 = 60 * 60;
        Duration::from_secs(match self {
            Schedule::Hourly => HOUR,
            Schedule::Daily => 24 * HOUR,
            Schedule::Weekly => 7 * 24 * HOUR,
            Schedule::Monthly => 30 * 24 * HOUR,
        })
    }

    /// Returns how long one of its points is kept.
    pub fn kept_for(self) -> Duration {
        const DAY: u64 = 24 * 60 * 60;
        Duration::from_secs(match self {
            Schedule::Hourly => DAY,
            Schedule::Daily => 6 * DAY,
            Schedule::Weekly => 30 * DAY,
            Schedule::Monthly => 90 * DAY,
        })
    }

    /// Returns the word used in output and in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Schedule::Hourly => "hourly",
            Schedule::Daily => "daily",
            Schedule::Weekly => "weekly",
            Schedule::Monthly => "monthly",
        }
    }
}

impl std::str::FromStr for Schedule {
    type Err = crate::ids::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Schedule::ALL.into_iter().find(|schedule| schedule.as_str() == text);
        found.ok_or_else(|| crate::ids::ParseError {
            value: text.to_owned(),
            wanted: "a schedule (`hourly`, `daily`, `weekly` or `monthly`)",
        })
    }
}

/// Why a restore point was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum PointReason {
    /// The pin of a deployment: the data as it was just before the new release started.
    Deployment {
        /// Which.
        deployment: DeploymentId,
    },
    /// A tick; one point may serve several schedules that were due together.
    Schedule {
        /// Which.
        schedules: Vec<Schedule>,
    },
    /// Somebody asked for it.
    Command,
    /// Somebody looks into its databases; kept for a short time.
    Look,
    /// The data that a restore replaced.
    BeforeRestore {
        /// The deployment that restored.
        deployment: DeploymentId,
    },
}

/// How the files of a point belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// All files are from one instant: their writers stood still, or did not run.
    Instant,
    /// The volume changes too much to hold its writers for so long: each SQLite database is from one instant of its own
    /// (its online backup), other files are as they were when they were read.
    PerDatabase,
}

/// What a capture came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// Whether all files are from one instant.
    pub consistency: Consistency,
    /// How long the app stood still, in milliseconds; zero when it did not run.
    pub pause_ms: u64,
    /// Regular files.
    pub files: u64,
    /// Their bytes, as an app counts them.
    pub bytes: u64,
    /// Bytes that this point added to the store on disk.
    pub stored_bytes: u64,
    /// SQLite databases among the files, by path within the volume.
    pub databases: Vec<String>,
    /// What was left out, with the reason: sockets, devices. At most some are named.
    pub skipped: Vec<String>,
}

/// The content of one database of a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseContent {
    /// Path within the volume.
    pub path: String,
    /// `wal`, `delete`, …; as its header says.
    pub journal_mode: String,
    /// The SQLite library that wrote it last: `3.45.1`; none when the header does not say.
    pub sqlite_version: Option<String>,
    /// Tables with the count of their rows and a hash of all they hold, by name.
    pub tables: Vec<TableContent>,
    /// Why its content could not be read, although its bytes are kept: encrypted, or an extension is missing.
    pub unreadable: Option<String>,
}

/// The content of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableContent {
    /// Its name.
    pub name: String,
    /// Rows.
    pub rows: u64,
    /// SHA-256 over all rows, whatever their order in the file, in hex.
    pub digest: String,
}

/// The last proof of a point: its data was restored to a scratch place and looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// When.
    pub at: Timestamp,
    /// What it came to.
    pub verdict: ProofVerdict,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// What a proof came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum ProofVerdict {
    /// Every byte is there, every database is whole and holds what it held when the point was taken.
    Proven {
        /// Databases that were looked into.
        databases: u64,
        /// Their rows.
        rows: u64,
    },
    /// Nobody knows: each try to look at it failed, such as by a database on which the looking itself ends.
    Unknown {
        /// What ended the last try.
        reason: String,
    },
    /// It cannot be restored as it was.
    Broken {
        /// What is wrong, with path or chunk.
        reason: String,
    },
}

impl Proof {
    /// Returns whether the point was found restorable.
    pub fn is_proven(&self) -> bool {
        matches!(self.verdict, ProofVerdict::Proven { .. })
    }
}

/// A restore point as the control plane knows it. Its manifest and data lie with the volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// Its id.
    pub id: RestorePointId,
    /// The volume.
    pub volume: VolumeId,
    /// The service that mounts it.
    pub service: ServiceId,
    /// The instant that it holds.
    pub taken_at: Timestamp,
    /// Why.
    pub reason: PointReason,
    /// The release that had written the data.
    pub release: Option<ReleaseId>,
    /// What was captured.
    pub capture: Capture,
    /// The last proof; none until the first drill.
    pub proof: Option<Proof>,
}

impl RestorePoint {
    /// Returns whether its last proof found it restorable.
    pub fn is_proven(&self) -> bool {
        self.proof.as_ref().is_some_and(Proof::is_proven)
    }

    /// Returns whether its last proof found it broken.
    pub fn is_broken(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| matches!(proof.verdict, ProofVerdict::Broken { .. }))
    }

    /// Returns whether its last proof came to no verdict.
    pub fn is_undecided(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| matches!(proof.verdict, ProofVerdict::Unknown { .. }))
    }
}

/// How the data of a volume differs from that of a point: what a restore would change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Difference {
    /// Files that the volume has and the point does not: a restore sets them aside.
    pub added: u64,
    /// Files whose content differs.
    pub changed: u64,
    /// Files that the point has and the volume does not: a restore brings them back.
    pub missing: u64,
    /// Some of the paths, each with `+`, `~` or `-` before it.
    pub paths: Vec<String>,
    /// Tables whose count of rows or content differs.
    pub tables: Vec<TableDifference>,
}

/// How a table differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDifference {
    /// Path of the database within the volume.
    pub database: String,
    /// The table.
    pub table: String,
    /// Rows in the volume now; none when it has no such table.
    pub rows_now: Option<u64>,
    /// Rows in the point; none when it has no such table.
    pub rows_then: Option<u64>,
}
