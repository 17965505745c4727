//! Calls about the repositories that services follow.

use hyper::Method;
use trackbed_api as api;

use crate::calls::CALL_DEADLINE;
use crate::{ClientError, ServiceClient};

impl ServiceClient<'_> {
    /// Returns what the service follows.
    pub async fn upstream(&self) -> Result<api::Upstream, ClientError> {
        self.client.get(&format!("{}/upstream", self.path)).await
    }

    /// Lets the service follow a repository, and makes the service when it is new.
    pub async fn connect_upstream(
        &self,
        request: &api::UpstreamRequest,
    ) -> Result<api::ConnectedUpstream, ClientError> {
        self.client.ask(Method::PUT, &format!("{}/upstream", self.path), request, CALL_DEADLINE).await
    }

    /// Lets the service follow nothing. Returns what it followed.
    pub async fn disconnect_upstream(&self) -> Result<api::Upstream, ClientError> {
        let path = format!("{}/upstream", self.path);
        self.client.ask(Method::DELETE, &path, &serde_json::json!({}), CALL_DEADLINE).await
    }

    /// Has the box fetch and deploy what the branch is at.
    pub async fn deploy_upstream(&self) -> Result<api::Delivery, ClientError> {
        self.client.post(&format!("{}/upstream/deliveries", self.path), &serde_json::json!({})).await
    }
}
