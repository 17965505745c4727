//! Who is asking: someone signed in with Google or Microsoft; with no provider configured everyone is one guest.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::header::{HOST, LOCATION, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::App;
use crate::answers::Refusal;
use crate::session::Session;
use crate::sign_in::{Callback, Provider, SignInError};

/// Who owns threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    pub id: String,
    pub name: String,
    pub email: String,
}

/// A handler that takes a `User` answers 401 to those who are not signed in.
impl FromRequestParts<Arc<App>> for User {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let sign_in_first = || Refusal::new(StatusCode::UNAUTHORIZED, "sign in first");
        signed_in_user(app, &parts.headers).ok_or_else(sign_in_first)
    }
}

fn signed_in_user(app: &App, headers: &HeaderMap) -> Option<User> {
    if app.providers.is_empty() {
        return Some(User { id: "guest".to_owned(), name: "Guest".to_owned(), email: String::new() });
    }
    app.sessions.read(headers).user
}

pub async fn me(State(app): State<Arc<App>>, headers: HeaderMap) -> Json<Value> {
    let providers: Vec<&str> = app.providers.iter().map(|provider| provider.name).collect();
    Json(json!({"user": signed_in_user(&app, &headers), "providers": providers}))
}

pub async fn logout(State(app): State<Arc<App>>) -> Response {
    if app.providers.is_empty() {
        return StatusCode::NO_CONTENT.into_response();
    }
    (StatusCode::NO_CONTENT, [(SET_COOKIE, app.sessions.end())]).into_response()
}

pub async fn login(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let provider = provider_of(&app, &name)?;
    let (url, pending) = provider.begin(&callback_url(&app, provider, &headers)).await?;
    let session = Session { user: app.sessions.read(&headers).user, pending: Some(pending) };
    Ok((StatusCode::FOUND, [(LOCATION, url), (SET_COOKIE, app.sessions.keep(session))]).into_response())
}

pub async fn callback(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(callback): Query<Callback>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let provider = provider_of(&app, &name)?;
    let pending = app.sessions.read(&headers).pending;
    let user = provider.finish(&callback_url(&app, provider, &headers), pending, callback).await?;
    let session = Session { user: Some(user), pending: None };
    let cookie = app.sessions.keep(session);
    Ok((StatusCode::SEE_OTHER, [(LOCATION, "/".to_owned()), (SET_COOKIE, cookie)]).into_response())
}

fn provider_of<'a>(app: &'a App, name: &str) -> Result<&'a Provider, Refusal> {
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, format!("sign-in with {name} is not configured"));
    app.providers.iter().find(|provider| provider.name == name).ok_or_else(unknown)
}

/// Production says in `BACKEND_URL` where it is; in development the request does.
fn callback_url(app: &App, provider: &Provider, headers: &HeaderMap) -> String {
    let told = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let base = app.settings.backend_url.clone().unwrap_or_else(|| {
        let scheme = told("x-forwarded-proto").unwrap_or("http");
        format!("{scheme}://{}", told(HOST.as_str()).unwrap_or("localhost"))
    });
    format!("{base}/auth/{}/callback", provider.name)
}

impl From<SignInError> for Refusal {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Unreachable => {
                Self::new(StatusCode::BAD_GATEWAY, "the sign-in provider cannot be reached")
            }
            SignInError::Failed(reason) => {
                Self::new(StatusCode::UNAUTHORIZED, format!("sign-in failed: {reason}"))
            }
        }
    }
}
