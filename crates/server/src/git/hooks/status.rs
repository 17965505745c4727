//! Tells a forge how a commit fares. It is a courtesy: what cannot be told is a line in the log, and nobody waits for it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request};
use serde_json::json;
use trackbed_core::Secret;
use trackbed_core::remote::{Forge, RepositoryUrl};
use trackbed_https::Proxies;

use crate::error::chain;

/// How long a forge may take.
const LIMIT: Duration = Duration::from_secs(15);
/// Longest description, as GitHub allows it.
const DESCRIPTION_MAX_CHARS: usize = 140;
/// Bytes of a refusal that are logged.
const REFUSAL_MAX_BYTES: usize = 2000;

/// How a commit fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Success,
    Failure,
    /// It was given up, though nothing of it failed.
    GivenUp,
}

impl State {
    /// The word of the forge's API.
    fn word(self, forge: Forge) -> &'static str {
        match (self, forge) {
            (State::Pending, _) => "pending",
            (State::Success, _) => "success",
            (State::Failure, Forge::Gitlab) => "failed",
            (State::Failure, Forge::Github | Forge::Gitea) => "failure",
            (State::GivenUp, Forge::Gitlab) => "canceled",
            (State::GivenUp, Forge::Github | Forge::Gitea) => "error",
        }
    }
}

/// Where a status goes.
pub(super) struct Board<'a> {
    pub(super) forge: Forge,
    /// Where the API is, without a slash at the end.
    pub(super) api: &'a str,
    pub(super) repository: &'a RepositoryUrl,
    pub(super) token: &'a Secret<String>,
    /// What the status is about, as people see it: `trackbed/shop`.
    pub(super) context: &'a str,
}

impl Board<'_> {
    /// Tells how a commit fares.
    ///
    /// # Errors
    /// Why the forge did not take it, without the token.
    pub(super) async fn post(
        &self,
        commit: &str,
        state: State,
        description: &str,
        target: &str,
    ) -> Result<(), String> {
        let request = self.request(commit, state, description, target)?;
        match tokio::time::timeout(LIMIT, send(request)).await {
            Ok(sent) => sent,
            Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
        }
    }

    /// Makes the request (docs.github.com "Commit statuses", docs.gitlab.com "Commits API", docs.gitea.com "API").
    fn request(
        &self,
        commit: &str,
        state: State,
        description: &str,
        target: &str,
    ) -> Result<Request<Full<Bytes>>, String> {
        let description: String = description.chars().take(DESCRIPTION_MAX_CHARS).collect();
        let mut body = json!({
            "state": state.word(self.forge), "description": description,
            "target_url": target, "context": self.context,
        });
        let project = self.repository.project();
        let (path, header, token) = match self.forge {
            Forge::Github => (
                format!("/repos/{project}/statuses/{commit}"),
                "authorization",
                format!("Bearer {}", self.token.expose()),
            ),
            Forge::Gitea => (
                format!("/repos/{project}/statuses/{commit}"),
                "authorization",
                format!("token {}", self.token.expose()),
            ),
            Forge::Gitlab => {
                body["name"] = body["context"].take();
                (
                    format!("/projects/{}/statuses/{commit}", escaped(project)),
                    "private-token",
                    self.token.expose().clone(),
                )
            }
        };
        Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.api))
            .header(header, token)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .header("user-agent", "trackbed")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| format!("the address or the token is none: {error}"))
    }
}

async fn send(request: Request<Full<Bytes>>) -> Result<(), String> {
    let client = trackbed_https::client(Proxies::of_environment())?;
    let answer = client.request(request).await.map_err(|error| chain(&error))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let body = Limited::new(answer.into_body(), REFUSAL_MAX_BYTES).collect().await;
    let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    Err(format!("the forge answered {status}: {}", body.trim().escape_debug()))
}

/// A path as one part of another.
fn escaped(path: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    path.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn made(forge: Forge, state: State, description: &str) -> (String, Vec<String>, serde_json::Value) {
        let (repository, token) =
            ("git@code.example:group/sub/shop.git".parse().unwrap(), Secret::new("t0".into()));
        let api = forge.api(&repository);
        let board =
            Board { forge, api: &api, repository: &repository, token: &token, context: "trackbed/shop" };
        let (parts, body) = board.request("abc", state, description, "http://shop").unwrap().into_parts();
        let secret =
            |name: &str| parts.headers.get(name).map(|value| format!("{name}: {}", value.to_str().unwrap()));
        let headers = ["authorization", "private-token"].into_iter().filter_map(secret).collect();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.uri.to_string(), headers, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn each_forge_hears_it_in_its_own_words() {
        let (uri, headers, body) = made(Forge::Github, State::Failure, &"x".repeat(200)).await;
        assert_eq!(uri, "https://code.example/api/v3/repos/group/sub/shop/statuses/abc");
        assert_eq!(headers, ["authorization: Bearer t0"]);
        assert_eq!(
            (body["state"].as_str(), body["context"].as_str()),
            (Some("failure"), Some("trackbed/shop"))
        );
        assert_eq!(body["description"].as_str().unwrap().len(), DESCRIPTION_MAX_CHARS);
        let (uri, headers, body) = made(Forge::Gitlab, State::GivenUp, "why").await;
        assert_eq!(uri, "https://code.example/api/v4/projects/group%2Fsub%2Fshop/statuses/abc");
        assert_eq!(headers, ["private-token: t0"]);
        assert_eq!(
            (body["state"].as_str(), body["name"].as_str()),
            (Some("canceled"), Some("trackbed/shop"))
        );
        let (uri, headers, body) = made(Forge::Gitea, State::Pending, "").await;
        assert_eq!(uri, "https://code.example/api/v1/repos/group/sub/shop/statuses/abc");
        assert_eq!(headers, ["authorization: token t0"]);
        assert_eq!(
            (body["state"].as_str(), body["target_url"].as_str()),
            (Some("pending"), Some("http://shop"))
        );
    }

    #[tokio::test]
    async fn a_forge_that_is_not_there_is_an_error_in_words() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (repository, token) = ("http://127.0.0.1/a/b".parse().unwrap(), Secret::new("t0".into()));
        let api = format!("http://127.0.0.1:{port}");
        let board =
            Board { forge: Forge::Gitea, api: &api, repository: &repository, token: &token, context: "c" };
        let error = board.post("abc", State::Success, "", "").await.unwrap_err();
        assert!(error.contains("refused") && !error.contains("t0"), "{error}");
    }
}
