//! The engines of this box as one: images of a container engine are run by it, everything else by the sandbox.
//!
//! Each instance belongs to the engine that has its record. Locks of volumes are the same for both, so a service may move
//! from one to the other with its data.

use std::time::Duration;

use async_trait::async_trait;
use trackbed_core::instance::{
    AppTree, Exit, InstanceSpec, InstanceStats, InstanceStatus, Listener, LogCursor, LogPage,
};
use trackbed_core::isolation::Isolation;
use trackbed_core::ports::{BuildLog, Engine, Frozen, PortError, StrayFile, VolumeLease, VolumePlace};
use trackbed_core::route::Address;
use trackbed_core::{InstanceId, Secret};
use trackbed_docker::Docker;
use trackbed_sandbox::Sandbox;

/// Both engines. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Engines {
    pub(crate) sandbox: Sandbox,
    pub(crate) docker: Docker,
}

impl Engines {
    fn of(&self, id: &InstanceId) -> &dyn Engine {
        if self.docker.knows(id) { &self.docker } else { &self.sandbox }
    }

    /// Makes the records of both true and removes strays; see the engines.
    ///
    /// # Errors
    /// When one of them cannot.
    pub(crate) async fn reconcile(&self) -> Result<(), PortError> {
        let sandbox = self.sandbox.clone();
        let looked = tokio::task::spawn_blocking(move || sandbox.reconcile(&|_| true)).await;
        let containers = self.docker.reconcile().await;
        looked.unwrap_or_else(|error| Err(PortError::new(format!("the engine failed: {error}"))))?;
        containers
    }

    /// Removes what both have outside the data directory, unless an instance lives.
    pub(crate) async fn dismantle(&self) {
        let sandbox = self.sandbox.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || sandbox.dismantle()).await {
            tracing::error!(%error, "control groups and network could not be removed");
        }
        self.docker.dismantle().await;
    }
}

#[async_trait]
impl Engine for Engines {
    /// That of the sandbox: it is what most instances get, and what a box may lack.
    fn isolation(&self) -> Isolation {
        self.sandbox.isolation()
    }

    fn shares_ports(&self) -> bool {
        self.sandbox.shares_ports()
    }

    async fn start(&self, spec: &InstanceSpec) -> Result<(), PortError> {
        match &spec.app {
            AppTree::Image { image } if image.container.is_some() => self.docker.start(spec).await,
            AppTree::Image { .. } | AppTree::Directory { .. } => self.sandbox.start(spec).await,
        }
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), PortError> {
        self.of(id).stop(id, grace).await
    }

    async fn remove(&self, id: &InstanceId) -> Result<(), PortError> {
        self.of(id).remove(id).await
    }

    async fn list(&self) -> Result<Vec<InstanceStatus>, PortError> {
        let mut all = self.sandbox.list().await?;
        all.extend(self.docker.list().await?);
        Ok(all)
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Option<InstanceStatus>, PortError> {
        self.of(id).inspect(id).await
    }

    async fn wait(&self, id: &InstanceId) {
        self.of(id).wait(id).await;
    }

    async fn logs(&self, id: &InstanceId, from: LogCursor, limit: usize) -> Result<LogPage, PortError> {
        self.of(id).logs(id, from, limit).await
    }

    async fn stats(&self, id: &InstanceId) -> Result<InstanceStats, PortError> {
        self.of(id).stats(id).await
    }

    async fn listeners(&self, id: &InstanceId) -> Result<Vec<Listener>, PortError> {
        self.of(id).listeners(id).await
    }

    async fn address(&self, id: &InstanceId, port: u16) -> Result<Address, PortError> {
        self.of(id).address(id, port).await
    }

    /// A port that is free on the box is free in a container.
    async fn free_port(&self) -> Result<u16, PortError> {
        self.sandbox.free_port().await
    }

    async fn lease(&self, place: &VolumePlace) -> Result<VolumeLease, PortError> {
        self.sandbox.lease(place).await
    }

    async fn freeze(&self, id: &InstanceId, limit: Duration) -> Result<Box<dyn Frozen>, PortError> {
        self.of(id).freeze(id, limit).await
    }

    async fn stray_files(&self, id: &InstanceId, limit: usize) -> Result<Vec<StrayFile>, PortError> {
        self.of(id).stray_files(id, limit).await
    }

    async fn exec(
        &self,
        id: &InstanceId,
        command: &[String],
        env: &[(String, Secret<String>)],
        log: &dyn BuildLog,
    ) -> Result<Exit, PortError> {
        self.of(id).exec(id, command, env, log).await
    }
}
