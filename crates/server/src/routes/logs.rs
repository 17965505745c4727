//! What apps and builds wrote.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use trackbed_api as wire;
use trackbed_core::InstanceId;
use trackbed_core::instance::LogCursor;

use crate::api::Api;
use crate::convert;
use crate::error::ApiError;
use crate::given::Asked;

/// Longest wait for a new line, and time between looks. Lines reach the disk without telling anybody.
const FOLLOW_WAIT: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Lines from the end when no number is asked for, and at most.
const TAIL_DEFAULT: usize = 100;
const TAIL_MAX: usize = 100_000;

#[derive(Deserialize)]
pub(crate) struct From {
    from: Option<String>,
    #[serde(default)]
    wait: bool,
    tail: Option<usize>,
    process: Option<String>,
}

pub(crate) async fn service(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
    Asked(query): Asked<From>,
) -> Result<Json<wire::LogPage>, ApiError> {
    let service = api.control.service(&project.parse()?, &service.parse()?).await?;
    let mut from = query.from.as_deref().filter(|from| !from.is_empty()).map(parse_cursor).transpose()?;
    let tail = query.tail.unwrap_or(TAIL_DEFAULT).min(TAIL_MAX);
    let deadline = tokio::time::Instant::now() + FOLLOW_WAIT;
    loop {
        let page = api.control.service_logs(&service, from.clone(), tail, query.process.as_deref()).await?;
        if !page.lines.is_empty() || !query.wait || tokio::time::Instant::now() >= deadline {
            let next = page.next.or(from);
            return Ok(Json(wire::LogPage {
                lines: page
                    .lines
                    .into_iter()
                    .map(|(instance, line)| convert::log_line(line, Some(instance.to_string())))
                    .collect(),
                next: next.map(|(instance, cursor)| format!("{instance}:{}", cursor.0)).unwrap_or_default(),
                ended: false,
            }));
        }
        // Lines of other processes are not read again.
        from = page.next.or(from);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

#[derive(Deserialize)]
pub(crate) struct FromByte {
    from: Option<String>,
}

pub(crate) async fn build(
    State(api): State<Api>,
    Path(id): Path<String>,
    Asked(FromByte { from }): Asked<FromByte>,
) -> Result<Json<wire::LogPage>, ApiError> {
    let id = id.parse()?;
    let from = match from.as_deref() {
        None | Some("") => 0,
        Some(text) => text.parse().map_err(|_| bad_cursor(text))?,
    };
    // Asked before the log is read: once this says that the build is over, the page holds its last line.
    let deployment = api.control.deployment(&id).await?;
    let page = api.control.build_log(&id, from).await?;
    let ended = deployment.state.is_terminal() && page.next == from;
    Ok(Json(wire::LogPage {
        lines: page.lines.into_iter().map(|line| convert::log_line(line, None)).collect(),
        next: page.next.to_string(),
        ended,
    }))
}

fn parse_cursor(text: &str) -> Result<(InstanceId, LogCursor), ApiError> {
    let (instance, place) = text.split_once(':').ok_or_else(|| bad_cursor(text))?;
    Ok((instance.parse()?, LogCursor(place.parse().map_err(|_| bad_cursor(text))?)))
}

fn bad_cursor(text: &str) -> ApiError {
    ApiError::invalid(format!("`{text}` is not a place in a log; use `next` of an earlier answer"))
}
