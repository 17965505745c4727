//! SQLite databases in the volumes of a service: what they hold, and statements on them.

use axum::Json;
use axum::extract::{Path, State};
use tokio::time::Instant;
use trackbed_api as wire;
use trackbed_api::ErrorCode;
use trackbed_core::Name;
use trackbed_core::ports::PointData;
use trackbed_core::restore_point::RestorePoint;
use trackbed_core::service::Service;
use trackbed_core::volume::Volume;
use trackbed_volume::inspect::QueryLimits;

use crate::api::Api;
use crate::convert_data;
use crate::error::ApiError;
use crate::given::Given;
use crate::routes::volumes::{InVolume, find};

/// Longest statement in bytes.
const SQL_MAX_BYTES: usize = 512 << 10;

/// Takes a restore point and says what the databases in it hold.
pub(crate) async fn list(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
) -> Result<Json<Vec<wire::Database>>, ApiError> {
    let (project, name) = (project.parse()?, service.parse()?);
    let service = api.control.service(&project, &name).await?;
    let volumes = api.control.volumes(&service).await?;
    let mut list = Vec::new();
    if volumes.is_empty() {
        return Ok(Json(list));
    }
    for point in api.control.request_look(&project, &name, None).await? {
        let Some(volume) = volumes.iter().find(|volume| volume.id == point.volume) else { continue };
        let found = api.volumes.databases(&data(&point)).await.map_err(ApiError::source)?;
        let one = |found| convert_data::database(found, &point, volume.name.to_string());
        list.extend(found.into_iter().map(one));
    }
    Ok(Json(list))
}

pub(crate) async fn query(
    State(api): State<Api>,
    Path((project, service, name)): InVolume,
    Given(request): Given<wire::QueryRequest>,
) -> Result<Json<wire::QueryResult>, ApiError> {
    if request.sql.len() > SQL_MAX_BYTES {
        return Err(ApiError::invalid(format!(
            "the statement has {} bytes; at most {SQL_MAX_BYTES} are taken",
            request.sql.len()
        )));
    }
    let (service, volume) = find(&api, &project, &service, &name).await?;
    let point = match &request.point {
        Some(id) => known(&api, &volume, id).await?,
        None => fresh(&api, &project.parse()?, &service, &volume, request.write).await?,
    };
    let began = Instant::now();
    let (database, sql, limits) = (&request.database, &request.sql, QueryLimits::default());
    let answer = match request.write {
        true => api.volumes.query_live(&volume.id, database, sql, limits).await,
        false => api.volumes.query_point(&data(&point), database, sql, limits).await,
    };
    let answer = answer.map_err(|error| {
        ApiError::new(ErrorCode::InvalidRequest, format!("{database}: {}", error.message), error.hint)
    })?;
    Ok(Json(wire::QueryResult {
        point: point.id.to_string(),
        taken_at: point.taken_at.0,
        rows: convert_data::rows(&answer),
        columns: answer.columns,
        truncated: answer.is_cut,
        changed: request.write.then_some(answer.changed),
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    }))
}

async fn known(api: &Api, volume: &Volume, id: &str) -> Result<RestorePoint, ApiError> {
    let id = id.parse()?;
    let points = api.control.restore_points(volume).await?;
    points.into_iter().find(|point| point.id == id).ok_or_else(|| {
        let message = format!("volume `{}` has no restore point `{id}`", volume.name);
        ApiError::new(ErrorCode::NotFound, message, Some("leave it out, and one is taken now".into()))
    })
}

async fn fresh(
    api: &Api,
    project: &Name,
    service: &Service,
    volume: &Volume,
    write: bool,
) -> Result<RestorePoint, ApiError> {
    let (name, wanted) = (&service.name, Some(volume.name.clone()));
    let points = match write {
        // It is the way back from what is about to be written.
        true => api.control.request_backup(project, name, wanted).await?,
        false => api.control.request_look(project, name, wanted).await?,
    };
    points.into_iter().next().ok_or_else(|| ApiError::invalid("no restore point was taken"))
}

fn data(point: &RestorePoint) -> PointData {
    PointData { volume: point.volume.clone(), point: point.id.clone() }
}
