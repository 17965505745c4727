//! Calls about copies off the box.

use std::time::Duration;

use hyper::Method;
use trackbed_api as api;

use crate::{Client, ClientError};

/// Setting a target asks its store several things, each with a deadline of its own.
const TARGET_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// Everything else is answered by the box alone; one with many objects lists its disk.
const DEADLINE: Duration = Duration::from_secs(60);

impl Client {
    /// Returns the target of the copies and how they do.
    pub async fn backup(&self) -> Result<api::Backup, ClientError> {
        self.get("/v1/backup").await
    }

    /// Sets the target; returns the key when it is new.
    pub async fn set_backup_target(
        &self,
        request: &api::BackupTargetRequest,
    ) -> Result<api::BackupKey, ClientError> {
        self.ask(Method::PUT, "/v1/backup/target", request, TARGET_DEADLINE).await
    }

    /// Forgets the target; the copies stay.
    pub async fn remove_backup_target(&self) -> Result<api::Backup, ClientError> {
        self.ask(Method::DELETE, "/v1/backup/target", &serde_json::json!({}), DEADLINE).await
    }

    /// Asks for a pass now. Returns how things were before.
    pub async fn backup_now(&self) -> Result<api::Backup, ClientError> {
        self.ask(Method::POST, "/v1/backup/now", &serde_json::json!({}), DEADLINE).await
    }

    /// Returns the key of the copies.
    pub async fn backup_key(&self) -> Result<api::BackupKey, ClientError> {
        self.get("/v1/backup/key").await
    }
}
