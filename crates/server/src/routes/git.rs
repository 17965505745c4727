//! How a service takes pushes, and who may push.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use trackbed_api as wire;

use crate::api::Api;
use crate::error::ApiError;
use crate::given::{Asked, Given};

pub(crate) async fn show(
    State(api): State<Api>,
    Path(names): Path<(String, String)>,
) -> Result<Json<wire::GitAccess>, ApiError> {
    Ok(Json(load(&api, &names).await?))
}

pub(crate) async fn change(
    State(api): State<Api>,
    Path(names): Path<(String, String)>,
    Given(change): Given<wire::GitChange>,
) -> Result<Json<wire::GitAccess>, ApiError> {
    api.control.set_git_branch(&names.0.parse()?, &names.1.parse()?, change.branch.parse()?).await?;
    Ok(Json(load(&api, &names).await?))
}

pub(crate) async fn add_token(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
    Given(request): Given<wire::GitTokenRequest>,
) -> Result<Json<wire::NewGitToken>, ApiError> {
    let (project, service) = (project.parse()?, service.parse()?);
    // First: a token without a door would be of no use.
    api.git.ensure_open().await?;
    let (token, text) = api.control.add_git_token(&project, &service, request.name.parse()?).await?;
    let service = api.control.service(&project, &service).await?;
    let url = api.git.url(&service).await.unwrap_or_default();
    Ok(Json(wire::NewGitToken { id: token.id.to_string(), token: text.into_exposed(), url }))
}

pub(crate) async fn remove_token(
    State(api): State<Api>,
    Path((project, service, id)): Path<(String, String, String)>,
) -> Result<Json<wire::GitAccess>, ApiError> {
    api.control.remove_git_token(&project.parse()?, &service.parse()?, &id.parse()?).await?;
    Ok(Json(load(&api, &(project, service)).await?))
}

#[derive(Deserialize)]
pub(crate) struct OfSource {
    source: String,
}

pub(crate) async fn live(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
    Asked(OfSource { source }): Asked<OfSource>,
) -> Result<Json<wire::LiveSource>, ApiError> {
    let found = api.control.live_release_of(&project.parse()?, &service.parse()?, source.parse()?).await?;
    Ok(Json(wire::LiveSource { release: found.map(|release| release.label()) }))
}

async fn load(api: &Api, names: &(String, String)) -> Result<wire::GitAccess, ApiError> {
    let (project, service) = (names.0.parse()?, names.1.parse()?);
    let access = api.control.git_access(&project, &service).await?;
    let service = api.control.service(&project, &service).await?;
    let tokens = access.tokens.into_iter().map(|token| wire::GitToken {
        id: token.id.to_string(),
        name: token.name.to_string(),
        created_at: token.created_at.0,
        used_at: token.used_at.map(|at| at.0),
    });
    Ok(wire::GitAccess {
        url: api.git.url(&service).await,
        branch: access.branch.map(|branch| branch.to_string()),
        tokens: tokens.collect(),
    })
}
