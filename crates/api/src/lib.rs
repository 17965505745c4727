//! Wire shapes of the API. Plain data: converted to and from the domain only in `server`.
//!
//! Paths (all below `/v1`, JSON unless said otherwise; errors are [`ErrorBody`]):
//!
//! | method and path | body → answer |
//! |---|---|
//! | `GET /box` | → [`BoxInfo`] |
//! | `POST /box/stop` | [`StopBox`] → 202; stops the edge, `serve` and, when asked, every instance |
//! | `GET /backup` | → [`Backup`] |
//! | `PUT /backup/target`, `DELETE /backup/target` | [`BackupTargetRequest`] → [`BackupKey`]; → [`Backup`] |
//! | `POST /backup/now` | → 202 [`Backup`] as it was before; `passes` grows when the pass has ended |
//! | `GET /backup/key` | → [`BackupKey`] |
//! | `POST /sources` | a tar stream → [`SourceInfo`] |
//! | `POST /sources?earlier=DIGEST` | what differs from that source, and in a global header the names that are gone |
//! | `POST /sources/{digest}` | → [`SourceInfo`] when the box has it, which it keeps for an hour then |
//! | `POST /plans` | [`PlanRequest`] → [`Plan`] |
//! | `POST /deployments` | [`DeploymentRequest`] → 202 [`Deployment`] |
//! | `GET /deployments/{id}` | → [`Deployment`] |
//! | `GET /deployments/{id}/events?after=N` | → [`EventPage`]; waits up to 20 s for something new |
//! | `GET /deployments/{id}/log?from=N` | → [`LogPage`]: what the build said |
//! | `GET /services` | → list of [`Service`] |
//! | `GET /services/{project}/{service}` | → [`Service`] |
//! | `GET …/deployments?limit=N` | → list of [`Deployment`], newest first |
//! | `POST …/stop` | → 202 [`Service`] |
//! | `GET …/logs?tail=N` or `?from=CURSOR&wait=true`, each also with `&process=NAME` | → [`LogPage`] |
//! | `GET …/variables?show=true` | → list of [`Variable`] |
//! | `PATCH …/variables` | [`VariableChange`] → list of [`Variable`] |
//! | `GET …/scale` | → list of [`ScaledProcess`] |
//! | `PATCH …/scale` | [`ScaleChange`] → list of [`ScaledProcess`] |
//! | `GET …/rollback?version=N` | → [`RollbackPreview`]: what a rollback with data would change |
//! | `GET …/volumes`, `?removed=true` | → list of [`Volume`]; the removed ones that can still be had back |
//! | `POST …/volumes` | [`VolumeRequest`] → [`Volume`] |
//! | `PATCH …/volumes/{name}` | [`VolumeChange`] → [`Volume`] |
//! | `DELETE …/volumes/{name}` | → [`Volume`], whose data is kept for a while |
//! | `POST …/volumes/{name}/undelete` | → [`Volume`] |
//! | `POST …/volumes/{name}/clones` | [`CloneRequest`] → [`Volume`], the new one |
//! | `GET …/volumes/{name}/files?path=P` | → list of [`FileEntry`] |
//! | `GET …/volumes/{name}/file?path=P` | → its bytes; a folder comes as a tar |
//! | `PUT …/volumes/{name}/file?path=P` | bytes → [`FileEntry`] |
//! | `GET …/volumes/{name}/usage?path=P` | → [`FolderUsage`] |
//! | `GET …/volumes/{name}/points` | → list of [`RestorePoint`], newest first |
//! | `GET …/volumes/{name}/difference?at=A` | → [`Difference`]: what a restore would change |
//! | `POST …/volumes/{name}/restore` | [`RestoreRequest`] → 202 [`Deployment`] |
//! | `DELETE …/volumes/{name}/points/{point}` | → [`RestorePoint`] that is gone |
//! | `POST …/volumes/{name}/drills` | [`DrillRequest`] → [`RestorePoint`] with its new proof |
//! | `POST …/volumes/{name}/queries` | [`QueryRequest`] → [`QueryResult`] |
//! | `POST …/points` | [`SnapshotRequest`] → list of [`RestorePoint`] |
//! | `POST …/adoptions` | [`AdoptionRequest`] → 202 [`Deployment`] |
//! | `GET …/databases` | → list of [`Database`], from a restore point taken now |
//! | `GET …/git`, `PATCH …/git` | → [`GitAccess`]; [`GitChange`] → [`GitAccess`] |
//! | `POST …/git/tokens` | [`GitTokenRequest`] → [`NewGitToken`]; makes the service when it is new |
//! | `DELETE …/git/tokens/{id}` | → [`GitAccess`] |
//! | `GET …/remote`, `DELETE …/remote` | → [`Remote`] |
//! | `PUT …/remote` | [`RemoteRequest`] → [`ConnectedRemote`]; makes the service when it is new |
//! | `POST …/remote/deliveries` | → 202 [`Delivery`]: fetches what the branch is at |
//! | `GET …/live?source=D` | → [`LiveSource`] |
//! | `POST …/run` | [`RunRequest`] → a stream of [`RunEvent`], one JSON object a line |

mod backup;
mod boxes;
mod check;
mod databases;
mod deployments;
mod errors;
mod git;
mod logs;
mod points;
mod remotes;
mod scale;
mod services;
mod settings_file;
mod variables;
mod volumes;

pub use backup::{Backup, BackupCopy, BackupKey, BackupTarget, BackupTargetRequest};
pub use boxes::{BoxInfo, EdgeInfo, IsolationInfo, StopBox};
pub use check::{CheckReport, CheckRule, Finding};
pub use databases::{Database, QueryRequest, QueryResult, Table};
pub use deployments::{
    Adoption, Commit, Deployment, DeploymentRequest, Event, EventPage, Failure, Pause, Pin, Plan,
    PlanRequest, PlannedSetting, ReplacedData, RestoredVolume, SourceInfo, Warning,
};
pub use errors::{ErrorBody, ErrorCode, ErrorDetail};
pub use git::{GitAccess, GitChange, GitToken, GitTokenRequest, LiveSource, NewGitToken};
pub use logs::{LogLine, LogPage, RunEvent, RunRequest};
pub use points::{
    AdoptionRequest, Changes, Difference, DrillRequest, Proof, RestorePoint, RestoreRequest, RollbackPreview,
    SnapshotRequest, TableDifference,
};
pub use remotes::{ConnectedRemote, Delivery, Remote, RemoteRequest};
pub use scale::{ScaleChange, ScaledProcess};
pub use services::{Instance, Job, JobRun, Process, Release, Service};
pub use settings_file::{says_something, settings_file};
pub use variables::{Variable, VariableChange};
pub use volumes::{
    CloneRequest, DatabaseSeen, EntryUsage, FileEntry, FolderUsage, Volume, VolumeChange, VolumeHolder,
    VolumeRequest,
};
