//! Repositories that services follow.

use serde::{Deserialize, Serialize};

use crate::Commit;

/// Lets a service follow a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoteRequest {
    /// `https://…`, `ssh://…` or `git@host:owner/name.git`.
    pub url: String,
    /// The branch that is deployed; none keeps the one before, or takes `main`.
    #[serde(default)]
    pub branch: Option<String>,
    /// `github`, `gitlab` or `gitea`; none guesses by the host.
    #[serde(default)]
    pub forge: Option<String>,
    /// Where the forge's API is, when it is not where its kind has it.
    #[serde(default)]
    pub api: Option<String>,
    /// A token with which the forge takes the status of commits; none keeps the one before.
    #[serde(default)]
    pub status_token: Option<String>,
    /// The secret of the webhook, where the forge makes it; none keeps the one before, or draws one.
    #[serde(default)]
    pub hook_secret: Option<String>,
}

/// What a service follows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Remote {
    /// The repository.
    pub url: String,
    /// The branch that is deployed.
    pub branch: String,
    /// The address for the webhook. None when the box cannot listen.
    pub hook_url: Option<String>,
    /// `github`, `gitlab` or `gitea`, when that is known.
    pub forge: Option<String>,
    /// The public half of the deploy key; none for a repository that is not reached by ssh.
    pub deploy_key: Option<String>,
    /// Whether the forge hears how commits fare.
    pub has_status_token: bool,
    /// The newest deliveries, newest first.
    pub deliveries: Vec<Delivery>,
}

/// What a service follows from now on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectedRemote {
    /// The secret for the webhook.
    pub secret: String,
    /// The rest.
    #[serde(flatten)]
    pub remote: Remote,
}

/// A push that a forge told of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    /// Grows with each.
    pub number: i64,
    /// Milliseconds since 1970 UTC.
    pub at: i64,
    /// The commit, once it is known.
    pub commit: Option<Commit>,
    /// Id of the deployment that came of it.
    pub deployment: Option<String>,
    /// `fetching`, `deploying`, `live`, `already live`, `skipped`, `failed`, `not fetched`, `superseded` or `cancelled`.
    pub state: String,
    /// More in words.
    pub detail: String,
}
