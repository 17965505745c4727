//! The pages: the chat, and in development the description of the API.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{Html, IntoResponse};

// They are part of the program, so that it needs no file beside it.
const CHAT: &str = include_str!("../static/index.html");
const DOCS: &str = include_str!("../static/docs.html");
const OPENAPI: &str = include_str!("../static/openapi.json");

pub async fn chat() -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-cache")], Html(CHAT))
}

pub async fn docs() -> impl IntoResponse {
    Html(DOCS)
}

pub async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}
