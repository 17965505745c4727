//! Repositories that services follow.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use trackbed_api as wire;
use trackbed_control::{ControlError, Followed, RemoteWish};
use trackbed_core::remote::{Delivery, RepositoryUrl};
use trackbed_core::{Name, Secret};
use trackbed_stdx::random;

use crate::api::Api;
use crate::convert;
use crate::error::ApiError;
use crate::git::hooks::Hooks;
use crate::given::Given;

pub(crate) async fn show(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
) -> Result<Json<wire::Remote>, ApiError> {
    Ok(Json(load(&api, &project.parse()?, &service.parse()?).await?))
}

pub(crate) async fn connect(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
    Given(request): Given<wire::RemoteRequest>,
) -> Result<Json<wire::ConnectedRemote>, ApiError> {
    let (project, service): (Name, Name) = (project.parse()?, service.parse()?);
    let url: RepositoryUrl = request.url.parse()?;
    let branch = request.branch.map(|branch| branch.parse()).transpose()?;
    let forge = request.forge.map(|forge| forge.parse()).transpose()?;
    let api_url = request.api.map(|api| api_address(&api)).transpose()?;
    let status_token = request.status_token.map(Secret::new);
    let hook = request.hook_secret.map(Hooks::take_secret).transpose().map_err(ApiError::invalid)?;
    // First: a webhook without a door would be of no use.
    api.git.ensure_open().await?;
    let key = match url.is_ssh() {
        true => Some(api.hooks.make_key(&service).await?),
        false => None,
    };
    let wish = RemoteWish { url, branch, forge, api: api_url, status_token, hook, key };
    let secret = api.control.connect_remote(&project, &service, wish).await?;
    let remote = load(&api, &project, &service).await?;
    Ok(Json(wire::ConnectedRemote { secret: secret.into_exposed(), remote }))
}

pub(crate) async fn disconnect(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
) -> Result<Json<wire::Remote>, ApiError> {
    let (project, service) = (project.parse()?, service.parse()?);
    let was = load(&api, &project, &service).await?;
    api.control.disconnect_remote(&project, &service).await?;
    Ok(Json(was))
}

/// Fetches and deploys what the branch is at, without a delivery.
pub(crate) async fn deploy(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
) -> Result<(StatusCode, Json<wire::Delivery>), ApiError> {
    let (project, service) = (project.parse()?, service.parse()?);
    let _ = load(&api, &project, &service).await?;
    let id = api.control.service(&project, &service).await?.id;
    let drawn: String = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
    let taken = api.control.take_delivery(id, format!("asked {drawn}"), None, None).await?;
    let delivery = taken.ok_or_else(|| ApiError::invalid("two wishes drew the same number; try again"))?;
    let answer = delivery_to_wire(delivery.clone());
    api.hooks.start(delivery);
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

async fn load(api: &Api, project: &Name, service: &Name) -> Result<wire::Remote, ApiError> {
    let Some(Followed { remote, has_status_token, deliveries }) =
        api.control.followed(project, service).await?
    else {
        let message = format!("service `{service}` follows no repository");
        let hint = Some(format!("connect one: trackbed source connect URL --service {service}"));
        return Err(ControlError::Conflict { message, hint }.into());
    };
    let found = api.control.service(project, service).await?;
    Ok(wire::Remote {
        url: remote.url.to_string(),
        branch: remote.branch.to_string(),
        hook_url: api.git.hook_url(&found).await,
        forge: remote.forge.map(|forge| forge.as_str().to_owned()),
        deploy_key: remote.public_key.filter(|_| remote.url.is_ssh()),
        has_status_token,
        deliveries: deliveries.into_iter().map(delivery_to_wire).collect(),
    })
}

fn delivery_to_wire(delivery: Delivery) -> wire::Delivery {
    let (state, detail) = match (delivery.end, &delivery.deployment) {
        (Some((end, words)), _) => (end.as_str(), words),
        (None, Some(_)) => ("deploying", String::new()),
        (None, None) => ("fetching", String::new()),
    };
    wire::Delivery {
        number: delivery.number,
        at: delivery.at.0,
        commit: delivery.commit.as_ref().map(convert::commit),
        deployment: delivery.deployment.map(|id| id.to_string()),
        state: state.to_owned(),
        detail,
    }
}

/// Checks the address of an API, and takes the slash off its end.
fn api_address(text: &str) -> Result<String, ApiError> {
    let text = text.trim_end_matches('/');
    let is_one = (text.starts_with("https://") || text.starts_with("http://"))
        && text.parse::<axum::http::Uri>().is_ok_and(|uri| uri.host().is_some() && uri.query().is_none())
        && !text.contains('@');
    match is_one {
        true => Ok(text.to_owned()),
        false => Err(ApiError::invalid(format!(
            "`{text}` is not the address of an API, such as https://github.example.com/api/v3"
        ))),
    }
}
