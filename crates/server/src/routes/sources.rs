//! Taking in a source, and telling what would be done with it.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use trackbed_api::{ErrorCode, Plan, PlanRequest, SourceInfo};
use trackbed_build::source::{self, Earlier, SourceLimits};
use trackbed_core::Digest;

use crate::api::Api;
use crate::convert;
use crate::error::ApiError;
use crate::given::Given;
use crate::pieces::read_body;

#[derive(Deserialize)]
pub(crate) struct Against {
    earlier: Option<String>,
}

pub(crate) async fn receive(
    State(api): State<Api>,
    Query(Against { earlier }): Query<Against>,
    body: Body,
) -> Result<Json<SourceInfo>, ApiError> {
    let earlier = match earlier {
        Some(digest) => Some(find_earlier(&api, digest.parse()?).await?),
        None => None,
    };
    let data_dir = api.data_dir.clone();
    let receive = move |pieces| source::receive(pieces, &data_dir, SourceLimits::default(), earlier);
    let unpacked = read_body(body, receive).await;
    let received = unpacked.map_err(|error| ApiError::invalid(error.to_string()))?;
    keep(&api, received.map_err(ApiError::source)?.digest).await
}

async fn find_earlier(api: &Api, digest: Digest) -> Result<Earlier, ApiError> {
    let (data_dir, asked) = (api.data_dir.clone(), digest.clone());
    let found = tokio::task::spawn_blocking(move || Earlier::find(&data_dir, &asked)).await;
    found.map_err(|error| ApiError::invalid(error.to_string()))?.ok_or_else(|| unknown(&digest))
}

/// Says that a source is here, and keeps it for whoever asked.
pub(crate) async fn find(
    State(api): State<Api>,
    Path(digest): Path<String>,
) -> Result<Json<SourceInfo>, ApiError> {
    let digest: Digest = digest.parse()?;
    let (data_dir, asked) = (api.data_dir.clone(), digest.clone());
    let found = tokio::task::spawn_blocking(move || source::is_here(&data_dir, &asked)).await;
    if !found.map_err(|error| ApiError::invalid(error.to_string()))? {
        return Err(unknown(&digest));
    }
    keep(&api, digest).await
}

async fn keep(api: &Api, digest: Digest) -> Result<Json<SourceInfo>, ApiError> {
    api.control.add_source(digest.clone()).await?;
    Ok(Json(SourceInfo { digest: digest.to_string() }))
}

fn unknown(digest: &Digest) -> ApiError {
    let message = format!("the box has no source {}", digest.short());
    ApiError::new(ErrorCode::NotFound, message, Some("upload all of it".into()))
}

pub(crate) async fn plan(
    State(api): State<Api>,
    Given(request): Given<PlanRequest>,
) -> Result<Json<Plan>, ApiError> {
    let (project, service) = (request.project.parse()?, request.service.parse()?);
    let plan = api.control.plan(&project, &service, request.source.parse()?, request.overrides).await;
    Ok(Json(convert::plan(plan.map_err(|error| match error {
        trackbed_control::ControlError::Port(error) => ApiError::source(error),
        other => other.into(),
    })?)))
}
