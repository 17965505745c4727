//! Calls about pushes by git.

use hyper::Method;
use trackbed_api as api;

use crate::calls::CALL_DEADLINE;
use crate::{ClientError, ServiceClient};

impl ServiceClient<'_> {
    /// Returns how the service takes pushes.
    pub async fn git(&self) -> Result<api::GitAccess, ClientError> {
        self.client.get(&format!("{}/git", self.path)).await
    }

    /// Chooses the branch that is deployed.
    pub async fn set_git_branch(&self, branch: &str) -> Result<api::GitAccess, ClientError> {
        let change = api::GitChange { branch: branch.to_owned() };
        self.client.ask(Method::PATCH, &format!("{}/git", self.path), &change, CALL_DEADLINE).await
    }

    /// Makes a token for pushes, and the service when it is new.
    pub async fn add_git_token(&self, name: &str) -> Result<api::NewGitToken, ClientError> {
        let request = api::GitTokenRequest { name: name.to_owned() };
        self.client.post(&format!("{}/git/tokens", self.path), &request).await
    }

    /// Revokes a token.
    pub async fn remove_git_token(&self, id: &str) -> Result<api::GitAccess, ClientError> {
        let path = format!("{}/git/tokens/{}", self.path, crate::wire::escape(id));
        self.client.ask(Method::DELETE, &path, &serde_json::json!({}), CALL_DEADLINE).await
    }

    /// Returns whether a deployment of a source would change anything.
    pub async fn live_source(&self, source: &str) -> Result<api::LiveSource, ClientError> {
        self.client.get(&format!("{}/live?source={}", self.path, crate::wire::escape(source))).await
    }
}
