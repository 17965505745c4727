//! What is answered when a request is refused, and reading the one text that a body has.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::database::DatabaseUnavailable;

/// A refused request: a status, and the reason under `detail`.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    detail: Value,
}

impl Refusal {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: Value::String(detail.into()) }
    }

    pub fn no_such_thread() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no such thread")
    }

    /// Says what is wrong with a field of the body, without sending the input back.
    pub fn unfit(kind: &str, field: Option<&str>, message: impl Into<String>) -> Self {
        let place: Vec<&str> = std::iter::once("body").chain(field).collect();
        let detail = json!([{"type": kind, "loc": place, "msg": message.into()}]);
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, detail }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"detail": self.detail}))).into_response()
    }
}

impl From<DatabaseUnavailable> for Refusal {
    fn from(DatabaseUnavailable(reason): DatabaseUnavailable) -> Self {
        eprintln!("error: a request failed in the database: {reason}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
    }
}

pub async fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "Not Found")
}

pub async fn method_not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

/// A body as it arrives; the router limits its size.
pub type Body = Result<Bytes, BytesRejection>;

/// Reads the text of a field out of a JSON object, without the white space around it. It is never empty.
pub fn text_of(body: Body, field: &str) -> Result<String, Refusal> {
    let body = body.map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))?;
    let value: Value = serde_json::from_slice(&body)
        .map_err(|error| Refusal::unfit("json_invalid", None, format!("JSON decode error: {error}")))?;
    let Value::Object(fields) = value else {
        return Err(Refusal::unfit("model_attributes_type", None, "Input should be a valid object"));
    };
    match fields.get(field) {
        None => Err(Refusal::unfit("missing", Some(field), "Field required")),
        Some(Value::String(text)) if text.trim().is_empty() => {
            let message = "String should have at least 1 character";
            Err(Refusal::unfit("string_too_short", Some(field), message))
        }
        Some(Value::String(text)) => Ok(text.trim().to_owned()),
        Some(_) => Err(Refusal::unfit("string_type", Some(field), "Input should be a valid string")),
    }
}
