//! Taking in a source, and telling what would be done with it.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use trackbed_api::{Plan, PlanRequest, SourceInfo};
use trackbed_build::source::{self, SourceLimits};

use crate::api::Api;
use crate::convert;
use crate::error::ApiError;
use crate::given::Given;
use crate::pieces::read_body;

pub(crate) async fn receive(State(api): State<Api>, body: Body) -> Result<Json<SourceInfo>, ApiError> {
    let data_dir = api.data_dir.clone();
    let unpacked =
        read_body(body, move |pieces| source::receive(pieces, &data_dir, SourceLimits::default())).await;
    let received = unpacked.map_err(|error| ApiError::invalid(error.to_string()))?;
    let source = received.map_err(ApiError::source)?;
    api.control.add_source(source.digest.clone()).await?;
    Ok(Json(SourceInfo { digest: source.digest.to_string() }))
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
