//! Restore points: listed, taken, compared, gone back to, proven.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use trackbed_api as wire;
use trackbed_control::{DeploymentWish, PointAt, WayBack};
use trackbed_core::Timestamp;
use trackbed_core::restore_point::RestorePoint;
use trackbed_core::service::Service;
use trackbed_stdx::clock::now_ms;

use crate::api::Api;
use crate::convert_data;
use crate::error::ApiError;
use crate::given::{Asked, Given};
use crate::routes::deployments;
use crate::routes::volumes::{InVolume, find, of};

pub(crate) async fn list(
    State(api): State<Api>,
    Path((project, service, name)): InVolume,
) -> Result<Json<Vec<wire::RestorePoint>>, ApiError> {
    let (service, volume) = find(&api, &project, &service, &name).await?;
    let points = api.control.restore_points(&volume).await?;
    Ok(Json(to_wire(&api, &service, points).await?))
}

pub(crate) async fn forget(
    State(api): State<Api>,
    Path((project, service, name, point)): Path<(String, String, String, String)>,
) -> Result<Json<wire::RestorePoint>, ApiError> {
    let (service, volume) = find(&api, &project, &service, &name).await?;
    let id = point.parse()?;
    let points = api.control.restore_points(&volume).await?;
    let found: Vec<_> = points.into_iter().filter(|known| known.id == id).collect();
    let mut told = to_wire(&api, &service, found).await?;
    let told = told.pop().ok_or_else(|| {
        let message = format!("volume `{name}` has no restore point `{point}`");
        ApiError::new(wire::ErrorCode::NotFound, message, None)
    })?;
    api.control.remove_restore_point(&service, &id).await?;
    Ok(Json(told))
}

pub(crate) async fn take(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
    Given(request): Given<wire::SnapshotRequest>,
) -> Result<Json<Vec<wire::RestorePoint>>, ApiError> {
    let (project, name) = (project.parse()?, service.parse()?);
    let volume = request.volume.map(|volume| volume.parse()).transpose()?;
    let points = api.control.request_backup(&project, &name, volume).await?;
    let service = api.control.service(&project, &name).await?;
    Ok(Json(to_wire(&api, &service, points).await?))
}

#[derive(Deserialize)]
pub(crate) struct At {
    at: String,
}

pub(crate) async fn difference(
    State(api): State<Api>,
    Path((project, service, name)): InVolume,
    Asked(At { at }): Asked<At>,
) -> Result<Json<wire::Difference>, ApiError> {
    let (service, name) = of(&api, &project, &service, &name).await?;
    let way = api.control.way_back(&service, &name, parse_at(&at)?).await?;
    Ok(Json(way_to_wire(&api, way).await?))
}

pub(crate) async fn restore(
    State(api): State<Api>,
    Path((project, service, name)): InVolume,
    Given(request): Given<wire::RestoreRequest>,
) -> Result<(StatusCode, Json<wire::Deployment>), ApiError> {
    let wish = DeploymentWish::Restore { volume: Some(name.parse()?), at: parse_at(&request.at)? };
    let asked = api.control.request_deployment(project.parse()?, service.parse()?, wish).await?;
    Ok((StatusCode::ACCEPTED, Json(deployments::to_wire(&api, &asked).await?)))
}

pub(crate) async fn adopt(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
    Given(request): Given<wire::AdoptionRequest>,
) -> Result<(StatusCode, Json<wire::Deployment>), ApiError> {
    let absolute = |path: String| match path.starts_with('/') {
        true => path,
        false => format!("/app/{}", path.trim_start_matches("./")),
    };
    let paths = request.paths.into_iter().map(absolute).collect();
    let volume = request.volume.map(|volume| volume.parse()).transpose()?;
    let wish = DeploymentWish::Adopt { paths, volume };
    let asked = api.control.request_deployment(project.parse()?, service.parse()?, wish).await?;
    Ok((StatusCode::ACCEPTED, Json(deployments::to_wire(&api, &asked).await?)))
}

pub(crate) async fn drill(
    State(api): State<Api>,
    Path((project, service, name)): InVolume,
    Given(request): Given<wire::DrillRequest>,
) -> Result<Json<wire::RestorePoint>, ApiError> {
    let (service, name) = of(&api, &project, &service, &name).await?;
    let point = request.point.map(|point| point.parse()).transpose()?;
    let proven = api.control.request_drill(&service, &name, point).await?;
    let mut points = to_wire(&api, &service, vec![proven]).await?;
    points.pop().map(Json).ok_or_else(|| ApiError::invalid("the restore point is gone"))
}

#[derive(Deserialize)]
pub(crate) struct Version {
    version: Option<u32>,
}

pub(crate) async fn preview_rollback(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
    Asked(Version { version }): Asked<Version>,
) -> Result<Json<wire::RollbackPreview>, ApiError> {
    let service = api.control.service(&project.parse()?, &service.parse()?).await?;
    let (release, ways) = api.control.preview_rollback(&service, version).await?;
    let mut volumes = Vec::new();
    for way in ways {
        volumes.push(way_to_wire(&api, way).await?);
    }
    Ok(Json(wire::RollbackPreview { release: release.label(), volumes }))
}

/// Reads which point is meant: an id, `proven`, or a time in milliseconds since 1970 UTC.
pub(crate) fn parse_at(text: &str) -> Result<PointAt, ApiError> {
    if text == "proven" {
        return Ok(PointAt::Newest);
    }
    let Ok(at) = text.parse::<i64>() else { return Ok(PointAt::Id(text.parse()?)) };
    if at > now_ms() {
        return Err(ApiError::invalid(format!("{at} is in the future: nobody can go back to it")));
    }
    Ok(PointAt::Time(Timestamp(at)))
}

/// Converts points of a service, each with the names of its volume and its release.
pub(crate) async fn to_wire(
    api: &Api,
    service: &Service,
    points: Vec<RestorePoint>,
) -> Result<Vec<wire::RestorePoint>, ApiError> {
    let labels = api.control.release_labels(&points).await?;
    let volumes = api.control.volumes(service).await?;
    let one = |point: RestorePoint| {
        let volume = volumes.iter().find(|volume| volume.id == point.volume);
        let name = volume.map_or_else(|| point.volume.to_string(), |volume| volume.name.to_string());
        let label = point.release.as_ref().and_then(|release| labels.get(release)).cloned();
        convert_data::point(point, name, label)
    };
    Ok(points.into_iter().map(one).collect())
}

async fn way_to_wire(api: &Api, way: WayBack) -> Result<wire::Difference, ApiError> {
    let labels = api.control.release_labels(std::slice::from_ref(&way.point)).await?;
    Ok(convert_data::way_back(way, labels.into_values().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_by_id_by_proof_or_by_time() {
        assert_eq!(parse_at("proven").unwrap(), PointAt::Newest);
        assert_eq!(parse_at("1000").unwrap(), PointAt::Time(Timestamp(1000)));
        let id = trackbed_core::RestorePointId::from_random([7; 10]);
        assert_eq!(parse_at(id.as_str()).unwrap(), PointAt::Id(id));
        for bad in ["", "yesterday", "rp_", "vol_0123456789abcdef", &i64::MAX.to_string(), "1.5"] {
            assert!(parse_at(bad).is_err(), "{bad}");
        }
    }
}
