//! Volumes of a service: listed, added, changed, cloned, removed and had back.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use trackbed_api as wire;
use trackbed_api::ErrorCode;
use trackbed_control::{CloneWish, Holder, Lease, VolumeData};
use trackbed_core::service::Service;
use trackbed_core::volume::Volume;
use trackbed_core::{Name, VolumeId};
use trackbed_volume::{Usage, find_databases, usage};

use crate::api::Api;
use crate::convert_data;
use crate::error::ApiError;
use crate::given::{Asked, Given};
use crate::routes::points::parse_at;

/// Names in the path of what belongs to a volume.
pub(crate) type InVolume = Path<(String, String, String)>;

#[derive(Deserialize)]
pub(crate) struct Which {
    #[serde(default)]
    removed: bool,
}

pub(crate) async fn list(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
    Asked(Which { removed }): Asked<Which>,
) -> Result<Json<Vec<wire::Volume>>, ApiError> {
    let service = api.control.service(&project.parse()?, &service.parse()?).await?;
    let volumes = match removed {
        true => api.control.removed_volumes(&service).await?,
        false => api.control.volumes(&service).await?,
    };
    let mut list = to_wire(&api, &service, &volumes).await?;
    if !removed {
        for (told, volume) in list.iter_mut().zip(volumes) {
            told.databases = databases(&api, &volume).await;
        }
    }
    Ok(Json(list))
}

pub(crate) async fn add(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
    Given(request): Given<wire::VolumeRequest>,
) -> Result<Json<wire::Volume>, ApiError> {
    let (name, mount) = (request.name.parse()?, request.mount.parse()?);
    let (project, service) = (project.parse()?, service.parse()?);
    let volume = api.control.add_volume(&project, &service, name, mount).await?;
    let service = api.control.service(&project, &service).await?;
    one(&api, &service, volume).await
}

pub(crate) async fn change(
    State(api): State<Api>,
    Path((project, service, name)): InVolume,
    Given(change): Given<wire::VolumeChange>,
) -> Result<Json<wire::Volume>, ApiError> {
    let (service, name) = of(&api, &project, &service, &name).await?;
    let parsed = |words: Vec<String>| words.iter().map(|word| word.parse()).collect::<Result<Vec<_>, _>>();
    let schedules = change.schedules.map(parsed).transpose()?;
    let limit = change.limit_bytes.map(|bytes| (bytes > 0).then_some(bytes));
    let volume = api.control.change_volume(&service, &name, schedules, limit).await?;
    one(&api, &service, volume).await
}

pub(crate) async fn remove(
    State(api): State<Api>,
    Path((project, service, name)): InVolume,
) -> Result<Json<wire::Volume>, ApiError> {
    let (service, name) = of(&api, &project, &service, &name).await?;
    let volume = api.control.remove_volume(&service, &name).await?;
    one(&api, &service, volume).await
}

pub(crate) async fn undelete(
    State(api): State<Api>,
    Path((project, service, name)): InVolume,
) -> Result<Json<wire::Volume>, ApiError> {
    let (service, name) = of(&api, &project, &service, &name).await?;
    let volume = api.control.undelete_volume(&service, &name).await?;
    one(&api, &service, volume).await
}

pub(crate) async fn clone(
    State(api): State<Api>,
    Path((project, service, name)): InVolume,
    Given(request): Given<wire::CloneRequest>,
) -> Result<Json<wire::Volume>, ApiError> {
    let (service, name) = of(&api, &project, &service, &name).await?;
    let wish = CloneWish {
        name: request.name.parse()?,
        mount: request.mount.map(|mount| mount.parse()).transpose()?,
        at: request.at.as_deref().map(parse_at).transpose()?,
    };
    let volumes = api.volumes.clone();
    let fill = |point, volume| async move { volumes.clone_to(&point, &volume).await.map(drop) };
    let volume = api.control.clone_volume(&project.parse()?, &service.name, &name, wish, fill).await?;
    one(&api, &service, volume).await
}

/// Returns the service and the name of a volume that a path names.
pub(crate) async fn of(
    api: &Api,
    project: &str,
    service: &str,
    name: &str,
) -> Result<(Service, Name), ApiError> {
    Ok((api.control.service(&project.parse()?, &service.parse()?).await?, name.parse()?))
}

