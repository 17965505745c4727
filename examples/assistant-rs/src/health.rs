//! The health answer that decides whether this instance gets traffic.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::App;
use crate::database::DatabaseUnavailable;

pub async fn health(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    match app.database.check().await {
        Ok(()) => (StatusCode::OK, Json(json!({"status": "ok", "database": "ok"}))),
        Err(DatabaseUnavailable(reason)) => {
            let answer = json!({"status": "unavailable", "database": reason});
            (StatusCode::SERVICE_UNAVAILABLE, Json(answer))
        }
    }
}
