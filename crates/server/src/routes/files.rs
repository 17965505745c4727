//! Files of a volume: listed, measured, read and written.

use std::io::{self, Read};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use trackbed_api as wire;
use trackbed_api::ErrorCode;
use trackbed_core::ports::VolumePlace;
use trackbed_volume::{Reading, Replace, folder_use, is_database, list_files, read_file, usage, write_file};

use crate::api::Api;
use crate::convert_data;
use crate::error::ApiError;
use crate::given::Asked;
use crate::pieces::{read_body, written_body};
use crate::routes::volumes::{InVolume, find};

/// Room on the disk that an upload leaves to the apps.
const ROOM_LEFT_BYTES: u64 = 64 << 20;

#[derive(Deserialize)]
pub(crate) struct At {
    #[serde(default)]
    path: String,
}

pub(crate) async fn files(
    State(api): State<Api>,
    axum::extract::Path((project, service, name)): InVolume,
    Asked(At { path }): Asked<At>,
) -> Result<Json<Vec<wire::FileEntry>>, ApiError> {
    let (_, volume) = find(&api, &project, &service, &name).await?;
    let folder = api.volumes.place(&volume.id).directory;
    let entries = blocking(move || list_files(&folder, &path)).await?;
    Ok(Json(entries.into_iter().map(convert_data::entry).collect()))
}

pub(crate) async fn measure(
    State(api): State<Api>,
    axum::extract::Path((project, service, name)): InVolume,
    Asked(At { path }): Asked<At>,
) -> Result<Json<wire::FolderUsage>, ApiError> {
    let (_, volume) = find(&api, &project, &service, &name).await?;
    let folder = api.volumes.place(&volume.id).directory;
    let (used, free_bytes) =
        blocking(move || Ok((folder_use(&folder, &path)?, usage(&folder)?.free_bytes))).await?;
    Ok(Json(wire::FolderUsage {
        used_bytes: used.used_bytes,
        files: used.files,
        free_bytes,
        limit_bytes: volume.limit_bytes,
        entries: used.entries.into_iter().map(convert_data::entry_use).collect(),
        truncated: used.is_cut,
    }))
}

/// Sends a file as it is, a folder as a tar.
pub(crate) async fn get(
    State(api): State<Api>,
    axum::extract::Path((project, service, name)): InVolume,
    Asked(At { path }): Asked<At>,
) -> Result<Response, ApiError> {
    let (_, volume) = find(&api, &project, &service, &name).await?;
    let folder = api.volumes.place(&volume.id).directory;
    Ok(match blocking(move || read_file(&folder, &path)).await? {
        Reading::File { file, size_bytes } => {
            // What an app appends meanwhile is not part of what was announced; what it cuts off breaks the answer off.
            let body = written_body(move |sink| {
                let sent = io::copy(&mut file.take(size_bytes), sink)?;
                if sent == size_bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
            });
            let head = [
                (CONTENT_TYPE, "application/octet-stream".to_owned()),
                (CONTENT_LENGTH, size_bytes.to_string()),
            ];
            (head, body).into_response()
        }
        Reading::Folder(folder) => {
            let body = written_body(move |sink| folder.write_tar(sink));
            ([(CONTENT_TYPE, "application/x-tar")], body).into_response()
        }
    })
}

pub(crate) async fn put(
    State(api): State<Api>,
    axum::extract::Path((project, service, name)): InVolume,
    Asked(At { path }): Asked<At>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<wire::FileEntry>, ApiError> {
    let (_, volume) = find(&api, &project, &service, &name).await?;
    let place = api.volumes.place(&volume.id);
    let folder = place.directory.clone();
    let now = blocking(move || usage(&folder)).await?;
    let of_disk = now.free_bytes.saturating_sub(ROOM_LEFT_BYTES);
    let of_limit = volume.limit_bytes.map(|limit| limit.saturating_sub(now.used_bytes));
    let bytes_max = of_limit.map_or(of_disk, |room| room.min(of_disk));
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(size) = announced.filter(|size| *size > bytes_max) {
        let message = format!("volume `{name}` has room for {bytes_max} bytes more, not for {size}");
        let hint = match of_limit {
            Some(room) if room <= of_disk => "raise its limit: trackbed volume limit",
            _ => "the disk is nearly full: remove what is not needed",
        };
        return Err(ApiError::new(ErrorCode::Conflict, message, Some(hint.into())));
    }
    let (target, written_path) = (place, path.clone());
    let written =
        read_body(body, move |mut pieces| write_down(&target, &written_path, &mut pieces, bytes_max))
            .await
            .map_err(|error| ApiError::invalid(error.to_string()))?;
    let size_bytes = written.map_err(|error| refusal(&error))?;
    let path = path.trim_matches('/').to_owned();
    let modified_at = trackbed_stdx::clock::now_ms();
    Ok(Json(wire::FileEntry { path, kind: "file".into(), size_bytes, modified_at }))
}

/// Writes a file. A database is replaced only while nobody holds the volume, and nobody can take it meanwhile.
fn write_down(place: &VolumePlace, path: &str, contents: &mut dyn Read, bytes_max: u64) -> io::Result<u64> {
    let held = match is_database(&place.directory, path) {
        true => trackbed_stdx::files::try_lock(&place.lock)?,
        false => None,
    };
    let replace = if held.is_some() { Replace::DatabasesToo } else { Replace::Files };
    write_file(&place.directory, path, contents, bytes_max, replace)
}

/// Runs what blocks on files.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other).flatten().map_err(|error| refusal(&error))
}

fn refusal(error: &io::Error) -> ApiError {
    let code = match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => ErrorCode::InvalidRequest,
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorCode::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::Conflict,
        // The kernel's word, and not ours about what was asked for.
        _ if error.raw_os_error().is_some() => {
            tracing::error!(%error, "a file of a volume cannot be used");
            ErrorCode::Internal
        }
        _ => ErrorCode::InvalidRequest,
    };
    ApiError::new(code, error.to_string(), None)
}
