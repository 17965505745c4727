//! Pushes by git.

use serde::{Deserialize, Serialize};

/// How a service takes pushes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GitAccess {
    /// Address of the repository, without a token: `http://127.0.0.1:8079/shop.git`. None while no token was ever made.
    pub url: Option<String>,
    /// The branch that is deployed; none until the first push decides between `main` and `master`.
    pub branch: Option<String>,
    /// Who may push, oldest first.
    pub tokens: Vec<GitToken>,
}

/// Changes how a service takes pushes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GitChange {
    /// The branch that is deployed.
    pub branch: String,
}

/// A token that may push to a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GitToken {
    /// Its id.
    pub id: String,
    /// Whom or what it is for.
    pub name: String,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
    /// Likewise, when it was last used; none when it never was.
    pub used_at: Option<i64>,
}

/// Asks for a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GitTokenRequest {
    /// Whom or what it is for.
    pub name: String,
}

/// A new token. It is told this once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewGitToken {
    /// Its id, by which it is revoked.
    pub id: String,
    /// The token itself: the password of a push.
    pub token: String,
    /// Address of the repository, without the token.
    pub url: String,
}

/// Says whether a deployment of a source would change anything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LiveSource {
    /// The live release (`v3`) when it was made of that source and today's variables; none when a deployment would differ.
    pub release: Option<String>,
}
