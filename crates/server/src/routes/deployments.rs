//! Deployments: ask for one, look at one, follow one.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use trackbed_api as wire;
use trackbed_control::DeploymentWish;
use trackbed_core::deployment::Deployment;
use trackbed_core::git::{Commit, Via};
use trackbed_core::settings::Handover;

use crate::api::Api;
use crate::convert;
use crate::convert_data;
use crate::error::ApiError;
use crate::given::{Asked, Given};

/// Longest wait for something new to say.
const FOLLOW_WAIT: Duration = Duration::from_secs(20);
/// Deployments in a list when no number is asked for, and at most.
const LIST_DEFAULT: u32 = 20;
const LIST_MAX: u32 = 200;

pub(crate) async fn request(
    State(api): State<Api>,
    Given(request): Given<wire::DeploymentRequest>,
) -> Result<(StatusCode, Json<wire::Deployment>), ApiError> {
    let commit = request.commit.as_ref().map(commit_of).transpose()?;
    let wish = match (request.kind.as_str(), request.source) {
        ("up", Some(source)) => match commit {
            Some(commit) => {
                DeploymentWish::Pushed { source: source.parse()?, commit, delivery: request.delivery }
            }
            None => DeploymentWish::Up { source: source.parse()?, overrides: request.overrides },
        },
        ("up", None) => return Err(ApiError::invalid("`up` needs a source")),
        ("redeploy", _) => DeploymentWish::Redeploy,
        ("rollback", _) => {
            DeploymentWish::Rollback { version: request.version, with_data: request.with_data }
        }
        ("restart", _) => DeploymentWish::Restart,
        (other, _) => return Err(ApiError::invalid(format!("`{other}` is not a kind of deployment"))),
    };
    let asked =
        api.control.request_deployment(request.project.parse()?, request.service.parse()?, wish).await?;
    Ok((StatusCode::ACCEPTED, Json(to_wire(&api, &asked).await?)))
}

fn commit_of(commit: &wire::Commit) -> Result<Commit, ApiError> {
    let via = match commit.via.as_str() {
        "push" => Via::Push,
        "remote" => Via::Remote,
        other => return Err(ApiError::invalid(format!("`{other}` is no way for a commit to come"))),
    };
    Ok(Commit::new(via, &commit.id, &commit.branch, &commit.subject)?)
}

pub(crate) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<wire::Deployment>, ApiError> {
    let deployment = api.control.deployment(&id.parse()?).await?;
    Ok(Json(to_wire(&api, &deployment).await?))
}

pub(crate) async fn cancel(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<wire::Deployment>), ApiError> {
    let cancelled = api.control.request_cancel_of(&id.parse()?).await?;
    Ok((StatusCode::ACCEPTED, Json(to_wire(&api, &cancelled).await?)))
}

/// Cancels what is under way of a service.
pub(crate) async fn cancel_all(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
) -> Result<(StatusCode, Json<wire::Deployment>), ApiError> {
    let cancelled = api.control.request_cancel(&project.parse()?, &service.parse()?).await?;
    Ok((StatusCode::ACCEPTED, Json(to_wire(&api, &cancelled).await?)))
}

#[derive(Deserialize)]
pub(crate) struct After {
    #[serde(default)]
    after: u64,
}

pub(crate) async fn events(
    State(api): State<Api>,
    Path(id): Path<String>,
    Asked(After { after }): Asked<After>,
) -> Result<Json<wire::EventPage>, ApiError> {
    let id = id.parse()?;
    let mut news = api.control.news();
    let deadline = tokio::time::Instant::now() + FOLLOW_WAIT;
    loop {
        news.mark_unchanged();
        // The state first: an event that belongs to a later state may come with an earlier one, never the reverse.
        let deployment = api.control.deployment(&id).await?;
        let events = api.control.events(&id, after).await?;
        let over = tokio::time::Instant::now() >= deadline;
        // After an overlap the old release may drain for long; a held handover soon knows what callers saw.
        let ended = match deployment.handover {
            Some(Handover::Held) => deployment.finished_at.is_some(),
            Some(Handover::Overlap) | None => deployment.told().is_terminal(),
        };
        if !events.is_empty() || ended || over {
            let deployment = to_wire(&api, &deployment).await?;
            return Ok(Json(wire::EventPage {
                events: events.iter().map(convert::event).collect(),
                deployment,
            }));
        }
        // Either ending of the wait leads to one more look.
        let _ = tokio::time::timeout_at(deadline, news.changed()).await;
    }
}

#[derive(Deserialize)]
pub(crate) struct Limit {
    limit: Option<u32>,
}

pub(crate) async fn list(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
    Asked(Limit { limit }): Asked<Limit>,
) -> Result<Json<Vec<wire::Deployment>>, ApiError> {
    let service = api.control.service(&project.parse()?, &service.parse()?).await?;
    let limit = limit.unwrap_or(LIST_DEFAULT).min(LIST_MAX);
    let mut list = Vec::new();
    for deployment in api.control.deployments(&service, limit).await? {
        list.push(to_wire(&api, &deployment).await?);
    }
    Ok(Json(list))
}

pub(crate) async fn to_wire(api: &Api, deployment: &Deployment) -> Result<wire::Deployment, ApiError> {
    let (service, release) = api.control.around(deployment).await?;
    let mut volumes = Vec::new();
    if deployment.adopt.is_some() || deployment.points().next().is_some() {
        volumes = api.control.volumes(&service).await?;
        volumes.extend(api.control.removed_volumes(&service).await?);
    }
    let data = convert_data::data_of(deployment, |id| {
        let volume = volumes.iter().find(|volume| volume.id == *id);
        volume.map_or_else(|| id.to_string(), |volume| volume.name.to_string())
    });
    Ok(convert::deployment(&api.control, deployment, &service, release.as_ref(), data))
}
