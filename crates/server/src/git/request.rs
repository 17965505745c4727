//! What a git client asks for, whether it may, and the answers that are words (git shows them as `remote:` lines).

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE,
};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use trackbed_core::{Name, Secret};

use super::GitDoor;
use super::hooks;
use super::receive;
use super::repository::{GitError, Repository};

/// Longest header with a password that is looked at.
const AUTHORIZATION_MAX_BYTES: usize = 1024;
const RECEIVE: &str = "git-receive-pack";
const FETCH: &str = "git-upload-pack";

/// What of the smart protocol is asked for (gitprotocol-http(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Which refs are there.
    Refs,
    /// Take commands and a pack.
    Receive,
    /// Anything that reads: it is not offered.
    Fetch,
}

/// Answers every request of the listener.
pub(super) async fn answer(State(door): State<GitDoor>, request: Request) -> Response {
    if let Some((project, service)) = hooks::addressed(request.uri().path()) {
        return hooks::answer(&door.inner.hooks, project, service, request).await;
    }
    let Some(token) = password(request.headers()) else { return unauthorized("a token is wanted") };
    let service = match door.inner.control.service_of_git_token(&token).await {
        Ok(Some(service)) => service,
        Ok(None) => return unauthorized("this token opens nothing: it was revoked, or never made"),
        Err(error) => {
            tracing::error!(%error, "a token could not be checked");
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the box cannot check tokens; see its log");
        }
    };
    let asked = wish(request.method(), request.uri().path(), request.uri().query());
    let Some((project, name, wish)) = asked else {
        return text(StatusCode::NOT_FOUND, "no repository; its address is http://…/SERVICE.git");
    };
    if project != service.project_name || name != service.name {
        let message = format!("this token is not for a service `{name}`; it opens `{}`", service.name);
        return text(StatusCode::NOT_FOUND, &message);
    }
    let repository = Repository::of(&door.inner.data_dir, &service.id);
    match wish {
        Wish::Fetch => text(
            StatusCode::FORBIDDEN,
            "this repository only takes pushes: the box keeps what it deploys, not a copy to fetch from",
        ),
        Wish::Refs => match welcome(&door, &repository).await {
            Ok(refs) => result("application/x-git-receive-pack-advertisement", Body::from(refs)),
            Err(error) => failed(&error),
        },
        Wish::Receive if request.headers().contains_key(CONTENT_ENCODING) => {
            text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a push is not compressed once more")
        }
        Wish::Receive => match receive::receive(&door, &service, &repository, request.into_body()).await {
            Ok(body) => result("application/x-git-receive-pack-result", body),
            Err(error) => failed(&error),
        },
    }
}

/// Answers a client's first question, or says at once why a push would be in vain: git shows no words of a later refusal.
async fn welcome(door: &GitDoor, repository: &Repository) -> Result<Vec<u8>, GitError> {
    if door.inner.places.available_permits() == 0 {
        return Err(GitError::Crowded);
    }
    if door.inner.control.room().await == Some(0) {
        return Err(GitError::Full);
    }
    repository.advertise().await
}

/// Reads method, path and query; the path holds one or two names.
fn wish(method: &Method, path: &str, query: Option<&str>) -> Option<(Name, Name, Wish)> {
    let path = path.strip_prefix('/')?;
    let (repository, wish) = if let Some(repository) = path.strip_suffix("/info/refs") {
        let wish = match query {
            Some("service=git-receive-pack") => Wish::Refs,
            _ => Wish::Fetch,
        };
        (repository, wish)
    } else {
        let (repository, wish) = path.rsplit_once('/')?;
        match wish {
            RECEIVE => (repository, Wish::Receive),
            FETCH => (repository, Wish::Fetch),
            _ => return None,
        }
    };
    let fits = match wish {
        Wish::Refs => method == Method::GET,
        Wish::Receive => method == Method::POST,
        Wish::Fetch => true,
    };
    let names = repository.strip_suffix(".git").unwrap_or(repository);
    let (project, name) = names.split_once('/').unwrap_or((names, names));
    fits.then_some((project.parse().ok()?, name.parse().ok()?, wish))
}

