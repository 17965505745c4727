//! The box itself.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use trackbed_api::{BoxInfo, EdgeInfo, StopBox};
use trackbed_core::ports::Edge;

use crate::api::Api;
use crate::convert;
use crate::given::Given;

pub(crate) async fn show(State(api): State<Api>) -> Json<BoxInfo> {
    let edge = api.edge.stats().await.ok().map(|stats| EdgeInfo {
        pid: stats.pid,
        listen: stats.listen,
        version: stats.version,
        draining: stats.draining,
        resident_bytes: resident_bytes(&stats.pid.to_string()),
    });
    Json(BoxInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        data_dir: api.data_dir.display().to_string(),
        domain: api.domain.to_string(),
        pid: std::process::id(),
        resident_bytes: resident_bytes("self"),
        edge,
        isolation: convert::isolation(api.engine.isolation()),
    })
}

pub(crate) async fn stop(State(api): State<Api>, Given(order): Given<StopBox>) -> StatusCode {
    // Full means that somebody has already given the order.
    let _ = api.stop.try_send(order.instances);
    StatusCode::ACCEPTED
}

/// Reads VmRSS of a process (proc_pid_status(5)); 0 when it is gone.
fn resident_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
