//! Calls about the repositories that services follow.

use hyper::Method;
use trackbed_api as api;

use crate::calls::CALL_DEADLINE;
use crate::{ClientError, ServiceClient};

impl ServiceClient<'_> {
    /// Returns what the service follows.
    pub async fn remote(&self) -> Result<api::Remote, ClientError> {
        self.client.get(&format!("{}/remote", self.path)).await
    }

    /// Lets the service follow a repository, and makes the service when it is new.
    pub async fn connect_remote(
        &self,
        request: &api::RemoteRequest,
    ) -> Result<api::ConnectedRemote, ClientError> {
        self.client.ask(Method::PUT, &format!("{}/remote", self.path), request, CALL_DEADLINE).await
    }

    /// Lets the service follow nothing. Returns what it followed.
    pub async fn disconnect_remote(&self) -> Result<api::Remote, ClientError> {
        let path = format!("{}/remote", self.path);
        self.client.ask(Method::DELETE, &path, &serde_json::json!({}), CALL_DEADLINE).await
    }

    /// Has the box fetch and deploy what the branch is at.
    pub async fn deploy_remote(&self) -> Result<api::Delivery, ClientError> {
        self.client.post(&format!("{}/remote/deliveries", self.path), &serde_json::json!({})).await
    }
}