/// Returns the service and the volume that a path names.
pub(crate) async fn find(
    api: &Api,
    project: &str,
    service: &str,
    name: &str,
) -> Result<(Service, Volume), ApiError> {
    let (service, name) = of(api, project, service, name).await?;
    let mut volumes = api.control.volumes(&service).await?;
    let Some(place) = volumes.iter().position(|volume| volume.name == name) else {
        let known: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        let hint = (!known.is_empty()).then(|| format!("it has: {}", known.join(", ")));
        let message = format!("service `{}` has no volume `{name}`", service.name);
        return Err(ApiError::new(ErrorCode::NotFound, message, hint));
    };
    Ok((service, volumes.swap_remove(place)))
}

async fn one(api: &Api, service: &Service, volume: Volume) -> Result<Json<wire::Volume>, ApiError> {
    let mut list = to_wire(api, service, &[volume]).await?;
    list.pop().map(Json).ok_or_else(|| ApiError::invalid("the volume is gone"))
}

fn holder(holder: Holder) -> wire::VolumeHolder {
    wire::VolumeHolder {
        instance: holder.instance.map(|instance| instance.to_string()),
        release: holder.release,
        deployment: holder.deployment.map(|deployment| deployment.to_string()),
        shared: holder.shared,
    }
}

/// Finds the databases of a volume by their headers. A volume that cannot be read has none that we know of.
async fn databases(api: &Api, volume: &Volume) -> Vec<wire::DatabaseSeen> {
    let folder = api.volumes.place(&volume.id).directory;
    let found = tokio::task::spawn_blocking(move || find_databases(&folder)).await;
    let found = found.map_err(std::io::Error::other).flatten().unwrap_or_else(|error| {
        tracing::warn!(volume = %volume.id, %error, "cannot look for databases");
        Vec::new()
    });
    found.into_iter().map(convert_data::found_database).collect()
}

/// Measures volumes and says what is known of their restore points. One that cannot be measured is told as empty rather
/// than hidden.
pub(crate) async fn to_wire(
    api: &Api,
    service: &Service,
    volumes: &[Volume],
) -> Result<Vec<wire::Volume>, ApiError> {
    let known = api.control.data_status(service).await?.into_iter();
    let mut known: HashMap<VolumeId, VolumeData> = known.map(|data| (data.volume.id.clone(), data)).collect();
    let mut list = Vec::new();
    for volume in volumes {
        let folder = api.volumes.place(&volume.id).directory;
        let Usage { used_bytes, free_bytes } = tokio::task::spawn_blocking(move || usage(&folder))
            .await
            .map_err(std::io::Error::other)
            .flatten()
            .unwrap_or_default();
        let lease = api.control.lease(service, volume).await.unwrap_or_else(|error| {
            tracing::warn!(volume = %volume.id, %error, "cannot tell who holds a volume");
            Lease::default()
        });
        let holders: Vec<wire::VolumeHolder> = lease.holders.into_iter().map(holder).collect();
        let data = known.remove(&volume.id);
        let data = data.as_ref();
        let proven = data.and_then(|data| data.last_proven.as_ref());
        list.push(wire::Volume {
            name: volume.name.to_string(),
            id: volume.id.to_string(),
            mount: volume.mount.to_string(),
            used_bytes,
            free_bytes,
            held_by: holders.first().and_then(|holder| holder.instance.clone()),
            holders,
            fence: lease.fence,
            limit_bytes: volume.limit_bytes,
            schedules: volume.schedules.iter().map(|schedule| schedule.as_str().to_owned()).collect(),
            databases: Vec::new(),
            restore_points: data.map_or(0, |data| data.points as u64),
            last_restore_point: data.and_then(|data| data.last.as_ref()).map(|point| point.taken_at.0),
            last_proven: proven.map(|point| point.taken_at.0),
            last_proof: proven.and_then(|point| point.proof.as_ref()).map(|proof| proof.at.0),
            warnings: data.map(|data| data.warnings.clone()).unwrap_or_default(),
            removed_at: volume.removed_at.map(|at| at.0),
            kept_until: volume.removed_at.map(|at| at.0.saturating_add(kept_ms())),
        });
    }
    Ok(list)
}

fn kept_ms() -> i64 {
    i64::try_from(Volume::KEPT_AFTER_REMOVAL.as_millis()).unwrap_or(i64::MAX)
}
