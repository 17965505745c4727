//! One worker per service: first the unfinished deployments, then the live release. Nothing of a service ever happens
//! twice at once, because only its worker acts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use trackbed_core::ServiceId;
use trackbed_core::deployment::{DeploymentEvent, DeploymentState, EventKind};

use crate::control::{Control, ControlError};
use crate::supervise::Queue;

/// How often a worker looks after its instance without being woken. An app that ends is noticed within this time.
const TICK: Duration = Duration::from_millis(400);
/// Pause after a pass that failed for a reason of our own (disk, database), so that it is not tried in a hot loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(2);

impl Control {
    pub(crate) fn spawn_worker(&self, service: ServiceId, wake: Arc<Notify>) {
        let control = self.clone();
        let mut shutdown = self.inner.tasks.shutdown();
        self.inner.tasks.spawn(format!("worker {service}"), async move {
            loop {
                // Dropping a pass in the middle is safe: it is what a crash does, and every pass starts from the store.
                let pass = tokio::select! {
                    biased;
                    () = shutdown.wait() => return,
                    pass = control.pass(&service) => pass,
                };
                let pause = match pass {
                    Ok(()) => TICK,
                    Err(error) => {
                        tracing::error!(%service, error = &error as &dyn std::error::Error, "a pass over the service failed");
                        PAUSE_AFTER_ERROR
                    }
                };
                tokio::select! {
                    () = shutdown.wait() => return,
                    () = wake.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    /// Brings one service to what is wanted of it, as far as that is possible now.
    pub(crate) async fn pass(&self, service: &ServiceId) -> Result<(), ControlError> {
        loop {
            self.supersede_queued(service).await?;
            let id = service.clone();
            let unfinished = self.inner.store.with(move |db| db.list_unfinished(&id)).await?;
            let Some(next) = unfinished.into_iter().next() else { break };
            self.drive(next).await?;
        }
        self.supervise(service, Queue::Matters).await
    }

    /// Of several deployments that have not begun, only the newest is worth doing.
    async fn supersede_queued(&self, service: &ServiceId) -> Result<(), ControlError> {
        let id = service.clone();
        let now = self.now();
        let superseded = self
            .inner
            .store
            .with(move |db| {
                let mut queued = db.list_unfinished(&id)?;
                queued.retain(|deployment| deployment.state == DeploymentState::Queued);
                queued.pop();
                for deployment in &mut queued {
                    deployment.state = deployment
                        .state
                        .apply(DeploymentEvent::WasSuperseded)
                        .map_err(|refused| trackbed_store::StoreError::Conflict(refused.to_string()))?;
                    deployment.finished_at = Some(now);
                    db.update_deployment(deployment)?;
                }
                Ok(queued)
            })
            .await?;
        for deployment in superseded {
            self.event(&deployment, EventKind::Note, "superseded by a newer deployment").await?;
        }
        Ok(())
    }
}
