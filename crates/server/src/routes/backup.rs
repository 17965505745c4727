//! Copies off the box.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use trackbed_api::{Backup, BackupKey, BackupTarget, BackupTargetRequest};
use trackbed_control::{OffsiteStatus, TargetWish};
use trackbed_core::Secret;
use trackbed_core::ports::{Conditional, Ownership};

use crate::api::Api;
use crate::error::ApiError;
use crate::given::Given;

pub(crate) async fn show(State(api): State<Api>) -> Result<Json<Backup>, ApiError> {
    Ok(Json(Backup { target: api.control.offsite_status().await?.map(target) }))
}

pub(crate) async fn set_target(
    State(api): State<Api>,
    Given(request): Given<BackupTargetRequest>,
) -> Result<Json<BackupKey>, ApiError> {
    let wish = TargetWish {
        url: request.url,
        options: request.options.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
        identity: request.identity.map(Secret::new),
        bandwidth_bytes: request.bandwidth_bytes,
        ownership: if request.take_over { Ownership::TakeOver } else { Ownership::Respect },
        conditional: if request.assume_exclusive { Conditional::Waived } else { Conditional::Required },
    };
    let identity = Box::pin(api.control.set_offsite_target(wish)).await?;
    Ok(Json(BackupKey { identity: identity.map(Secret::into_exposed) }))
}

pub(crate) async fn remove_target(State(api): State<Api>) -> Result<Json<Backup>, ApiError> {
    api.control.remove_offsite_target().await?;
    Ok(Json(Backup::default()))
}

pub(crate) async fn now(State(api): State<Api>) -> Result<(StatusCode, Json<Backup>), ApiError> {
    let before = api.control.offsite_status().await?.map(target);
    api.control.request_mirror().await?;
    Ok((StatusCode::ACCEPTED, Json(Backup { target: before })))
}

pub(crate) async fn key(State(api): State<Api>) -> Result<Json<BackupKey>, ApiError> {
    let identity = api.control.offsite_identity().await?;
    Ok(Json(BackupKey { identity: Some(identity.into_exposed()) }))
}

pub(super) fn target(status: OffsiteStatus) -> BackupTarget {
    let report = status.record.report.unwrap_or_default();
    let (failing_since, failure) =
        status.record.failing.map(|failing| (failing.since.0, failing.reason)).unzip();
    let (drilled_at, drill_broken) = status.record.drill.map(|drill| (drill.at.0, drill.broken)).unzip();
    BackupTarget {
        url: status.url,
        recipient: status.recipient,
        options: status.options,
        bandwidth_bytes: status.bandwidth_bytes,
        is_running: status.is_running,
        passes: status.passes,
        succeeded_at: status.record.succeeded_at.map(|at| at.0),
        failing_since,
        failure,
        missing_objects: status.missing.objects,
        missing_bytes: status.missing.bytes,
        objects: report.objects,
        bytes: report.bytes,
        sequence: report.sequence,
        damaged: report.damaged,
        drilled_at,
        drill_broken: drill_broken.flatten(),
        warning: status.warning,
    }
}
