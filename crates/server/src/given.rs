//! What a caller gives, with refusals in the API's own shape.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use trackbed_api::ErrorCode;

use crate::error::ApiError;

/// A JSON body.
pub(crate) struct Given<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Given<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let parsed = Json::<T>::from_request(request, state).await;
        parsed
            .map(|Json(value)| Given(value))
            .map_err(|error: JsonRejection| ApiError::invalid(error.body_text()))
    }
}

/// A query.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let parsed = Query::<T>::from_request_parts(parts, state).await;
        parsed
            .map(|Query(value)| Asked(value))
            .map_err(|error: QueryRejection| ApiError::invalid(error.body_text()))
    }
}

/// Answers a path or method that the API does not have.
pub(crate) async fn unknown(request: Request) -> ApiError {
    let message = format!("the API has no {} {}", request.method(), request.uri().path());
    ApiError::new(ErrorCode::NotFound, message, None)
}