/// Reads all of a request that a stranger writes, for [`crate::fuzz`].
pub(crate) fn read(path: &str, query: Option<&str>, authorization: &[u8]) {
    for method in [Method::GET, Method::POST] {
        if let Some((project, name, _)) = wish(&method, path, query) {
            assert!(![&project, &name].iter().any(|name| name.as_str().contains(['/', '.'])), "{path}");
        }
    }
    if let Ok(value) = axum::http::HeaderValue::from_bytes(authorization) {
        password(&HeaderMap::from_iter([(AUTHORIZATION, value)]));
    }
}

/// Returns the password of basic authentication (RFC 7617); the user's name may be anything.
fn password(headers: &HeaderMap) -> Option<Secret<String>> {
    let given = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = given.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || credentials.len() > AUTHORIZATION_MAX_BYTES {
        return None;
    }
    let credentials = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    Some(Secret::new(credentials.split_once(':')?.1.to_owned()))
}

fn unauthorized(message: &str) -> Response {
    let message = format!("{message}; `trackbed git token` on the box makes one");
    let mut answer = text(StatusCode::UNAUTHORIZED, &message);
    let realm = axum::http::HeaderValue::from_static("Basic realm=\"trackbed\", charset=\"UTF-8\"");
    answer.headers_mut().insert(WWW_AUTHENTICATE, realm);
    answer
}

fn failed(error: &GitError) -> Response {
    let status = match error {
        GitError::Missing | GitError::Crowded => StatusCode::SERVICE_UNAVAILABLE,
        GitError::Full => StatusCode::INSUFFICIENT_STORAGE,
        GitError::Failed { .. } => {
            tracing::error!(%error, "a push could not be taken");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    text(status, &error.to_string())
}

fn text(status: StatusCode, message: &str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{message}\n")).into_response()
}

fn result(kind: &'static str, body: Body) -> Response {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &Method, path: &str, query: Option<&str>) -> Option<(String, String, Wish)> {
        wish(method, path, query).map(|(project, name, wish)| (project.to_string(), name.to_string(), wish))
    }

    #[test]
    fn a_path_names_a_repository_and_nothing_else() {
        let (get, post, push) = (&Method::GET, &Method::POST, Some("service=git-receive-pack"));
        let (shop, api) = ("shop".to_owned(), "api".to_owned());
        assert_eq!(asked(get, "/shop.git/info/refs", push), Some((shop.clone(), shop.clone(), Wish::Refs)));
        assert_eq!(
            asked(post, "/shop/api.git/git-receive-pack", None),
            Some((shop.clone(), api, Wish::Receive))
        );
        let fetch = Some("service=git-upload-pack");
        for (path, query) in [("/shop/info/refs", fetch), ("/shop.git/info/refs", None)] {
            assert_eq!(asked(get, path, query), Some((shop.clone(), shop.clone(), Wish::Fetch)));
        }
        for path in [
            "/",
            "/shop.git",
            "/../../etc.git/info/refs",
            "/a/b/c.git/info/refs",
            "/%2e%2e.git/info/refs",
            "/-x.git/info/refs",
            "/shop.git/objects/info/packs",
            "//info/refs",
        ] {
            assert_eq!(asked(get, path, push), None, "{path}");
        }
        assert_eq!(asked(post, "/shop.git/info/refs", push), None);
        assert_eq!(asked(get, "/shop.git/git-receive-pack", None), None);
    }

    #[test]
    fn the_password_is_read_and_the_user_is_anybody() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, text.parse().unwrap());
            password(&headers).map(Secret::into_exposed)
        };
        assert_eq!(of(&format!("Basic {}", STANDARD.encode("me:a:b"))).as_deref(), Some("a:b"));
        assert_eq!(of(&format!("basic {}", STANDARD.encode(":x"))).as_deref(), Some("x"));
        for bad in ["Basic", "Basic !!", "Bearer abc", &format!("Basic {}", STANDARD.encode("nocolon"))] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(of(&format!("Basic {}", "A".repeat(AUTHORIZATION_MAX_BYTES + 4))), None);
    }
}
