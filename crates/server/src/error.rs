//! From errors of the control plane to answers of the API, at one place.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use trackbed_api::{ErrorBody, ErrorCode, ErrorDetail};
use trackbed_control::ControlError;
use trackbed_core::ids::ParseError;
use trackbed_core::ports::PortError;
use trackbed_store::StoreError;

/// An answer that is not 2xx.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    detail: ErrorDetail,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>, hint: Option<String>) -> Self {
        let status = match code {
            ErrorCode::InvalidRequest => StatusCode::BAD_REQUEST,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Conflict => StatusCode::CONFLICT,
            ErrorCode::InvalidSource => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, detail: ErrorDetail { code, message: message.into(), hint } }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message, None)
    }

    pub(crate) fn source(error: PortError) -> Self {
        Self::new(ErrorCode::InvalidSource, error.message, error.hint)
    }
}

impl From<ParseError> for ApiError {
    fn from(error: ParseError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotFound(message) => Self::new(ErrorCode::NotFound, message, None),
            ControlError::Conflict { message, hint } => Self::new(ErrorCode::Conflict, message, hint),
            ControlError::Invalid(message) => Self::invalid(message),
            ControlError::Port(error) => Self::new(ErrorCode::Conflict, error.message, error.hint),
            ControlError::Store(StoreError::Conflict(message)) => {
                Self::new(ErrorCode::Conflict, message, None)
            }
            ours @ (ControlError::Store(_) | ControlError::File { .. }) => {
                tracing::error!(error = &ours as &dyn std::error::Error, "a request failed");
                Self::new(ErrorCode::Internal, chain(&ours), Some("see the log of `trackbed serve`".into()))
            }
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.detail })).into_response()
    }
}
