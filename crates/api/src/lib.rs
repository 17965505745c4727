//! Wire shapes of the API. Plain data: converted to and from the domain only in `server`.
//!
//! Paths (all below `/v1`, JSON unless said otherwise; errors are [`ErrorBody`]):
//!
//! | method and path | body → answer |
//! |---|---|
//! | `GET /box` | → [`BoxInfo`] |
//! | `POST /box/stop` | [`StopBox`] → 202; stops the edge, `serve` and, when asked, every instance |
//! | `POST /sources` | a tar stream → [`SourceInfo`] |
//! | `POST /plans` | [`PlanRequest`] → [`Plan`] |
//! | `POST /deployments` | [`DeploymentRequest`] → 202 [`Deployment`] |
//! | `GET /deployments/{id}` | → [`Deployment`] |
//! | `GET /deployments/{id}/events?after=N` | → [`EventPage`]; waits up to 20 s for something new |
//! | `GET /deployments/{id}/log?from=N` | → [`LogPage`]: what the build said |
//! | `GET /services` | → list of [`Service`] |
//! | `GET /services/{project}/{service}` | → [`Service`] |
//! | `GET …/deployments?limit=N` | → list of [`Deployment`], newest first |
//! | `POST …/stop` | → 202 [`Service`] |
//! | `GET …/logs?tail=N` or `?from=CURSOR&wait=true` | → [`LogPage`] |
//! | `GET …/variables?show=true` | → list of [`Variable`] |
//! | `PATCH …/variables` | [`VariableChange`] → list of [`Variable`] |
//! | `GET …/volumes`, `POST …/volumes` | [`VolumeRequest`] → [`Volume`] |
//! | `GET …/volumes/{name}/files?path=P` | → list of [`FileEntry`] |
//! | `POST …/run` | [`RunRequest`] → a stream of [`RunEvent`], one JSON object a line |

mod boxes;
mod deployments;
mod errors;
mod logs;
mod services;
mod variables;
mod volumes;

pub use boxes::{BoxInfo, EdgeInfo, IsolationInfo, StopBox};
pub use deployments::{
    Deployment, DeploymentRequest, Event, EventPage, Failure, Pause, Plan, PlanRequest, PlannedSetting,
    SourceInfo, Warning,
};
pub use errors::{ErrorBody, ErrorCode, ErrorDetail};
pub use logs::{LogLine, LogPage, RunEvent, RunRequest};
pub use services::{Instance, Release, Service};
pub use variables::{Variable, VariableChange};
pub use volumes::{FileEntry, Volume, VolumeHolder, VolumeRequest};
