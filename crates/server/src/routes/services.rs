//! Services: how they do, and stopping them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use trackbed_api as wire;
use trackbed_core::service::Service;

use crate::api::Api;
use crate::convert::{self, Around};
use crate::error::ApiError;
use crate::routes::{deployments, volumes};

pub(crate) async fn list(State(api): State<Api>) -> Result<Json<Vec<wire::Service>>, ApiError> {
    let mut list = Vec::new();
    for service in api.control.services().await? {
        list.push(view(&api, service).await?);
    }
    Ok(Json(list))
}

pub(crate) async fn show(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
) -> Result<Json<wire::Service>, ApiError> {
    let service = api.control.service(&project.parse()?, &service.parse()?).await?;
    Ok(Json(view(&api, service).await?))
}

pub(crate) async fn stop(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
) -> Result<(StatusCode, Json<wire::Service>), ApiError> {
    let service = api.control.request_stop(&project.parse()?, &service.parse()?).await?;
    Ok((StatusCode::ACCEPTED, Json(view(&api, service).await?)))
}

async fn view(api: &Api, service: Service) -> Result<wire::Service, ApiError> {
    let status = api.control.status(service).await?;
    let last_deployment = match &status.last_deployment {
        Some(deployment) => Some(deployments::to_wire(api, deployment).await?),
        None => None,
    };
    let volumes = volumes::to_wire(api, &status.service, &status.volumes).await?;
    let around = Around { volumes, isolation: api.engine.isolation(), last_deployment };
    Ok(convert::service(&api.control, status, around))
}
