//! What a forge hears: whether its delivery counts, quickly and in words. It shows them beside the delivery.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use trackbed_control::ControlError;
use trackbed_core::remote::{Forge, Remote};
use trackbed_core::service::Service;
use trackbed_core::{Digest, Name, Secret};
use trackbed_stdx::clock::now_ms;

use super::Hooks;
use super::payload::{self, Envelope, Told};
use super::signature::{self, Refused};

/// Largest body. GitHub sends none above 25 MB.
const BODY_MAX_BYTES: usize = 25 << 20;
/// How long a body may take.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// Reads the path of a webhook, `/hooks/[PROJECT/]SERVICE`. Other paths below `/hooks` may be those of a repository, whose
/// project may have that name.
pub(in crate::git) fn addressed(path: &str) -> Option<(Name, Name)> {
    let names = path.strip_prefix("/hooks/")?;
    let (project, service) = names.split_once('/').unwrap_or((names, names));
    Some((project.parse().ok()?, service.parse().ok()?))
}

/// Answers a request to the address of a webhook.
pub(in crate::git) async fn answer(
    hooks: &Hooks,
    project: Name,
    service: Name,
    request: Request,
) -> Response {
    match heard(hooks, &project, &service, request).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::error!(%error, "a delivery could not be taken");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the box cannot take deliveries now; see its log")
        }
    }
}

async fn heard(
    hooks: &Hooks,
    project: &Name,
    service: &Name,
    request: Request,
) -> Result<Response, ControlError> {
    let (parts, body) = request.into_parts();
    let Some((service, remote, secret)) = followed(hooks, project, service).await? else {
        let message =
            "no service takes deliveries at this address; `trackbed source show` on the box says which";
        return Ok(text(StatusCode::NOT_FOUND, message));
    };
    if parts.method != Method::POST {
        return Ok(text(
            StatusCode::METHOD_NOT_ALLOWED,
            "this is the address of a webhook: it takes POST alone",
        ));
    }
    let Ok(_place) = hooks.inner.readers.try_acquire() else {
        return Ok(text(StatusCode::SERVICE_UNAVAILABLE, "too many deliveries at once; send it again"));
    };
    let too_large =
        || text(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than a webhook's may be (25 MB)");
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: usize| bytes > BODY_MAX_BYTES) {
        return Ok(too_large());
    }
    let body = match tokio::time::timeout(BODY_LIMIT, to_bytes(body, BODY_MAX_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Ok(too_large()),
        Err(_) => return Ok(text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    let Some(envelope) = Envelope::read(&parts.headers) else {
        let message = "no forge is known by these headers: GitHub, GitLab, Gitea and Forgejo are";
        return Ok(text(StatusCode::BAD_REQUEST, message));
    };
    if let Err(refused) = signature::check(envelope.forge, &parts.headers, &body, &secret, now_ms()) {
        tracing::warn!(service = %service.name, ?refused, "a delivery was not believed");
        return Ok(text(StatusCode::UNAUTHORIZED, &not_believed(refused)));
    }
    if is_form(&parts.headers) {
        let message = "the body is a form; choose the content type application/json for the webhook";
        return Ok(text(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let told = match payload::read(&envelope, &body) {
        Ok(told) => told,
        Err(wrong) => return Ok(text(StatusCode::BAD_REQUEST, &wrong)),
    };
    let branch = remote.branch.as_str();
    let ignored = match told {
        Told::Push(commit) if commit.branch == branch => {
            return take(hooks, &service, envelope, &body, commit).await;
        }
        Told::Ping => format!("pong: pushes to `{branch}` deploy {}", service.name),
        Told::Other => format!("taken note of; `{}` deploys nothing, pushes do", envelope.event),
        Told::NoBranch(name) => format!("taken note of; `{name}` is no branch, and deploys nothing"),
        Told::Removed(name) if name == branch => {
            format!(
                "taken note of; `{name}` is gone, and {} serves on: `trackbed down` stops it",
                service.name
            )
        }
        Told::Removed(name) => format!("taken note of; `{name}` is gone, and was not deployed"),
        Told::Push(commit) => {
            format!("taken note of; {} deploys `{branch}`, not `{}`", service.name, commit.branch)
        }
    };
    Ok(text(StatusCode::OK, &ignored))
}

/// Returns a service that follows a repository.
async fn followed(
    hooks: &Hooks,
    project: &Name,
    service: &Name,
) -> Result<Option<(Service, Remote, Secret<String>)>, ControlError> {
    let control = &hooks.inner.control;
    let service = match control.service(project, service).await {
        Ok(service) => service,
        Err(ControlError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    match control.remote_to_fetch(&service).await {
        Ok((remote, secrets, _)) => Ok(Some((service, remote, secrets.hook))),
        Err(ControlError::Conflict { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn take(
    hooks: &Hooks,
    service: &Service,
    envelope: Envelope,
    body: &Bytes,
    commit: trackbed_core::git::Commit,
) -> Result<Response, ControlError> {
    let Some(name) = envelope.name else {
        return Ok(text(
            StatusCode::BAD_REQUEST,
            "the delivery has no name of its own, or one that is too long",
        ));
    };
    // Its name is signed by GitLab alone; where only the body is, that is remembered, too.
    let digest = match envelope.forge {
        Forge::Github | Forge::Gitea => Some(Digest::from_bytes(Sha256::digest(body).into())),
        Forge::Gitlab => None,
    };
    let (short, control) = (commit.short().to_owned(), &hooks.inner.control);
    let Some(delivery) = control.take_delivery(service.id.clone(), name, digest, Some(commit)).await? else {
        let message = format!(
            "this delivery was taken before; to deploy once more: trackbed source deploy --service {}",
            service.name
        );
        return Ok(text(StatusCode::CONFLICT, &message));
    };
    tracing::info!(service = %service.name, commit = short, number = delivery.number, "takes a delivery");
    hooks.start(delivery);
    let message =
        format!("{short} is fetched and deployed; `trackbed source show` on the box says how it went");
    Ok(text(StatusCode::ACCEPTED, &message))
}

fn not_believed(refused: Refused) -> String {
    match refused {
        Refused::Missing(header) => format!(
            "the delivery is not signed ({header} is missing): give the webhook the secret of `trackbed source connect`"
        ),
        Refused::Wrong => {
            "the signature is wrong: the webhook has another secret than `trackbed source connect` was told, or printed"
                .to_owned()
        }
        Refused::NotNow(time) => {
            let apart = time.abs_diff(now_ms() / 1000);
            format!(
                "the delivery was signed {apart} s away from the box's clock: it is an old one sent again, or a clock is wrong"
            )
        }
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
}

fn text(status: StatusCode, message: &str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{message}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_service_and_the_repositories_of_a_project_called_hooks_stay_reachable() {
        let read = |path: &str| addressed(path).map(|(project, service)| format!("{project} {service}"));
        assert_eq!(read("/hooks/shop").as_deref(), Some("shop shop"));
        assert_eq!(read("/hooks/shop/api").as_deref(), Some("shop api"));
        for other in [
            "/hooks",
            "/hooks/",
            "/hooks/a/b/c",
            "/hooks/../shop",
            "/hooks/%2e%2e",
            "/hooks.git/info/refs",
            "/hooks/api.git/info/refs",
            "/hooks/api.git/git-receive-pack",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
