//! Undoing a deployment that failed before its switch. Repeating it is fine.

use std::time::Duration;

use trackbed_core::deployment::{Deployment, DeploymentEvent, EventKind};
use trackbed_core::service::Wanted;

use super::hold::waited_at_most;
use crate::control::{Control, ControlError};

/// A release that failed gets little time to end: callers of the old one may be waiting.
pub(super) const UNDO_GRACE: Duration = Duration::from_secs(2);

impl Control {
    /// Stops the new instance and marks the deployment failed. The old release was either never touched, or has been
    /// stopped by a `held` handover: then `live` still names it, and [`Control::supervise`] starts it again, with the
    /// requests parked until it is healthy.
    pub(super) async fn undo(&self, mut deployment: Deployment) -> Result<(), ControlError> {
        if let Some(instance) = &deployment.instance {
            self.inner.engine.stop(instance, UNDO_GRACE).await?;
        }
        let service = self.load_service(&deployment).await?;
        let mut live = service.live.clone();
        let was_stopped = match &deployment.old_instance {
            Some(old) => self.ended(old).await?.is_some(),
            None => false,
        };
        if let Some(live) = &mut live
            && was_stopped
            && live.instance == deployment.old_instance
        {
            live.instance = None;
            live.port = None;
            live.restarts = 0;
            // Those who are parked have waited for this deployment already, and wait on for the old release.
            let release = live.release.clone();
            let grace = self.inner.store.with(move |db| db.load_release(&release)).await?.config.stop_grace;
            let window = Duration::from_millis(deployment.hold_window_ms.unwrap_or_default());
            live.waited_ms = u64::try_from(waited_at_most(grace, window).as_millis()).unwrap_or(u64::MAX);
        }
        self.end_hold(&deployment.service);
        deployment.state = deployment
            .state
            .apply(DeploymentEvent::WasUndone)
            .map_err(|refused| ControlError::Conflict { message: refused.to_string(), hint: None })?;
        deployment.finished_at = Some(self.now());
        let (id, copy) = (service.id.clone(), deployment.clone());
        self.inner
            .store
            .with(move |db| {
                if let Some(live) = &live {
                    db.set_live(&id, live)?;
                }
                db.update_deployment(&copy)
            })
            .await?;
        self.announce();
        if let Err(error) = self.sync_routes().await {
            tracing::warn!(%error, "the edge will hear of the undo later");
        }
        let text = match (&service.live, was_stopped) {
            (None, _) => "nothing is live yet",
            (Some(_), _) if service.wanted == Wanted::Stopped => "the service stays stopped",
            (Some(_), false) => "the previous release keeps serving",
            (Some(_), true) => "the previous release is started again; requests wait for it",
        };
        self.event(&deployment, EventKind::Note, text).await
    }
}
