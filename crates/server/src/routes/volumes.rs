//! Volumes of a service.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use trackbed_api as wire;
use trackbed_api::ErrorCode;
use trackbed_control::{Holder, Lease};
use trackbed_core::service::Service;
use trackbed_core::volume::Volume;
use trackbed_volume::{Entry, EntryKind, LocalVolumes, Usage, list_files, usage};

use crate::api::Api;
use crate::error::ApiError;
use crate::given::{Asked, Given};

pub(crate) async fn list(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
) -> Result<Json<Vec<wire::Volume>>, ApiError> {
    let service = api.control.service(&project.parse()?, &service.parse()?).await?;
    let volumes = api.control.volumes(&service).await?;
    Ok(Json(to_wire(&api, &service, &volumes).await))
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
    let mut list = to_wire(&api, &service, &[volume]).await;
    list.pop().map(Json).ok_or_else(|| ApiError::invalid("the volume is gone"))
}

#[derive(Deserialize)]
pub(crate) struct InVolume {
    #[serde(default)]
    path: String,
}

pub(crate) async fn files(
    State(api): State<Api>,
    Path((project, service, name)): Path<(String, String, String)>,
    Asked(InVolume { path }): Asked<InVolume>,
) -> Result<Json<Vec<wire::FileEntry>>, ApiError> {
    let service = api.control.service(&project.parse()?, &service.parse()?).await?;
    let volumes = api.control.volumes(&service).await?;
    let volume = volumes.iter().find(|volume| volume.name.as_str() == name).ok_or_else(|| {
        let known: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        let hint = (!known.is_empty()).then(|| format!("it has: {}", known.join(", ")));
        ApiError::new(ErrorCode::NotFound, format!("service `{}` has no volume `{name}`", service.name), hint)
    })?;
    let folder = LocalVolumes::new(&api.data_dir).place(&volume.id).directory;
    let listed = tokio::task::spawn_blocking(move || list_files(&folder, &path)).await;
    let entries = listed.map_err(std::io::Error::other).flatten();
    let entries = entries.map_err(|error| ApiError::new(ErrorCode::NotFound, error.to_string(), None))?;
    Ok(Json(entries.into_iter().map(entry).collect()))
}

fn holder(holder: Holder) -> wire::VolumeHolder {
    wire::VolumeHolder {
        instance: holder.instance.map(|instance| instance.to_string()),
        release: holder.release,
        deployment: holder.deployment.map(|deployment| deployment.to_string()),
        shared: holder.shared,
    }
}

fn entry(entry: Entry) -> wire::FileEntry {
    wire::FileEntry {
        path: entry.path,
        kind: match entry.kind {
            EntryKind::File => "file",
            EntryKind::Folder => "dir",
            EntryKind::Link => "link",
            EntryKind::Other => "other",
        }
        .into(),
        size_bytes: entry.size_bytes,
        modified_at: entry.modified_at,
    }
}

/// Measures volumes. One that cannot be measured is told as empty rather than hidden.
pub(crate) async fn to_wire(api: &Api, service: &Service, volumes: &[Volume]) -> Vec<wire::Volume> {
    let mut list = Vec::new();
    for volume in volumes {
        let folder = LocalVolumes::new(&api.data_dir).place(&volume.id).directory;
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
        list.push(wire::Volume {
            name: volume.name.to_string(),
            id: volume.id.to_string(),
            mount: volume.mount.to_string(),
            used_bytes,
            free_bytes,
            held_by: holders.first().and_then(|holder| holder.instance.clone()),
            holders,
            fence: lease.fence,
        });
    }
    list
}
