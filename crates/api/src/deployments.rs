//! Sources, plans and deployments.

use serde::{Deserialize, Serialize};

use crate::Changes;

/// A source that the box has taken in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Its digest.
    pub digest: String,
}

/// Asks what would be done with a source, without doing it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanRequest {
    /// Project name.
    pub project: String,
    /// Service name.
    pub service: String,
    /// Digest of a source that the box has.
    pub source: String,
    /// Flags that override settings: dotted key and value.
    #[serde(default)]
    pub overrides: Vec<(String, String)>,
}

/// What would be built and run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Who builds it: `python`.
    pub provider: String,
    /// What was found.
    pub summary: String,
    /// Every setting, its value and where it came from.
    pub settings: Vec<PlannedSetting>,
    /// What is odd.
    pub warnings: Vec<Warning>,
}

/// A setting and where it came from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedSetting {
    /// Dotted key.
    pub key: String,
    /// Value as text.
    pub value: String,
    /// `railway.json:4`, `--start`, `default`.
    pub place: String,
    /// Who set it: `flag`, `trackbed-toml`, `railway`, `railpack`, `nixpacks`, `procfile`, `platform`, `detection`,
    /// `stored` or `default`.
    #[serde(default)]
    pub origin: String,
}

/// Something odd that stops nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Warning {
    /// File in the source.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// What, and the mend.
    pub message: String,
}

/// Asks for a deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeploymentRequest {
    /// Project name; made when new.
    pub project: String,
    /// Service name; made when new.
    pub service: String,
    /// `up`, `redeploy`, `rollback` or `restart`. Restores and adoptions have paths of their own.
    pub kind: String,
    /// For `up`: digest of a source that the box has.
    #[serde(default)]
    pub source: Option<String>,
    /// For `rollback`: the release's number; without one, the release before the live one.
    #[serde(default)]
    pub version: Option<u32>,
    /// For `rollback`: put the data of that release back, too.
    #[serde(default)]
    pub with_data: bool,
    /// For `up`: flags that override settings.
    #[serde(default)]
    pub overrides: Vec<(String, String)>,
    /// For `up`: the commit that the source was made of, when a push brought it. Then `watchPatterns` count.
    #[serde(default)]
    pub commit: Option<Commit>,
    /// For `up`: the number of the delivery that brought it.
    #[serde(default)]
    pub delivery: Option<i64>,
}

/// A commit that a push brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// `push` for `git push` to the box, `remote` for one that the box fetched.
    pub via: String,
    /// Its name.
    pub id: String,
    /// The branch that it came on.
    pub branch: String,
    /// The first line of its message.
    pub subject: String,
}

/// A deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deployment {
    /// Its id.
    pub id: String,
    /// Project name.
    pub project: String,
    /// Service name.
    pub service: String,
    /// What asked for it.
    pub kind: String,
    /// The commit that a push brought.
    #[serde(default)]
    pub commit: Option<Commit>,
    /// `queued`, `building`, `deploying`, `success`, `failed`, `superseded`, `cancelled` or `skipped`.
    pub status: String,
    /// The step it is at, or ended at.
    pub step: String,
    /// `v3`, once there is a release.
    pub release: Option<String>,
    /// Size of the image that was built, in bytes, with the layers that other releases share.
    #[serde(default)]
    pub image_bytes: Option<u64>,
    /// `overlap` or `held`, once decided.
    pub handover: Option<String>,
    /// How long a `held` handover may hold callers, in milliseconds; none when there is nobody to be given back to.
    #[serde(default)]
    pub hold_window_ms: Option<u64>,
    /// What callers saw of a `held` handover, once that is known.
    #[serde(default)]
    pub pause: Option<Pause>,
    /// The data as it was just before the new release started, one pin for each volume.
    #[serde(default)]
    pub pins: Vec<Pin>,
    /// The data that it goes back to, for each volume that is not left as it is.
    #[serde(default)]
    pub restores: Vec<RestoredVolume>,
    /// What going back took out of the volumes; that is kept in their pins.
    #[serde(default)]
    pub replaced: Vec<ReplacedData>,
    /// What moves from outside into a volume.
    #[serde(default)]
    pub adopts: Option<Adoption>,
    /// What was done to the data when it was undone.
    #[serde(default)]
    pub data_undone: Option<String>,
    /// How long the new release took until it was healthy on a copy of the data, in milliseconds; none when it was not
    /// tried.
    #[serde(default)]
    pub rehearsal_took_ms: Option<u64>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Id of the newer deployment that it was given up for.
    #[serde(default)]
    pub superseded_by: Option<String>,
    /// Why it was skipped.
    #[serde(default)]
    pub skipped: Option<String>,
    /// Whether its release is the live one now.
    pub live: bool,
    /// Where the service answers.
    pub url: String,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
    /// Likewise, when it ended.
    pub finished_at: Option<i64>,
}

/// The requests that waited while neither release served.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Pause {
    /// The longest wait in milliseconds.
    pub longest_ms: u64,
    /// Requests that waited.
    pub requests: u64,
    /// Of those, the ones that were given up with 503.
    pub refused: u64,
}

/// The data of a volume just before a release started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pin {
    /// Name of the volume.
    pub volume: String,
    /// Id of the restore point that holds it.
    pub point: String,
    /// Whether it has been taken; the id is chosen before.
    pub taken: bool,
    /// How long the app stood still for it, in milliseconds.
    pub pause_ms: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes that it added on disk.
    pub stored_bytes: u64,
}

/// A volume that goes back to a restore point.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoredVolume {
    /// Name of the volume.
    pub volume: String,
    /// Id of the point.
    pub point: String,
}

/// What going back to a restore point took out of a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplacedData {
    /// Name of the volume.
    pub volume: String,
    /// How its data differed from that of the point.
    #[serde(flatten)]
    pub changes: Changes,
    /// Id of the restore point that keeps what was taken out; none until that is taken.
    pub kept_in: Option<String>,
}

/// What moves from outside into a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Adoption {
    /// Absolute paths, as the app sees them.
    pub paths: Vec<String>,
    /// Name of the volume that takes them.
    pub volume: String,
}

/// Why a deployment failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed.
    pub stage: String,
    /// What happened.
    pub reason: String,
    /// What to do.
    pub hint: Option<String>,
    /// The last lines of the app or the build.
    pub log_tail: Vec<String>,
}

/// Something that happened in a deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Grows within the deployment.
    pub sequence: u64,
    /// Milliseconds since 1970 UTC.
    pub at: i64,
    /// The step it belongs to.
    pub step: String,
    /// `started`, `done`, `note`, `warning` or `failed`.
    pub kind: String,
    /// For people.
    pub message: String,
}

/// Events from a place on, and the deployment as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventPage {
    /// Oldest first.
    pub events: Vec<Event>,
    /// The deployment.
    pub deployment: Deployment,
}
